// What waits for the device: control packets (SYN, FIN, RST, ARP, ICMP) before pure ACKs before data, as in
// mTCP.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "stack/packet/packet.hh"

namespace mtcp::stack {

class CaptureSet;
class Port;
class Stats;

enum class TxPriority : std::uint8_t { control, ack, data };

class TxQueue {
 public:
  // `bound`: packets per priority; beyond it add() refuses (the queue is the qdisc of this device).
  TxQueue(std::size_t bound, Stats& stats);
  // Queues a whole frame, takes ownership as Port::tx does (kKeep: it stays the caller's). False: full,
  // nothing taken.
  [[nodiscard]] bool add(Packet* p, TxPriority priority);
  [[nodiscard]] bool full(TxPriority priority) const {
    const Fifo& f = fifos_[static_cast<std::size_t>(priority)];
    return f.tail - f.head >= bound_;
  }
  // Offers everything to the port in order of priority. What the port does not take stays queued.
  // False if the port is full.
  bool flush(Port& port);
  // Forgets everything that waits, from priority `from` on; packets without kKeep are freed.
  void clear(PacketCache& cache, TxPriority from = TxPriority::control);
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  // Who gets copies of what the port takes; null: nobody. Outlives the queue, or is taken away again.
  void set_captures(CaptureSet* captures) { captures_ = captures; }
  [[nodiscard]] CaptureSet* captures() const { return captures_; }

 private:
  // A ring of `bound_` rounded up to a power of two.
  struct Fifo {
    std::vector<Packet*> ring;
    std::size_t head = 0, tail = 0;  // count up for ever
  };
  bool offer(Fifo& fifo, Port& port);
  std::size_t send_captured(Packet* const* packets, std::size_t n, Port& port);

  std::array<Fifo, 3> fifos_;
  std::size_t bound_;
  std::size_t mask_;
  std::size_t size_ = 0;
  Stats& stats_;
  CaptureSet* captures_ = nullptr;
};

}  // namespace mtcp::stack

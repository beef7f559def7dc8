// The sending half of TCP: what has been written and is not acknowledged, what of it is lost, what may leave now. The
// state of each connection is Connection::tx and the sender's part of Connection::hot.
#pragma once

#include <cstdint>
#include <span>

#include "stack/base/intrusive_list.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/tcp/connection.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Network;
class Tcp;

class Sender {
 public:
  explicit Sender(Tcp& tcp);
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  // --- buffer.cc: a connection begins, its send buffer, who waits for room in it
  // Once hot.mss, the windows and scales are known.
  void start(Connection& c, Time now);
  void resize_buffer(Connection& c);
  void free_queue(Connection& c);
  // What the memory budget leaves of the limits in buffers.hh.
  [[nodiscard]] std::uint32_t send_room(const Connection& c) const;  // bytes
  [[nodiscard]] bool is_writable(const Connection& c) const;
  void wake_writer(Connection& c);  // if a write found too little room and there is enough now

  // --- send.cc: the application's writes (worker.hh)
  Result<std::size_t> send(Connection& c, std::span<const iovec> data, bool more, Time now);
  Result<std::size_t> reserve(Connection& c, std::size_t bytes, std::span<iovec> out, Time now);
  void commit(Connection& c, std::size_t bytes, bool more, Time now);
  // "Fragmentation needed" (RFC 1191): bytes, IP packet.
  void on_path_mtu(Connection& c, std::uint32_t mtu, Time now);
  bool split(Connection& c, Packet* p, std::uint32_t at);

  // --- output.cc: what may be sent now (Nagle, cork, SWS)
  // Sends what windows and Nagle allow, FIN included. `override`: neither Nagle nor cork holds anything back.
  void push(Connection& c, Time now, bool override = false);
  bool must_stop(Connection& c);  // the device does not keep up: push_blocked() comes back to it
  void push_blocked(Time now);    // those that found the transmit queue full; after it was flushed
  // First time or again; false: it is still with the device.
  bool transmit(Connection& c, Packet* p, Time now);
  void send_fin(Connection& c, Time now);  // a FIN without data
  void release(Packet* p);                 // frees, also what the device still reads

  // --- ack.cc, recovery.cc: RFC 9293 3.10.7.4, fifth step: RTT, windows, fast retransmit and recovery
  // False: the segment is dropped, or the connection is gone.
  bool on_ack(Connection& c, Segment& s, Time now);
  void take_rtt_sample(Connection& c, Duration rtt);

  // --- retransmit.cc, probe.cc, rto.hh: RFC 6298, zero-window probes, giving up
  void on_retransmit_timer(Connection& c, Time now);
  void arm_retransmit(Connection& c, Time now);
  void arm_probe(Connection& c, Time now);  // nothing in flight and something to send: persist timer

  IntrusiveList<Connection, &Connection::push_hook> blocked;
  bool device_full = false;  // it took less than it was offered in this turn: no use in asking again
  // Packets: as many full ones as a device that takes several as one frame (64 KB) can have in one.
  static constexpr std::size_t kTxBurst = 44;

 private:
  bool on_odd_ack(Connection& c, Segment& s, Time now);
  void on_window_opened(Connection& c);
  void on_duplicate_ack(Connection& c, Time now);
  // Returns the payload bytes that `ack` covers; `rtt` negative: no sample.
  std::uint32_t remove_acked(Connection& c, Seq ack, Duration& rtt, Time now);
  void on_new_ack(Connection& c, std::uint32_t acked, std::uint32_t flight_before, Time now);
  bool retransmit_head(Connection& c, Time now);  // the oldest unacknowledged segment; false: not sent
  void retransmit_lost(Connection& c, Time now);  // after a timeout: as much as cwnd allows
  void on_probe_timer(Connection& c, Time now);
  void on_timeout(Connection& c, Time now);  // RFC 6298 section 5
  void on_syn_timer(Connection& c, Time now);
  void mark_all_lost(Connection& c);
  [[nodiscard]] bool user_timeout_expired(const Connection& c, Time now) const;
  bool give_up(Connection& c, std::uint32_t tries, Time now);  // true: the connection is over

  // What it uses of the worker's TCP.
  Tcp& tcp_;
  const Options& options;
  Stats& stats;
  PacketCache& cache;
  TxQueue& tx;
  Network& network;
  TimerWheel& wheel;
  Port* const port;
  const bool sums_payload;
};

}  // namespace mtcp::stack

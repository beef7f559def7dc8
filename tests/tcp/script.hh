// One stack against a scripted peer: the test says which segments arrive and looks at those that leave, on a
// virtual clock. Sequence numbers count from the first byte of each side's data.
#pragma once

#include <catch2/catch.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"
#include "tests/bare_port.hh"

namespace mtcp::test {

using namespace mtcp::stack;

// A device that keeps what is sent, and answers ARP.
class ScriptPort final : public BarePort {
 public:
  using BarePort::BarePort;
  ~ScriptPort() override;
  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] bool busy(const Packet&) const override { return still_reading; }

  // Puts a frame into the receive queue.
  void arrive(std::span<const std::byte> frame);
  std::deque<std::vector<std::byte>> sent;  // frames with IPv4 in them
  bool still_reading = false;               // what busy() says
  std::size_t room = SIZE_MAX;              // frames that tx() takes from now on

 private:
  std::deque<Packet*> arrived_;
};

// What the peer sends.
struct In {
  std::uint32_t seq = 0, ack = 0;
  std::string data;
  std::uint8_t flags = kAck;
  std::uint32_t window = 65535;         // as on the wire
  std::optional<std::uint32_t> ts_val;  // default with timestamps: the script's clock
  std::vector<std::pair<std::uint32_t, std::uint32_t>> sack = {};  // blocks of our data: first byte, one past the last
  std::uint16_t urgent = 0;  // pointer, with kUrg
};

// What the stack has sent.
struct Out {
  std::uint32_t seq = 0, ack = 0;
  std::string data;
  std::uint8_t flags = 0;
  std::uint32_t window = 0;
  TcpOptions options;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> sack = {};  // blocks of the peer's data
  std::uint16_t urgent = 0;  // pointer, with kUrg
  [[nodiscard]] bool fin() const { return (flags & kFin) != 0; }
  [[nodiscard]] bool rst() const { return (flags & kRst) != 0; }
};

// Bytes of payload in all of them.
inline std::size_t payload(const std::vector<Out>& all) {
  std::size_t n = 0;
  for (const Out& o : all) n += o.data.size();
  return n;
}

struct Setup {
  Options options;
  SocketOptions socket;
  std::uint16_t peer_mss = 1000;
  int peer_wscale = 7;                // -1: none
  std::uint32_t peer_window = 65535;  // of its SYN-ACK
  bool timestamps = false;
  bool sack = false;  // the peer's SYN-ACK permits it
  int lost_syns = 0;
  Duration rtt = milliseconds(10);  // of the handshake
};

class Script {
 public:
  explicit Script(Setup setup = {});
  ~Script();

  // The peer's segment arrives; the stack processes it and then has time to flush.
  void peer(const In& in, bool flush = true);
  void peer_ack(std::uint32_t ack, std::uint32_t window = 65535) {
    peer({.seq = peer_seq, .ack = ack, .window = window});
  }
  // The peer's data at its present place.
  void peer_data(const std::string& data, std::uint8_t flags = kAck);
  void icmp_fragmentation_needed(std::uint16_t mtu, std::uint32_t seq);

  // The application.
  std::size_t write(const std::string& data, bool more = false);
  std::size_t write_urgent(const std::string& data, bool more = false);
  Errc write_error(const std::string& data);
  std::string read(std::size_t most = 1 << 20);
  Result<std::size_t> read_result();
  void options(const SocketOptions& o) {
    worker->set_options(*c, o, now);
    flush();
  }
  void shutdown() {
    worker->shutdown(*c, false, true, now);
    flush();
  }
  void close() {
    worker->close(*c, now);
    flush();
  }
  [[nodiscard]] ConnectionInfo info() const { return worker->info(*c); }
  [[nodiscard]] std::uint64_t count(Counter counter) const { return stats.get(counter); }
  // Edges raised for the connection since the last call.
  std::uint8_t edges();

  // What was sent, oldest first.
  [[nodiscard]] bool sent_nothing();
  Out sent();  // fails the test if there is nothing
  std::vector<Out> all_sent();
  Out last_sent();  // drops the others
  void forget() { (void)all_sent(); }

  void flush() { worker->flush(now); }
  // Time passes; the stack is polled and flushed at each millisecond at which a timer is due.
  void wait(Duration d);
  // Waits until something is sent, at most `limit`; returns how long it took.
  Duration wait_for_segment(Duration limit);

  Time now = Time(seconds(1000));
  Clock clock = nullptr;  // what time it is once something has arrived; null: no other than before
  Setup setup;
  Stats stats;
  HeapPool pool{4096};
  ScriptPort port{pool};
  std::unique_ptr<Worker> worker;
  Connection* c = nullptr;
  std::uint32_t peer_seq = 0;       // where the peer's next data goes
  std::uint32_t peer_clock = 5000;  // its timestamps
  std::uint32_t last_ts = 0;        // the newest timestamp that we sent
  std::optional<Out> syn;           // our SYN

 private:
  void send_frame(const In& in, bool syn);
  std::optional<Out> take(bool syn);
  void step(Time end);
  Seq our_isn_, peer_isn_{0xfffff000};  // wraps soon: that must not matter
  std::uint16_t local_port_ = 0;
  bool established_ = false;
  std::vector<char> buffer_;  // of read(): a megabyte for each of 40,000 reads is minutes with sanitizers
};

std::string pattern(std::size_t n, std::size_t from = 0);

}  // namespace mtcp::test

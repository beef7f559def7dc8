// A peer on the simulated wire that has no stack: the test writes its segments by hand and reads what comes
// back.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "stack/wire/tcp_header.hh"
#include "tests/sim/sim.hh"

namespace mtcp::sim {

// A segment as a test writes it or sees it.
struct Seg {
  std::uint8_t flags = 0;
  std::uint32_t seq = 0, ack = 0;
  std::string data;
  std::uint16_t window = 65535;
  std::uint16_t mss = 0;
  int window_scale = -1;
  bool timestamps = false;
  std::uint32_t ts_val = 0, ts_ecr = 0;
  bool sack_permitted = false;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> sack = {};  // blocks: first byte, one past the last
  std::uint16_t from_port = 0, to_port = 0;  // 0: those of the RawPeer
  std::uint8_t tos = 0;                      // of the IP header
  std::optional<std::string> cookie = {};    // a Fast Open option, and what is in it
  bool experimental = false;                 // it is RFC 6994's

  [[nodiscard]] bool is(unsigned f) const { return (flags & ~unsigned{kPsh}) == f; }
};

class RawPeer {
 public:
  // A machine with the next free address; talks to `host`, from `local_port` to `remote_port`.
  RawPeer(Sim& sim, Host& host, std::uint16_t local_port, std::uint16_t remote_port);
  ~RawPeer();
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  void send(const Seg& s);
  // ICMP destination unreachable about a segment of the host's with this sequence number.
  void send_unreachable(std::uint8_t code, std::uint32_t seq);
  // Sends, and lets 2 ms pass.
  void say(const Seg& s);
  // The oldest segment that has arrived and not been taken; a Seg with flags 0 if there is none.
  Seg hear();
  // All of them.
  std::deque<Seg> hear_all() { return std::exchange(heard_, {}); }
  [[nodiscard]] bool silent() const { return heard_.empty(); }
  void forget() { heard_.clear(); }
  [[nodiscard]] std::size_t waiting() const { return heard_.size(); }

  // Opens a connection to a listener of the host; returns our SND.NXT and fills in theirs.
  void handshake(std::uint32_t isn = 1000);

  Sim& sim;
  Host& host;
  IpAddress address;
  std::uint16_t local_port, remote_port;
  bool answers_arp = true;
  std::uint32_t snd = 0, rcv = 0;  // for convenience: ours and theirs, after handshake()

 private:
  void act();
  void send_ip(std::uint8_t protocol, std::span<const std::byte> payload, std::uint8_t tos = 0);

  HeapPool pool_{64};
  std::size_t port_;
  MacAddress mac_;
  MacAddress host_mac_;
  std::deque<Seg> heard_;
};

}  // namespace mtcp::sim

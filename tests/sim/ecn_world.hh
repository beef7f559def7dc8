// A listener's side of a connection to a hand-written peer that has asked for ECN.
#pragma once

#include <catch2/catch.hpp>

#include "tests/sim/passive_world.hh"

namespace mtcp::sim {

inline constexpr std::uint8_t kEct0 = 2, kCe = 3;
inline constexpr unsigned kAsks = kEce | kCwr;

struct EcnWorld : PassiveWorld {
  // `asks` and `tos`: flags of the peer's SYN, and the bits in its IP header.
  explicit EcnWorld(const std::function<void(Options&)>& tune = {}, unsigned asks = kAsks, std::uint8_t tos = 0) : PassiveWorld(tune) {
    host.accepting = false;
    peer.say({.flags = static_cast<std::uint8_t>(kSyn | asks), .seq = 1000, .mss = 1000, .tos = tos});
    answer = peer.hear();
    rcv = answer.seq + 1;
    peer.say({.flags = kAck, .seq = snd, .ack = rcv});
    c = host.worker->accept(listener);
  }
  // Our application writes so many bytes, and 2 ms pass.
  void write(std::size_t n) {
    const std::string s(n, 'y');
    const iovec v{const_cast<char*>(s.data()), n};
    REQUIRE(host.worker->send(*c, {&v, 1}, false, host.clock()));
    sim.run_for(milliseconds(2));
  }
  Seg answer;
  Connection* c = nullptr;
  std::uint32_t snd = 1001, rcv = 0;  // the peer's
};

}  // namespace mtcp::sim

// A host with a listener on port 80 and a hand-written peer, brought into any state.
#pragma once

#include <catch2/catch.hpp>

#include "tests/sim/raw_peer.hh"

namespace mtcp::sim {

inline constexpr std::uint32_t kFar = 0x40000000;

struct StatesWorld {
  Sim sim{7};
  Host& host = sim.add_host();
  RawPeer peer{sim, host, 4000, 80};
  Socket* socket = nullptr;

  // Brings the host's end into a state.
  void enter(State wanted) {
    if (wanted == State::syn_sent || wanted == State::syn_received) {
      open_actively(wanted);
      return;
    }
    host.on_accept = [](Socket& s) { s.reading = false; };
    if (host.listeners.empty()) host.listen(80);
    peer.handshake();
    socket = host.accepted.back();
    const std::uint32_t fin = peer.rcv;
    switch (wanted) {
      case State::established:
        break;
      case State::fin_wait_1:
        half_close();
        break;
      case State::fin_wait_2:
        half_close();
        peer.rcv = fin + 1;
        peer.say({.flags = kAck, .seq = peer.snd, .ack = peer.rcv});
        break;
      case State::closing:
        half_close();
        peer.say({.flags = kFin | kAck, .seq = peer.snd++, .ack = fin});
        break;
      case State::close_wait:
        peer.say({.flags = kFin | kAck, .seq = peer.snd++, .ack = peer.rcv});
        break;
      case State::last_ack:
        peer.say({.flags = kFin | kAck, .seq = peer.snd++, .ack = peer.rcv});
        half_close();
        break;
      case State::time_wait:
        half_close();
        peer.rcv = fin + 1;
        peer.say({.flags = kFin | kAck, .seq = peer.snd++, .ack = peer.rcv});
        break;
      default:
        FAIL("not a state to enter");
    }
    peer.forget();
  }
  void open_actively(State wanted) {
    peer.local_port = 80;
    socket = host.try_connect({peer.address, 80});
    REQUIRE(socket != nullptr);
    sim.run_for(milliseconds(2));
    const Seg syn = peer.hear();
    REQUIRE(syn.is(kSyn));
    peer.remote_port = syn.from_port;
    peer.snd = 1000;
    peer.rcv = syn.seq + 1;
    if (wanted == State::syn_received) {
      peer.say({.flags = kSyn, .seq = peer.snd++, .mss = 1460});
      const Seg answer = peer.hear();
      REQUIRE(answer.is(kSyn | kAck));
      REQUIRE(answer.seq + 1 == peer.rcv);
      REQUIRE(answer.ack == peer.snd);
    }
    peer.forget();
  }
  void half_close() {
    socket->shutdown_write();
    sim.run_for(milliseconds(2));
  }
  [[nodiscard]] State state() const {
    return socket->connection == nullptr ? State::closed : socket->connection->hot.state;
  }
};

inline const std::vector<State> kSynchronized{State::established, State::fin_wait_1, State::fin_wait_2,
                                       State::closing,     State::close_wait, State::last_ack};

}  // namespace mtcp::sim

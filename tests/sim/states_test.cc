// Every synchronized state of a connection against every kind of control segment, inside the window and outside (RFC
// 9293 3.10.7, RFC 5961), and closing when one side does not do it by the book.
#include <catch2/catch.hpp>

#include "tests/sim/states_world.hh"

using namespace mtcp::sim;
using World = StatesWorld;

TEST_CASE("rfc9293 3.10.7.4: the states can be reached", "[states]") {
  for (State s : {State::syn_sent, State::syn_received, State::established, State::fin_wait_1,
                  State::fin_wait_2, State::closing, State::close_wait, State::last_ack}) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    CHECK(w.state() == s);
    CHECK(w.host.worker->connections() == 1);
  }
  World w;
  w.enter(State::time_wait);
  CHECK(w.state() == State::closed);
  CHECK(w.host.worker->time_waits() == 1);
}

TEST_CASE("rfc5961 3.2: a RST exactly at RCV.NXT ends every synchronized state", "[states]") {
  for (State s : kSynchronized) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    w.peer.say({.flags = kRst, .seq = w.peer.snd});
    CHECK(w.state() == State::closed);
    CHECK(w.peer.silent());
    CHECK(w.socket->error == (s == State::close_wait ? Errc::broken_pipe : Errc::connection_reset));
    w.socket->close();
    CHECK(w.host.worker->connections() == 0);
    CHECK(w.host.leaked_packets() == 0);
  }
}

TEST_CASE("rfc5961 3.2: a RST elsewhere in the window draws a challenge ACK and changes nothing",
          "[states]") {
  for (State s : kSynchronized) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    w.peer.say({.flags = kRst, .seq = w.peer.snd + 1000});
    CHECK(w.state() == s);
    const Seg challenge = w.peer.hear();
    CHECK(challenge.is(kAck));
    CHECK(challenge.ack == w.peer.snd);
  }
}

TEST_CASE("rfc5961 3.2: a RST with the sequence number of the peer's FIN ends the connection", "[states]") {
  for (State s : {State::close_wait, State::closing, State::last_ack}) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    w.peer.say({.flags = kRst, .seq = w.peer.snd - 1});
    CHECK(w.state() == State::closed);
    CHECK(w.peer.silent());
    CHECK(w.socket->error == (s == State::close_wait ? Errc::broken_pipe : Errc::connection_reset));
  }
}

TEST_CASE("rfc5961 3.2: a RST outside the window is dropped in silence", "[states]") {
  for (State s : kSynchronized)
    for (std::uint32_t off : {kFar, std::uint32_t(-1), std::uint32_t(-1000)}) {
      const bool fin = s == State::close_wait || s == State::closing || s == State::last_ack;
      if (fin && off == std::uint32_t(-1)) continue;
      World w;
      w.enter(s);
      CAPTURE(name(s), off);
      w.peer.say({.flags = kRst, .seq = w.peer.snd + off});
      CHECK(w.state() == s);
      CHECK(w.peer.silent());
    }
}

TEST_CASE("rfc5961 4.2: a SYN in a synchronized state draws a challenge ACK wherever it lies", "[states]") {
  for (State s : kSynchronized)
    for (std::uint32_t off : {0U, 1000U, kFar, std::uint32_t(-1)}) {
      World w;
      w.enter(s);
      CAPTURE(name(s), off);
      w.peer.say({.flags = kSyn, .seq = w.peer.snd + off});
      CHECK(w.state() == s);
      const Seg challenge = w.peer.hear();
      CHECK(challenge.is(kAck));
      CHECK(challenge.ack == w.peer.snd);
      CHECK(w.peer.silent());
    }
}

TEST_CASE("rfc5961 7: challenge ACKs are limited", "[states]") {
  Sim sim(3);
  Host& host = sim.add_host([](Options& o) {
    o.tcp.challenge_ack_limit = 100;
    o.tcp.invalid_ratelimit = Duration::zero();
  });
  RawPeer peer{sim, host, 4000, 80};
  host.listen(80);
  peer.handshake();
  sim.run_for(seconds(1) - (sim.now.time_since_epoch() % seconds(1)) + milliseconds(1));
  peer.forget();
  for (int i = 0; i < 400; ++i) peer.send({.flags = kSyn, .seq = peer.snd});
  sim.run_for(milliseconds(10));
  CHECK(peer.waiting() >= 50);
  CHECK(peer.waiting() <= 150);
  CHECK(host.count(Counter::challenge_acks_limited) >= 250);
  sim.run_for(seconds(1));
  peer.forget();
  peer.say({.flags = kSyn, .seq = peer.snd});
  CHECK(peer.waiting() == 1);
}

TEST_CASE("rfc5961 7: one connection does not use up the challenge ACKs of the others", "[states]") {
  Sim sim(3);
  Host& host = sim.add_host([](Options& o) { o.tcp.challenge_ack_limit = 100; });
  RawPeer loud{sim, host, 4000, 80}, other{sim, host, 4000, 80};
  host.listen(80);
  loud.handshake();
  other.handshake();
  sim.run_for(seconds(1) - (sim.now.time_since_epoch() % seconds(1)) + milliseconds(1));
  loud.forget();
  other.forget();
  // In the window, a SYN, beyond what was sent, out of the window: all draw on the same.
  for (int i = 0; i < 400; ++i) {
    loud.send({.flags = kRst, .seq = loud.snd + 1000});
    loud.send({.flags = kSyn, .seq = loud.snd});
    loud.send({.flags = kAck, .seq = loud.snd, .ack = loud.rcv + 100'000});
    loud.send({.flags = kAck, .seq = loud.snd - 100'000, .ack = loud.rcv});
  }
  sim.run_for(milliseconds(10));
  CHECK(loud.waiting() == 1);
  other.say({.flags = kSyn, .seq = other.snd});
  CHECK(other.waiting() == 1);
  sim.run_for(milliseconds(500));
  loud.say({.flags = kSyn, .seq = loud.snd});
  CHECK(loud.waiting() == 2);
}

TEST_CASE("rfc5961 5.2: an ACK of what lies before our first byte is dropped with its data", "[states]") {
  for (const std::uint32_t off : {1U, 2U, 1000U, 65535U, 100'000U, kFar}) {
    CAPTURE(off);
    World w;
    w.enter(State::established);
    w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv - off, .data = "forged"});
    CHECK(w.host.worker->readable_bytes(*w.socket->connection) == 0);
    CHECK(w.peer.hear().ack == w.peer.snd);
  }
  // One that was right once is merely old.
  World w;
  w.enter(State::established);
  w.socket->send(1000);
  w.sim.run_for(milliseconds(2));
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv + 1000});
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv, .data = "late"});
  CHECK(w.host.worker->readable_bytes(*w.socket->connection) == 4);
}

TEST_CASE("rfc9293 3.10.7.4: an ACK of something never sent draws an ACK and is dropped", "[states]") {
  for (State s : kSynchronized) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv + 100000});
    CHECK(w.state() == s);
    CHECK(w.peer.hear().is(kAck));
  }
}

TEST_CASE("rfc9293 3.10.7.4: a FIN outside the window changes nothing", "[states]") {
  for (State s : {State::established, State::fin_wait_1, State::fin_wait_2}) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    w.peer.say({.flags = kFin | kAck, .seq = w.peer.snd + kFar, .ack = w.peer.rcv});
    CHECK(w.state() == s);
    CHECK(w.peer.hear().is(kAck));
  }
}

TEST_CASE("rfc9293 3.6: a FIN in order moves each state on, and is acknowledged", "[states]") {
  const std::map<State, State> next{
      {State::established, State::close_wait}, {State::fin_wait_1, State::closing},
      {State::fin_wait_2, State::closed},  // a TIME-WAIT entry, really
      {State::close_wait, State::close_wait},  {State::closing, State::closing},
      {State::last_ack, State::last_ack}};
  for (auto [from, to] : next) {
    World w;
    w.enter(from);
    CAPTURE(name(from));
    const bool again = from == State::close_wait || from == State::closing || from == State::last_ack;
    const std::uint32_t seq = again ? w.peer.snd - 1 : w.peer.snd;
    // In FIN-WAIT-1 and beyond: not acknowledging the host's FIN.
    w.peer.say({.flags = kFin | kAck, .seq = seq, .ack = w.peer.rcv});
    CHECK(w.state() == to);
    Seg answer = w.peer.hear();
    CHECK((answer.flags & kAck) != 0);
    CHECK(answer.ack == seq + 1);
    CHECK(w.host.worker->time_waits() == (from == State::fin_wait_2 ? 1 : 0));
  }
}

TEST_CASE("rfc9293 3.6: the ACK of our FIN moves FIN-WAIT-1, CLOSING and LAST-ACK on", "[states]") {
  for (auto [from, to] : std::map<State, State>{{State::fin_wait_1, State::fin_wait_2},
                                                {State::closing, State::closed},
                                                {State::last_ack, State::closed}}) {
    World w;
    w.enter(from);
    CAPTURE(name(from));
    w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv + 1});
    CHECK(w.state() == to);
    CHECK(w.host.worker->time_waits() == (from == State::closing ? 1 : 0));
    w.socket->close();
    w.sim.run_for(seconds(130));
    CHECK(w.host.worker->connections() == 0);
    CHECK(w.host.worker->time_waits() == 0);
  }
}

// --- closing

TEST_CASE("rfc2525 2.17: close with unread data resets", "[states]") {
  World w;
  w.enter(State::established);
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv, .data = "unread"});
  w.peer.forget();
  w.socket->close();
  w.sim.run_for(milliseconds(2));
  const Seg reset = w.peer.hear();
  CHECK(reset.is(kRst | kAck));
  CHECK(reset.seq == w.peer.rcv);
  CHECK(w.host.worker->connections() == 0);
}

TEST_CASE("SO_LINGER with time zero resets instead of closing", "[states]") {
  World w;
  w.enter(State::established);
  SocketOptions o;
  o.linger = true;
  w.host.worker->set_options(*w.socket->connection, o, w.sim.now);
  w.socket->close();
  w.sim.run_for(milliseconds(2));
  CHECK(w.peer.hear().is(kRst | kAck));
  CHECK(w.host.worker->connections() == 0);
}

TEST_CASE("rfc1122 4.2.2.13: data for an application that has closed is answered with RST", "[states]") {
  World w;
  w.enter(State::established);
  w.socket->close();
  w.sim.run_for(milliseconds(2));
  w.peer.forget();
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv, .data = "too late"});
  const Seg reset = w.peer.hear();
  CHECK(reset.is(kRst));
  CHECK(reset.seq == w.peer.rcv);  // rfc9293 3.5.2: what it acknowledges
  CHECK(w.host.worker->connections() == 0);
  CHECK(w.host.count(Counter::data_after_close) == 1);
}

TEST_CASE("FIN-WAIT-2 of a closed socket ends after tcp_fin_timeout; an open one is kept", "[states]") {
  World w;
  w.enter(State::fin_wait_2);
  w.sim.run_for(seconds(300));
  CHECK(w.state() == State::fin_wait_2);
  w.socket->close();
  w.sim.run_for(seconds(59));
  CHECK(w.host.worker->connections() == 1);
  w.sim.run_for(seconds(2));
  CHECK(w.host.worker->connections() == 0);
  CHECK(w.host.count(Counter::orphans_killed) == 1);
}

TEST_CASE("a FIN that nobody acknowledges is given up after tcp_orphan_retries", "[states]") {
  World w;
  w.enter(State::established);
  w.socket->close();
  w.sim.run_for(seconds(400));
  CHECK(w.host.worker->connections() == 0);
  CHECK(w.peer.waiting() >= 8);
  CHECK(w.host.leaked_packets() == 0);
}

TEST_CASE("orphans are bounded: past that a close resets", "[states]") {
  Sim sim(5);
  Host& server = sim.add_host([](Options& o) { o.tcp.max_connections = 4096; });
  Host& client = sim.add_host([](Options& o) { o.tcp.max_connections = 8192; });
  server.listen(80, {.backlog = 5000});
  for (int i = 0; i < 30; ++i) {
    for (int j = 0; j < 50; ++j) client.connect(server, 80);
    sim.run_for(milliseconds(5));
  }
  sim.run_for(seconds(5));
  REQUIRE(server.accepted.size() == 1500);
  sim.wire.options.loss = 1;  // nothing is acknowledged any more
  for (Socket* s : server.accepted) s->close();
  CHECK(server.worker->connections() == 1024);  // at least 1,024 and a quarter of all slots
  CHECK(server.count(Counter::orphans_killed) == 476);
}

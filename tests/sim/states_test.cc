// Every state of a connection against every kind of control segment, inside the window and outside (RFC
// 9293 3.10.7, RFC 5961), and how connections open and close when both sides or neither do it by the book.
#include <catch2/catch.hpp>

#include "tests/sim/raw_peer.hh"

using namespace mtcp::sim;

namespace {

constexpr std::uint32_t kFar = 0x40000000;

// A host with a listener on port 80 and a hand-written peer.
struct World {
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

const std::vector<State> kSynchronized{State::established, State::fin_wait_1, State::fin_wait_2,
                                       State::closing,     State::close_wait, State::last_ack};

}  // namespace

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
    const Errc expected = s == State::close_wait                        ? Errc::broken_pipe
                          : s == State::closing || s == State::last_ack ? Errc::ok
                                                                        : Errc::connection_reset;
    CHECK(w.socket->error == expected);
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

TEST_CASE("rfc5961 3.2: a RST outside the window is dropped in silence", "[states]") {
  for (State s : kSynchronized)
    for (std::uint32_t off : {kFar, std::uint32_t(-1), std::uint32_t(-1000)}) {
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
  Host& host = sim.add_host([](Options& o) { o.tcp.challenge_ack_limit = 100; });
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

// --- SYN-SENT

TEST_CASE("rfc9293 3.10.7.3: in SYN-SENT an unacceptable ACK is answered with RST, or ignored with one",
          "[states]") {
  World w;
  w.enter(State::syn_sent);
  w.peer.say({.flags = kSyn | kAck, .seq = 5, .ack = w.peer.rcv + 1});
  const Seg reset = w.peer.hear();
  CHECK(reset.is(kRst));
  CHECK(reset.seq == w.peer.rcv + 1);
  w.peer.say({.flags = kRst | kAck, .seq = 5, .ack = w.peer.rcv + 1});
  w.peer.say({.flags = kRst, .seq = 5});
  w.peer.say({.flags = kAck, .seq = 5, .ack = w.peer.rcv});
  CHECK(w.peer.silent());
  CHECK(w.state() == State::syn_sent);
}

TEST_CASE("rfc9293 3.10.7.3: a RST that acknowledges our SYN refuses the connection", "[states]") {
  World w;
  w.enter(State::syn_sent);
  w.peer.say({.flags = kRst | kAck, .seq = 0, .ack = w.peer.rcv});
  CHECK(w.socket->error == Errc::connection_refused);
  CHECK(w.host.count(Counter::connect_failures) == 1);
}

TEST_CASE("rfc9293 3.10.7.3: data that comes with the SYN-ACK is not lost", "[states]") {
  World w;
  w.enter(State::syn_sent);
  w.socket->reading = false;
  w.peer.say({.flags = kSyn | kAck, .seq = 500, .ack = w.peer.rcv, .data = "hello"});
  CHECK(w.state() == State::established);
  CHECK(w.host.worker->readable_bytes(*w.socket->connection) == 5);
  const Seg ack = w.peer.hear();
  CHECK(ack.is(kAck));
  CHECK(ack.ack == 506);
}

TEST_CASE("SYNs are sent again with doubling intervals, and then the connect times out", "[states]") {
  Sim sim(1);
  Host& host = sim.add_host([](Options& o) { o.tcp.syn_retries = 3; });
  RawPeer peer{sim, host, 80, 0};
  Socket* s = host.try_connect({peer.address, 80});
  REQUIRE(s != nullptr);
  sim.run_for(milliseconds(14900));
  CHECK(peer.waiting() == 4);
  CHECK(s->error == Errc::ok);
  sim.run_for(milliseconds(200));
  CHECK(s->error == Errc::timed_out);
  CHECK(host.worker->connections() == 0);
}

TEST_CASE("a neighbour that does not answer ARP makes a connect fail with host unreachable", "[states]") {
  Sim sim(1);
  Host& host = sim.add_host();
  Socket* s = host.try_connect({IpAddress::v4(10, 0, 0, 77), 80});
  REQUIRE(s != nullptr);
  sim.run_for(seconds(10));
  CHECK(s->error == Errc::host_unreachable);
  CHECK(host.worker->connections() == 0);
}

// --- ICMP

TEST_CASE("rfc5927: ICMP unreachable ends a connect at once, but only if it quotes our SYN", "[states]") {
  World w;
  w.enter(State::syn_sent);
  w.peer.send_unreachable(1, w.peer.rcv + 5000);
  CHECK(w.state() == State::syn_sent);
  CHECK(w.host.count(Counter::icmp_out_of_window) == 1);
  w.peer.send_unreachable(1, w.peer.rcv - 1);
  CHECK(w.socket->error == Errc::host_unreachable);
}

TEST_CASE("rfc5927 5.2: ICMP unreachable does not end an established connection", "[states]") {
  World w;
  w.enter(State::established);
  w.socket->send(10);
  w.sim.run_for(milliseconds(2));
  w.peer.send_unreachable(3, w.peer.rcv);
  CHECK(w.state() == State::established);
  CHECK(w.socket->connection->soft_error == Errc::connection_refused);
  CHECK(w.socket->error == Errc::ok);
}

// --- simultaneous open and close

TEST_CASE("rfc9293 3.5: both sides open at once", "[states]") {
  World w;
  w.enter(State::syn_received);
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv});
  CHECK(w.state() == State::established);
  CHECK(w.socket->connected);
  w.socket->send(3);
  w.sim.run_for(milliseconds(2));
  CHECK(w.peer.hear().data.size() == 3);
}

TEST_CASE("rfc9293 3.10.4: a close in SYN-RECEIVED sends the FIN when the SYN has been acknowledged",
          "[states]") {
  World w;
  w.enter(State::syn_received);
  w.socket->close();
  w.sim.run_for(milliseconds(2));
  CHECK(w.peer.silent());
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv});
  CHECK((w.peer.hear().flags & kFin) != 0);
  w.peer.say({.flags = kFin | kAck, .seq = w.peer.snd, .ack = w.peer.rcv + 1});
  CHECK(w.host.worker->connections() == 0);
  CHECK(w.host.worker->time_waits() == 1);
}

TEST_CASE("rfc9293 3.5: two stacks that open to each other at once get one connection", "[states]") {
  Sim sim(11);
  Host& a = sim.add_host();
  Host& b = sim.add_host();
  Socket& warm = a.connect(b, 9);
  sim.run_for(milliseconds(2));
  CHECK(warm.error == Errc::connection_refused);
  Socket& x = a.connect(b, 2000, {}, 1000);
  Socket& y = b.connect(a, 1000, {}, 2000);
  x.send(50'000);
  y.send(60'000);
  x.shutdown_when_sent = y.shutdown_when_sent = true;
  x.close_on_eof = y.close_on_eof = true;
  sim.run_for(seconds(2));
  CHECK(x.received == 60'000);
  CHECK(y.received == 50'000);
  CHECK(x.wrong + y.wrong == 0);
  CHECK(a.worker->connections() + b.worker->connections() == 0);
}

TEST_CASE("rfc9293 3.6: two stacks that close at once both end in TIME-WAIT", "[states]") {
  Sim sim(12);
  Host& a = sim.add_host();
  Host& b = sim.add_host();
  b.listen(80);
  Socket& x = a.connect(b, 80);
  sim.run_for(milliseconds(5));
  REQUIRE(b.accepted.size() == 1);
  x.close();
  b.accepted[0]->close();
  sim.run_for(milliseconds(500));
  CHECK(a.worker->connections() == 0);
  CHECK(b.worker->connections() == 0);
  CHECK(a.worker->time_waits() == 1);
  CHECK(b.worker->time_waits() == 1);
  sim.run_for(seconds(61));
  CHECK(a.worker->time_waits() + b.worker->time_waits() == 0);
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
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv + 1, .data = "too late"});
  CHECK((w.peer.hear().flags & kRst) != 0);
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

// SYN-SENT, simultaneous open and close, and what ICMP does to them (RFC 9293 3.10.7.3 and 3.5, RFC 5927).
#include <catch2/catch.hpp>

#include "tests/sim/states_world.hh"

using namespace mtcp::sim;
using World = StatesWorld;

// --- SYN-SENT

TEST_CASE("rfc9293 3.10.7.3: in SYN-SENT an unacceptable ACK is answered with RST, or ignored with one",
          "[states]") {
  World w;
  w.enter(State::syn_sent);
  w.peer.say({.flags = kSyn | kAck, .seq = 5, .ack = w.peer.rcv + 1});
  const Seg reset = w.peer.hear();
  CHECK(reset.is(kRst));
  CHECK(reset.seq == w.peer.rcv + 1);
  // What it belonged to is gone now: the SYN comes again at once, but only the first time.
  w.sim.run_for(milliseconds(3));
  CHECK(w.peer.hear().is(kSyn));
  w.peer.say({.flags = kSyn | kAck, .seq = 5, .ack = w.peer.rcv + 1});
  CHECK(w.peer.hear().is(kRst));
  w.sim.run_for(milliseconds(900));
  CHECK(w.peer.silent());
  w.peer.say({.flags = kRst | kAck, .seq = 5, .ack = w.peer.rcv + 1});
  w.peer.say({.flags = kRst, .seq = 5});
  w.peer.say({.flags = kAck, .seq = 5, .ack = w.peer.rcv});
  CHECK(w.peer.silent());
  CHECK(w.state() == State::syn_sent);
}

TEST_CASE("rfc7323 5.2: a SYN-ACK that echoes none of our timestamps belongs to an earlier connection", "[states]") {
  for (const std::int32_t off : {-1, 1000, -100'000}) {
    CAPTURE(off);
    Sim sim(3);
    Host& host = sim.add_host();
    RawPeer peer{sim, host, 80, 0};
    Socket* s = host.try_connect({peer.address, 80});
    REQUIRE(s != nullptr);
    sim.run_for(milliseconds(2));
    const Seg syn = peer.hear();
    REQUIRE(syn.timestamps);
    peer.remote_port = syn.from_port;
    const Seg answer{.flags = kSyn | kAck, .seq = 500, .ack = syn.seq + 1, .mss = 1460, .timestamps = true, .ts_val = 77,
                     .ts_ecr = syn.ts_val + static_cast<std::uint32_t>(off)};
    peer.say(answer);
    CHECK(peer.hear().is(kRst));
    CHECK(s->connection->hot.state == State::syn_sent);
    Seg good = answer;
    good.ts_ecr = syn.ts_val;
    peer.say(good);
    CHECK(s->connection->hot.state == State::established);
  }
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

TEST_CASE("the first SYNs are a second apart, then the interval doubles, as in Linux", "[states]") {
  Sim sim(1);
  Host& host = sim.add_host([](Options& o) { o.tcp.syn_retries = 2; });
  RawPeer peer{sim, host, 80, 0};
  Socket* s = host.try_connect({peer.address, 80});
  REQUIRE(s != nullptr);
  std::vector<long> seconds_of_syns{0};
  const Time start = sim.now;
  sim.wire.tap = [&](const FrameInfo& f) {
    if (is_syn(f) && f.retransmission) seconds_of_syns.push_back((sim.now - start + milliseconds(50)) / seconds(1));
  };
  sim.run_for(milliseconds(10'900));
  CHECK(s->error == Errc::ok);
  sim.run_for(milliseconds(200));
  CHECK(s->error == Errc::timed_out);
  CHECK(seconds_of_syns == std::vector<long>{0, 1, 2, 3, 4, 5, 7});
}

TEST_CASE("SYNs are sent again with doubling intervals, and then the connect times out", "[states]") {
  Sim sim(1);
  Host& host = sim.add_host([](Options& o) {
    o.tcp.syn_retries = 3;
    o.tcp.syn_linear_timeouts = 0;
  });
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
  // As Linux: SO_ERROR tells of it, once.
  CHECK(w.host.worker->take_error(*w.socket->connection) == Errc::connection_refused);
  CHECK(w.host.worker->take_error(*w.socket->connection) == Errc::ok);
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

TEST_CASE("rfc9293 3.5: both sides open at once, and the other one's answer is a SYN-ACK", "[states]") {
  World w;
  w.enter(State::syn_received);
  w.peer.say({.flags = kSyn | kAck, .seq = w.peer.snd - 1, .ack = w.peer.rcv, .mss = 1460});
  CHECK(w.state() == State::established);
  CHECK(w.socket->connected);
  CHECK(w.peer.hear().is(kAck));
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

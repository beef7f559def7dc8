// Explicit Congestion Notification (RFC 3168), both roles.
#include <catch2/catch.hpp>

#include "tests/sim/ecn_world.hh"
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;

namespace {

std::function<void(Options&)> ecn(std::uint32_t value) {
  return [value](Options& o) { o.tcp.ecn = value; };
}

struct Passive : EcnWorld {
  void data(std::uint8_t tos, std::uint8_t flags = kAck) {
    peer.say({.flags = flags, .seq = snd, .ack = rcv, .data = std::string(1000, 'x'), .tos = tos});
    snd += 1000;
    sim.run_for(milliseconds(250));
  }
  Seg last() {
    const auto all = peer.hear_all();
    return all.empty() ? Seg{} : all.back();
  }
};

// A connect's SYN.
struct Active {
  explicit Active(std::uint32_t value) : host(sim.add_host(ecn(value))) {
    s = host.try_connect({peer.address, 80});
    REQUIRE(s != nullptr);
    sim.run_for(milliseconds(2));
    syn = peer.hear();
    peer.remote_port = syn.from_port;
  }
  [[nodiscard]] bool agreed() const { return s->connection->hot.ecn; }
  Sim sim{24};
  Host& host;
  RawPeer peer{sim, host, 80, 0};
  Socket* s = nullptr;
  Seg syn;
};

}  // namespace

TEST_CASE("rfc3168 6.1.1: a SYN that asks for ECN is answered with ECE alone, unless it is off", "[ecn]") {
  for (const std::uint32_t value : {0U, 1U, 2U}) {
    CAPTURE(value);
    PassiveWorld w(ecn(value));
    w.peer.say({.flags = kSyn | kAsks, .seq = 1, .mss = 1460, .from_port = 5000});
    CHECK(w.peer.hear().is(value != 0 ? kSyn | kAck | kEce : kSyn | kAck));
    w.peer.say({.flags = kSyn | kEce, .seq = 1, .mss = 1460, .from_port = 5001});
    CHECK(w.peer.hear().is(kSyn | kAck));
    w.peer.say({.flags = kSyn | kAsks, .seq = 1, .mss = 1460, .from_port = 5002, .tos = kEct0});
    CHECK(w.peer.hear().is(kSyn | kAck));
  }
}

TEST_CASE("rfc3168 6.1.1: only with ecn = 1 does a SYN ask; only ECE without CWR agrees", "[ecn]") {
  CHECK(Active(2).syn.is(kSyn));
  for (const unsigned flags : {unsigned{kEce}, kAsks, 0U}) {
    CAPTURE(flags);
    Active w(1);
    CHECK(w.syn.is(kSyn | kAsks));
    CHECK(w.syn.tos == 0);
    w.peer.say({.flags = static_cast<std::uint8_t>(kSyn | kAck | flags), .seq = 5, .ack = w.syn.seq + 1, .mss = 1000});
    CHECK(w.agreed() == (flags == kEce));
  }
}

TEST_CASE("rfc3168 6.1.1.1: a SYN that is lost goes again without", "[ecn]") {
  Active w(1);
  w.sim.run_for(milliseconds(1100));
  CHECK(w.peer.hear().is(kSyn));
  w.peer.say({.flags = kSyn | kAck, .seq = 5, .ack = w.syn.seq + 1, .mss = 1000});
  CHECK_FALSE(w.agreed());
}

TEST_CASE("rfc3168 6.1.3: after a mark all ACKs carry ECE, until CWR comes", "[ecn]") {
  Passive w;
  REQUIRE(w.answer.is(kSyn | kAck | kEce));
  w.data(kEct0);
  CHECK(w.last().is(kAck));
  w.data(kCe);
  CHECK(w.last().is(kAck | kEce));
  w.data(kEct0);
  CHECK(w.last().is(kAck | kEce));
  w.data(kEct0, kAck | kCwr);
  CHECK(w.last().is(kAck));
  w.data(kCe, kAck | kCwr);  // and marked itself
  CHECK(w.last().is(kAck | kEce));
  const auto info = w.host.worker->info(*w.c);
  CHECK(info.ecn_seen);
  CHECK(info.marked_received == 2);
}

TEST_CASE("rfc3168: without agreement marks and echoes mean nothing", "[ecn]") {
  PassiveWorld w;
  w.peer.handshake();
  w.peer.say({.flags = kAck | kEce, .seq = w.peer.snd, .ack = w.peer.rcv, .data = "x", .tos = kCe});
  w.sim.run_for(milliseconds(250));
  CHECK(w.peer.hear().is(kAck));
  CHECK(w.host.count(Counter::ecn_reductions) == 0);
}

TEST_CASE("rfc3168 6.1.2: ECE halves nothing but once a window, CWR goes with new data, once; nothing is sent again", "[ecn]") {
  Passive w;
  w.write(10'000);
  auto all = w.peer.hear_all();
  REQUIRE(all.size() == 10);
  for (const Seg& s : all) CHECK(s.tos == kEct0);
  const std::uint32_t before = w.host.worker->info(*w.c).cwnd;
  w.peer.say({.flags = kAck | kEce, .seq = w.snd, .ack = w.rcv + 1000});
  CHECK(w.host.worker->info(*w.c).phase == Phase::cwr);
  w.peer.say({.flags = kAck | kEce, .seq = w.snd, .ack = w.rcv + 2000});
  w.peer.say({.flags = kAck | kEce, .seq = w.snd, .ack = w.rcv + 10'000});
  w.write(3'000);
  all = w.peer.hear_all();
  REQUIRE(all.size() == 3);
  CHECK((all[0].flags & kCwr) != 0);
  CHECK((all[1].flags & kCwr) == 0);
  CHECK((all[2].flags & kCwr) == 0);
  CHECK(w.host.count(Counter::ecn_reductions) == 1);
  CHECK(w.host.count(Counter::retransmitted_segments) == 0);
  const auto info = w.host.worker->info(*w.c);
  CHECK(info.ssthresh < before);
  CHECK(info.ssthresh >= before / 2);
  CHECK(info.marked_delivered == 10);
}

TEST_CASE("rfc3168 6.1.4, 6.1.5: neither pure ACKs nor what is sent again is ECN-capable", "[ecn]") {
  Passive w;
  w.data(kEct0);
  const Seg ack = w.last();
  CHECK(ack.data.empty());
  CHECK(ack.tos == 0);
  w.write(500);
  CHECK(w.last().tos == kEct0);
  w.sim.run_for(milliseconds(1500));
  const Seg again = w.last();
  CHECK(again.data.size() == 500);
  CHECK(again.tos == 0);
}

TEST_CASE("rfc3168: IP_TOS leaves the bits of ECN alone", "[ecn]") {
  Passive w;
  SocketOptions o = w.c->options;
  o.tos = 0xb8;
  w.host.worker->set_options(*w.c, o, w.host.clock());
  w.write(100);
  CHECK(w.last().tos == (0xb8 | kEct0));
}

TEST_CASE("rfc3168: SYN cookies remember ECN", "[ecn]") {
  PassiveWorld w({}, {.backlog = 1});
  w.host.accepting = false;
  (void)w.knock(4001);
  w.peer.say({.flags = kSyn | kAsks, .seq = 10, .mss = 1460, .timestamps = true, .ts_val = 5, .from_port = 4002});
  const Seg a = w.peer.hear();
  REQUIRE(w.host.count(Counter::syn_cookies_sent) == 1);
  CHECK(a.is(kSyn | kAck | kEce));
  w.peer.say({.flags = kAck, .seq = 11, .ack = a.seq + 1, .timestamps = true, .ts_val = 6, .ts_ecr = a.ts_val, .from_port = 4002});
  Connection* c = w.host.worker->accept(w.listener);
  REQUIRE(c != nullptr);
  CHECK(c->hot.ecn);
}

TEST_CASE("rfc3168: a connection that is handed over to another stack has ECN there, too", "[ecn]") {
  SharedWorld w;
  w.client.options.tcp.ecn = 1;
  Host& old = w.process();
  Host& next = w.process();
  old.accepting = false;
  const auto sockets = w.connect_to(old, 3, 700);
  w.sim.run_for(milliseconds(300));
  old.leave(*old.listeners.front());
  w.sim.run_for(milliseconds(300));
  REQUIRE(next.accepted.size() == 3);
  for (const Socket* s : next.accepted) {
    CHECK(s->connection->hot.ecn);
    CHECK(s->host.worker->info(*s->connection).ecn_seen);
  }
  for (const Socket* s : sockets) CHECK(s->connection->hot.ecn);
  old.exit();
  next.exit();
}

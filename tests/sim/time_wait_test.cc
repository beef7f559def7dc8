// TIME-WAIT: what happens after there was a connection.
#include <catch2/catch.hpp>

#include "tests/sim/passive_world.hh"
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;
using World = PassiveWorld;

namespace {

// The host has closed first: its end is in TIME-WAIT, the peer's snd and rcv point behind the FINs.
struct Waiting : World {
  explicit Waiting(bool timestamps, const std::function<void(Options&)>& tune = {}) : World(tune) {
    const Seg a = knock(4000, 1000, timestamps);
    peer.snd = 1001;
    peer.rcv = a.seq + 1;
    base = Seg{.flags = kAck, .timestamps = timestamps, .ts_val = 12345, .ts_ecr = a.ts_val};
    speak(kAck);
    host.accepted.at(0)->close();
    sim.run_for(milliseconds(2));
    peer.forget();
    ++peer.rcv;
    speak(kFin | kAck);
    ++peer.snd;
    REQUIRE(peer.hear().ack == peer.snd);
    REQUIRE(host.worker->time_waits() == 1);
    REQUIRE(host.worker->connections() == 0);
  }
  void speak(std::uint8_t flags, std::uint32_t seq_offset = 0) {
    Seg s = base;
    s.flags = flags;
    s.seq = peer.snd + seq_offset;
    s.ack = (flags & kAck) != 0 ? peer.rcv : 0;
    peer.say(s);
  }
  Seg base;
};

}  // namespace

TEST_CASE("rfc9293 3.10.7.4: TIME-WAIT acknowledges the FIN again and starts anew", "[time_wait]") {
  Waiting w(false);
  w.sim.run_for(seconds(50));
  --w.peer.snd;
  w.speak(kFin | kAck);
  CHECK(w.peer.hear().ack == w.peer.snd + 1);
  w.sim.run_for(seconds(50));
  CHECK(w.host.worker->time_waits() == 1);
  w.sim.run_for(seconds(11));
  CHECK(w.host.worker->time_waits() == 0);
}

TEST_CASE("rfc1337: a RST ends TIME-WAIT only if that is allowed, and only where it is expected", "[time_wait]") {
  for (const bool rfc1337 : {false, true})
    for (const std::uint32_t off : {0U, 1U, std::uint32_t(-1), 5000U}) {
      CAPTURE(rfc1337, off);
      Waiting w(false, [&](Options& o) { o.tcp.rfc1337 = rfc1337; });
      w.speak(kRst, off);
      CHECK(w.peer.silent());
      CHECK(w.host.worker->time_waits() == (rfc1337 || off != 0 ? 1 : 0));
      CHECK(w.host.count(Counter::time_wait_resets) == 1);
    }
}

TEST_CASE("rfc7323 5.3: a RST that is older than TIME-WAIT does not end it", "[time_wait]") {
  Waiting w(true);
  w.base.ts_val = 12344;
  w.speak(kRst);
  CHECK(w.host.worker->time_waits() == 1);
}

TEST_CASE("rfc5961 7: a TIME-WAIT answers what is out of place twice a second at most, but a FIN each time",
          "[time_wait]") {
  Waiting w(false);
  for (int i = 0; i < 20; ++i) w.speak(kAck, 5000);
  for (int i = 0; i < 20; ++i) w.speak(kSyn, std::uint32_t(-500));
  CHECK(w.peer.waiting() == 1);
  w.sim.run_for(milliseconds(800));
  w.speak(kSyn, std::uint32_t(-500));
  CHECK(w.peer.waiting() == 2);
  w.peer.forget();
  --w.peer.snd;
  for (int i = 0; i < 5; ++i) w.speak(kFin | kAck);
  CHECK(w.peer.waiting() == 5);
}

TEST_CASE("TIME-WAIT is silent about the last ACK and answers what is out of place", "[time_wait]") {
  Waiting w(false);
  w.speak(kAck);
  CHECK(w.peer.silent());
  w.speak(kAck, 5000);
  CHECK(w.peer.hear().is(kAck));
}

TEST_CASE("rfc9293 3.10.7.4: a SYN beyond the old sequence numbers opens anew from TIME-WAIT",
          "[time_wait]") {
  Waiting w(false);
  w.speak(kSyn, 100);
  const Seg a = w.peer.hear();
  CHECK(a.is(kSyn | kAck));
  CHECK(a.seq - w.peer.rcv == 65535 + 2);
  CHECK(w.host.worker->time_waits() == 0);
  CHECK(w.host.count(Counter::time_wait_recycled) == 1);
}

TEST_CASE("an old duplicate SYN does not disturb TIME-WAIT", "[time_wait]") {
  Waiting w(false);
  w.speak(kSyn, std::uint32_t(-500));
  const Seg a = w.peer.hear();
  CHECK(a.is(kAck));
  CHECK(a.ack == w.peer.snd);
  CHECK(w.host.worker->time_waits() == 1);
}

TEST_CASE("rfc6191: a newer timestamp opens anew whatever the sequence number, an older one does not",
          "[time_wait]") {
  Waiting w(true);
  w.base.ts_val = 12344;
  w.speak(kSyn, 1000);
  CHECK(w.peer.hear().is(kAck));
  CHECK(w.host.count(Counter::paws_rejected) == 1);
  w.sim.run_for(seconds(1));
  w.base.ts_val = 12345;
  w.speak(kSyn, std::uint32_t(-500));
  CHECK(w.peer.hear().is(kAck));
  w.base.ts_val = 12346;
  w.speak(kSyn, std::uint32_t(-500));
  CHECK(w.peer.hear().is(kSyn | kAck));
  CHECK(w.host.worker->time_waits() == 0);
}

TEST_CASE("TIME-WAITs are bounded: the oldest makes room", "[time_wait]") {
  Sim sim(9);
  Host& server = sim.add_host();
  Host& client = sim.add_host([](Options& o) { o.tcp.max_tw_buckets = 100; });
  server.on_accept = [](Socket& s) { s.close_on_eof = true; };
  server.listen(80);
  for (int i = 0; i < 150; ++i) {
    client.connect(server, 80).close_when_sent = true;
    sim.run_for(milliseconds(2));
  }
  sim.run_for(milliseconds(500));
  CHECK(client.worker->connections() == 0);
  CHECK(client.worker->time_waits() == 100);
  CHECK(client.count(Counter::time_wait_overflow) == 50);
}

TEST_CASE("rfc6191: with tcp_tw_reuse a small range of ports serves for ever, without it it runs out",
          "[time_wait]") {
  for (const bool reuse : {true, false}) {
    Sim sim(10);
    Host& server = sim.add_host();
    Host& client = sim.add_host([&](Options& o) {
      o.tcp.ip_local_port_first = 40000;
      o.tcp.ip_local_port_last = 40019;
      o.tcp.tw_reuse = reuse;
    });
    server.on_accept = [](Socket& s) { s.close_on_eof = true; };
    server.listen(80);
    int refused = 0, good = 0;
    for (int i = 0; i < 200; ++i) {
      Socket* s = client.try_connect({server.address, 80});
      if (s == nullptr) {
        CHECK(client.connect_error == Errc::address_unavailable);
        ++refused;
        continue;
      }
      s->send(100);
      s->shutdown_when_sent = s->close_on_eof = true;
      sim.run_for(milliseconds(3));
      good += s->connection == nullptr && s->error == Errc::ok && s->eof ? 1 : 0;
    }
    CAPTURE(reuse);
    CHECK(good == (reuse ? 200 : 20));
    CHECK(refused == (reuse ? 0 : 180));
    CHECK(client.count(Counter::time_wait_recycled) == (reuse ? 180 : 0));
  }
}

TEST_CASE("a peer that uses its port again has its new connection, whoever still tells of the old one's TIME-WAIT", "[time_wait]") {
  SharedWorld w(1);
  INFO(w.sim.label());
  const auto serve = [&]() -> Host& {
    Host& h = w.process();
    h.on_accept = [](Socket& s) {
      s.send(1000);
      s.close_when_sent = true;  // first: the TIME-WAIT is on this side
    };
    return h;
  };
  const auto open = [&] {
    std::vector<Socket*> all;
    for (std::uint16_t port = 20000; port < 20040; ++port) {
      all.push_back(w.client.try_connect({Sim::kShared, 80}, {}, port));
      REQUIRE(all.back() != nullptr);
      all.back()->close_on_eof = true;
    }
    return all;
  };
  const auto are_over = [](const std::vector<Socket*>& all) {
    return std::ranges::all_of(all, [](const Socket* s) { return s->connection == nullptr; });
  };
  Host& a = serve();
  Host& b = serve();
  REQUIRE(a.steering->queues() == 1);
  const auto first = open();
  REQUIRE(w.sim.run_until([&] { return are_over(first); }));
  w.sim.run_for(milliseconds(100));
  REQUIRE(a.worker->time_waits() + b.worker->time_waits() == 40);
  // The table moves: b has not said yet what it has when the peer opens anew, at the new home of some.
  b.stalled_until = w.sim.now + seconds(1);
  Host& c = serve();
  const auto second = open();
  w.sim.run_for(microseconds(20));
  w.client.stalled_until = w.sim.now + seconds(1);  // it has not seen the answers
  w.sim.run_for(milliseconds(2));
  b.stalled_until = {};
  w.sim.run_for(milliseconds(3));
  // The table moves again, and b ends.
  c.leave(*c.listeners.front());
  w.sim.run_for(milliseconds(3));
  w.client.stalled_until = {};
  w.sim.run_for(milliseconds(20));
  b.leave(*b.listeners.front());
  b.exit();
  REQUIRE(w.sim.run_until([&] { return are_over(second); }, seconds(10)));
  for (const Socket* s : second) {
    CHECK(s->error == Errc::ok);
    CHECK(s->received == 1000);
  }
  CHECK(w.client.count(Counter::retransmitted_segments) == 0);
}

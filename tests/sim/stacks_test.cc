// Several stacks with one address on one device: listeners that are left, not watched, closed; what is handed over.
#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <set>

#include "stack/tcp/migration/handover.hh"
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;

namespace {
using World = SharedWorld;
}

TEST_CASE("every stack of a device gets its share of 1,000 connections, and no packet is refused", "[stacks]") {
  World w(3);
  INFO(w.sim.label());
  std::vector<Host*> stacks;
  for (int i = 0; i < 4; ++i) stacks.push_back(&w.process());
  std::vector<Socket*> sockets;
  for (int i = 0; i < 1000; ++i) {
    sockets.push_back(&w.connect(2000));
    sockets.back()->shutdown_when_sent = true;
    w.sim.run_for(microseconds(20));
  }
  w.sim.run_for(seconds(2));
  for (Socket* s : sockets) CHECK((World::good(*s, 2000) && s->eof));
  double sum = 0, squares = 0;
  for (Host* h : stacks) {
    const auto n = static_cast<double>(h->accepted.size());
    sum += n;
    squares += n * n;
    CHECK(h->count(Counter::resets_sent) == 0);
    CHECK(h->count(Counter::forwarded_unknown) == 0);
  }
  CHECK(sum == 1000);
  CHECK(sum * sum / (4 * squares) >= 0.95);  // Jain's index
}

TEST_CASE("a listener that is left hands its unaccepted connections over, with what they have received", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  Host& next = w.process();
  old.accepting = false;
  const std::uint64_t bytes = GENERATE(0, 1, 700, 1460, 20'000, 60'000);
  const bool fin = GENERATE(false, true);
  CAPTURE(bytes, fin);
  const auto sockets = w.connect_to(old, 5, bytes);
  for (Socket* s : sockets) s->shutdown_when_sent = fin;
  w.sim.run_for(milliseconds(300));
  REQUIRE(old.worker->connections() == 5);
  old.leave(*old.listeners.front());
  w.sim.run_for(milliseconds(5));  // not all fit into the message ring at once
  CHECK(old.worker->connections() == 0);
  CHECK(old.count(Counter::connections_handed_over) == 5);
  w.sim.run_for(milliseconds(300));
  CHECK(next.count(Counter::connections_adopted) == 5);
  CHECK(next.accepted.size() == 5);
  for (Socket* s : sockets) {
    CHECK((World::good(*s, bytes) && s->eof == fin));
    if (!fin) s->send(70'000);
    s->shutdown_when_sent = true;
  }
  w.sim.run_for(seconds(2));
  for (Socket* s : sockets) CHECK((World::good(*s, s->to_send) && s->eof));
  for (Host* h : {&old, &next}) CHECK(h->count(Counter::resets_sent) == 0);
  CHECK(next.worker->connections() == 0);
  for (auto& s : next.sockets) CHECK(s->wrong == 0);
  old.exit();
  next.exit();
}

TEST_CASE("half-open connections of a listener that was left are completed there and handed over", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  Host& next = w.process();
  const bool exits = GENERATE(false, true);
  CAPTURE(exits);
  bool lose = true;
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return lose && f.from == 0 && f.tcp && !f.has(kSyn); };
  const auto sockets = w.connect_to(old, 5, 3000);
  w.sim.run_for(milliseconds(100));
  CHECK(old.worker->connections() == 0);
  old.leave(*old.listeners.front());
  if (exits) old.exit();  // then they go as they are
  lose = false;
  w.sim.run_for(seconds(5));
  CHECK(next.accepted.size() == 5);
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  CHECK(next.count(Counter::connections_adopted) == 5);
}

TEST_CASE("until another process serves, a listener that was left goes on taking connections", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  old.leave(*old.listeners.front());
  std::vector<Socket*> sockets;
  for (int i = 0; i < 20; ++i) {
    sockets.push_back(&w.connect(500));
    w.sim.run_for(milliseconds(20));
  }
  CHECK(old.worker->connections() == 20);
  CHECK(old.accepted.empty());
  Host& next = w.process();
  w.sim.run_for(milliseconds(100));
  CHECK(next.accepted.size() == 20);
  CHECK(old.worker->connections() == 0);
  for (Socket* s : sockets) CHECK(World::good(*s, 500));
  sockets.clear();
  for (int i = 0; i < 20; ++i) sockets.push_back(&w.connect(500));
  w.sim.run_for(seconds(2));
  for (Socket* s : sockets) CHECK(World::good(*s, 500));
  CHECK(next.accepted.size() == 40);
}

TEST_CASE("if nobody goes on, what a left listener has is reset after five seconds, and then it refuses", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  old.accepting = false;
  Socket& waits = w.connect(100);
  w.sim.run_for(milliseconds(100));
  old.leave(*old.listeners.front());
  w.sim.run_for(milliseconds(4800));
  CHECK(waits.error == Errc::ok);
  Socket& late = w.connect(100);
  w.sim.run_for(milliseconds(400));
  CHECK(waits.error == Errc::connection_reset);
  w.sim.run_for(seconds(5));
  CHECK(late.error == Errc::connection_reset);
  Socket& refused = w.connect();
  w.sim.run_for(milliseconds(100));
  CHECK(refused.error == Errc::connection_refused);
  CHECK(old.worker->connections() == 0);
  CHECK(old.worker->next_deadline() > w.sim.now + milliseconds(5));  // nothing keeps it awake
}

TEST_CASE("who listens again finds what its former listener had", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  old.accepting = false;
  Socket& s = w.connect(100);
  w.sim.run_for(milliseconds(100));
  old.leave(*old.listeners.front());
  old.accepting = true;
  old.listen(80);
  w.sim.run_for(milliseconds(100));
  CHECK(World::good(s, 100));
}

TEST_CASE("the last listener that is closed resets what it has, whatever others do", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  old.accepting = false;
  Socket& s = w.connect(100);
  w.sim.run_for(milliseconds(100));
  old.close(*old.listeners.front());
  w.sim.run_for(milliseconds(100));
  CHECK(s.error == Errc::connection_reset);
  Socket& refused = w.connect();
  w.sim.run_for(milliseconds(100));
  CHECK(refused.error == Errc::connection_refused);
}

TEST_CASE("connections of a listener that nobody watches go where one is watched, now or later", "[stacks]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  a.watch(*a.listeners.front(), false);
  std::vector<Socket*> sockets;
  for (int i = 0; i < 50; ++i) sockets.push_back(&w.connect(3000));
  w.sim.run_for(milliseconds(100));
  CHECK(b.accepted.size() == 50);
  CHECK(a.count(Counter::connections_handed_over) > 10);
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  // Nobody at all: they wait.
  b.watch(*b.listeners.front(), false);
  for (int i = 0; i < 50; ++i) sockets.push_back(&w.connect(3000));
  w.sim.run_for(seconds(10));
  CHECK(b.accepted.size() == 50);
  CHECK(a.worker->connections() + b.worker->connections() == 100);
  a.watch(*a.listeners.front(), true);
  w.sim.run_for(milliseconds(100));
  CHECK(a.accepted.size() == 50);
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
}

TEST_CASE("a stack that is killed: its peers are reset, the others lose nothing, new ones are served", "[stacks]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  const auto doomed = w.connect_to(a, 30, 1000);
  const auto fine = w.connect_to(b, 30, 1000);
  w.sim.run_for(milliseconds(100));
  CHECK(a.accepted.size() == 30);
  a.kill();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : doomed) CHECK(s->error == Errc::connection_reset);
  for (Socket* s : fine) {
    CHECK(World::good(*s, 1000));
    s->send(50'000);
  }
  Socket& later = w.connect(1000);
  w.sim.run_for(seconds(1));
  CHECK(World::good(later, 1000));
  for (Socket* s : fine) CHECK(World::good(*s, 51'000));
}

TEST_CASE("a connection for which there is no listener any more is reset, when nobody has come for it", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& a = w.process();
  a.accepting = false;
  Socket& s = w.connect(100);
  w.sim.run_for(milliseconds(100));
  Host& b = w.process(0);
  b.listen(81);
  a.leave(*a.listeners.front());
  w.sim.run_for(milliseconds(4800));
  CHECK(s.error == Errc::ok);
  w.sim.run_for(milliseconds(400));
  CHECK(s.error == Errc::connection_reset);
  CHECK(a.count(Counter::connections_handed_over) == 0);
}

TEST_CASE("active opens of several stacks: every answer comes to the one that asked", "[stacks]") {
  World w(2);
  INFO(w.sim.label());
  std::vector<Host*> stacks{&w.process(), &w.process(), &w.process(0)};
  w.client.listen(443);
  w.client.on_accept = echo;
  std::vector<Socket*> sockets;
  for (int i = 0; i < 100; ++i)
    for (Host* h : stacks) {
      Socket* s = h->try_connect({w.client.address, 443});
      REQUIRE(s != nullptr);
      s->to_send = 3000;
      s->shutdown_when_sent = s->close_on_eof = true;
      sockets.push_back(s);
    }
  w.sim.run_for(seconds(5));
  for (Socket* s : sockets) CHECK((World::good(*s, 3000) && s->eof));
  for (Host* h : stacks) CHECK(h->count(Counter::resets_sent) == 0);
  CHECK(w.client.count(Counter::resets_sent) == 0);
}

TEST_CASE("a flow that one stack has opened no other one opens, wherever the table has moved it", "[stacks]") {
  World w(2);
  INFO(w.sim.label());
  w.client.listen(443);
  std::set<std::uint16_t> ports;
  for (int n = 1; n <= 4; ++n) {
    Host& h = w.process();  // takes its share of the others' entries
    std::vector<Socket*> sockets;
    for (int i = 0; i < 400; ++i) {
      Socket* s = h.try_connect({w.client.address, 443});
      REQUIRE(s != nullptr);
      sockets.push_back(s);
      CHECK(ports.insert(s->key.local_port).second);
      w.sim.run_for(microseconds(50));
    }
    w.sim.run_for(milliseconds(100));  // less than a SYN that is sent again
    for (const Socket* s : sockets) CHECK(s->connected);
  }
  CHECK(w.client.count(Counter::resets_sent) == 0);
}

TEST_CASE("whatever a message of another stack says, nothing outside it is read or written", "[stacks]") {
  World w;
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  b.listen(81);
  auto& random = w.sim.random;
  for (int i = 0; i < 3000; ++i) {
    const bool half_open = random() % 4 == 0;
    HandoverConnection c;
    c.head = {kHandoverVersion, half_open ? HandoverHead::half_open : HandoverHead::connection,
              {Sim::kShared, w.client.address, 80, static_cast<std::uint16_t>(1 + random() % 5000)}, 0};
    std::vector<std::byte> first(half_open ? sizeof(HandoverHalfOpen) : sizeof c);
    if (random() % 2 == 0)
      for (std::size_t at = sizeof c.head; at < sizeof c; ++at)
        reinterpret_cast<std::byte*>(&c)[at] = static_cast<std::byte>(random());
    c.data = static_cast<std::uint32_t>(random() % 3 == 0 ? random() : random() % 3000);
    std::memcpy(first.data(), &c, first.size());
    if (random() % 8 == 0) first.resize(random() % 200);
    if (random() % 8 == 0 && !first.empty()) first[random() % first.size()] ^= std::byte{1};
    HandoverHead data = c.head;
    data.kind = HandoverHead::data;
    data.seq = c.rcv_nxt - static_cast<std::uint32_t>(random() % 3000);
    std::vector<std::byte> second(sizeof data + random() % 1400);
    std::memcpy(second.data(), &data, sizeof data);
    if (random() % 8 == 0) second.resize(random() % sizeof data);
    const std::array<std::span<const std::byte>, 2> messages{first, second};
    (void)a.steering->migrate(c.head.key, messages, b.steering->number());
    w.sim.run_for(milliseconds(1));
  }
  CHECK(b.count(Counter::connections_adopted) > 1000);
  // What is nobody's on the other side is reset by the peer or by its own end.
  for (auto& s : b.sockets) s->abort();
  b.on_accept = [](Socket& s) { s.abort(); };
  w.sim.run_for(seconds(200));
  CHECK(b.worker->connections() == 0);
  b.exit();
  CHECK(w.device.pool_of(1).available() == w.device.pool_of(1).capacity());
}

TEST_CASE("all slots are taken by stacks that only finish what they have: the oldest gives way to one that serves", "[stacks]") {
  Sim sim(12);
  Host& client = sim.add_host();
  SimSharedDevice& device = sim.add_device(2, 3);
  std::vector<Host*> old;
  std::vector<Socket*> slow;
  for (int i = 0; i < 3; ++i) {
    Host& h = *old.emplace_back(&sim.add_process(device));
    h.on_accept = [](Socket& s) { s.reading = false; };
    h.listen(80);
    sim.run_for(milliseconds(30));
    for (int j = 0; j < 2 && i == 0; ++j) (void)client.try_connect({Sim::kShared, 80});  // ARP
    sim.run_for(milliseconds(100));
    const std::size_t before = h.accepted.size();
    for (int tries = 0; h.accepted.size() < before + 3 && tries < 50; ++tries) {
      slow.push_back(client.try_connect({Sim::kShared, 80}));
      sim.run_for(milliseconds(5));
    }
    REQUIRE(h.accepted.size() == before + 3);
    if (i > 0) old[static_cast<std::size_t>(i) - 1]->leave(*old[static_cast<std::size_t>(i) - 1]->listeners.front());
    sim.run_for(milliseconds(30));
  }
  const auto wait_for_a_place = [&](Duration d) {
    for (const Time end = sim.now + d; sim.now < end; sim.run_for(milliseconds(10))) {
      device.process = 99;
      const auto port = SteeringPort::join(device);
      device.process = 0;
      if (port != nullptr) return true;
    }
    return false;
  };
  // While one serves nobody has to go.
  CHECK_FALSE(wait_for_a_place(seconds(6)));
  for (Host* h : old) CHECK(h->count(Counter::gave_way) == 0);
  old[2]->leave(*old[2]->listeners.front());
  const auto have_ended = [&](std::size_t i) {
    return std::ranges::all_of(old[i]->accepted, [](const Socket* s) { return s->error == Errc::connection_reset; });
  };
  CHECK_FALSE(wait_for_a_place(milliseconds(1900)));
  CHECK_FALSE(have_ended(0));
  CHECK_FALSE(wait_for_a_place(milliseconds(300)));
  CHECK(have_ended(0));
  CHECK(old[0]->count(Counter::gave_way) == old[0]->accepted.size());
  CHECK_FALSE(have_ended(1));
  // Its process stays all the same: the next one's turn. That one leaves.
  CHECK_FALSE(wait_for_a_place(milliseconds(2300)));
  CHECK(have_ended(1));
  CHECK_FALSE(have_ended(2));
  old[1]->exit();
  CHECK(wait_for_a_place(milliseconds(100)));
  sim.run_for(seconds(10));
  CHECK_FALSE(have_ended(2));
}

// Stacks on one device of which each has some of the listeners: where new connections go, and those that nobody accepts.
#include <span>

#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;
using World = SharedWorld;

TEST_CASE("connections go to who waits for their listener, not to who waits for another", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process(81);
  Host& c = w.process();
  a.listen(81);
  a.watch(*a.listeners.front(), false);
  std::vector<Socket*> sockets;
  for (int i = 0; i < 60; ++i) sockets.push_back(&w.connect(3000, i % 2 == 0 ? 80 : 81));
  w.sim.run_for(milliseconds(100));
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  CHECK(a.count(Counter::connections_handed_over) > 5);
  for (Host* h : {&a, &b, &c}) CHECK(h->count(Counter::adoptions_refused) == 0);
  for (Socket* s : a.accepted) CHECK(s->key.local_port == 81);
  // Nobody waits for 80 any more, two for 81: those of 80 stay where they are.
  c.watch(*c.listeners.front(), false);
  sockets.clear();
  for (int i = 0; i < 20; ++i) sockets.push_back(&w.connect(3000));
  w.sim.run_for(seconds(7));
  for (Socket* s : sockets) CHECK((s->error == Errc::ok && s->received == 0));
  c.watch(*c.listeners.front(), true);
  w.sim.run_for(milliseconds(100));
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
}

TEST_CASE("processes of which each has one of the ports: even shares, and every packet is passed on once at most", "[listeners]") {
  World w(3);
  INFO(w.sim.label());
  std::vector<Host*> hosts;
  for (int i = 0; i < 6; ++i) hosts.push_back(&w.process(i < 3 ? 80 : 81));
  for (Host* h : hosts) h->stats = {};
  std::uint64_t frames = 0;
  w.sim.wire.tap = [&](const FrameInfo& f) { frames += f.from == 0 && f.tcp ? 1U : 0U; };
  std::vector<Socket*> sockets;
  for (int i = 0; i < 1200; ++i) {
    sockets.push_back(&w.connect(3000, i % 2 == 0 ? 80 : 81));
    sockets.back()->shutdown_when_sent = true;
    w.sim.run_for(microseconds(50));
  }
  w.sim.run_for(seconds(1));
  for (Socket* s : sockets) CHECK((World::good(*s, 3000) && s->eof));
  std::uint64_t passed_on = 0;
  for (const bool second : {false, true}) {
    double sum = 0, squares = 0;
    for (Host* h : std::span(hosts).subspan(second ? 3 : 0, 3)) {
      passed_on += h->count(Counter::forwarded_unknown);
      sum += double(h->accepted.size());
      squares += double(h->accepted.size()) * double(h->accepted.size());
      CHECK(h->count(Counter::resets_sent) == 0);
    }
    CHECK(sum == 600);
    CHECK(sum * sum / (3 * squares) >= 0.95);  // Jain's index
  }
  CHECK(passed_on > 1200);
  CHECK(passed_on < frames);
}

TEST_CASE("a SYN for a port that no stack has is refused by its home, and nobody else is asked", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  std::vector<Host*> hosts;
  for (int i = 0; i < 6; ++i) hosts.push_back(&w.process());
  for (Host* h : hosts) h->stats = {};
  Socket& s = w.connect(0, 7);
  w.sim.run_for(milliseconds(10));
  CHECK(s.error == Errc::connection_refused);
  std::uint64_t passed_on = 0, resets = 0;
  for (Host* h : hosts) {
    passed_on += h->count(Counter::forwarded_unknown);
    resets += h->count(Counter::resets_sent);
  }
  CHECK(passed_on == 0);
  CHECK(resets == 1);
}

TEST_CASE("a SYN for a port whose listener is about to come is left unanswered, so that it comes again; for three seconds", "[listeners]") {
  World w;
  INFO(w.sim.label());
  Host& first = w.process();
  w.sim.expected = {81, 82};
  std::vector<Socket*> at_once;  // sooner than the kernel is asked again
  for (int i = 0; i < 3; ++i) at_once.push_back(&w.connect(0, 81));
  w.sim.run_for(milliseconds(500));
  for (const Socket* s : at_once) CHECK((s->error == Errc::ok && !s->connected));
  CHECK(first.count(Counter::left_to_another) == 3);
  w.process(81);
  w.sim.run_for(seconds(2));
  for (const Socket* s : at_once) CHECK(s->connected);
  Socket& in_vain = w.connect(0, 82);
  w.sim.run_for(seconds(2));
  CHECK(in_vain.error == Errc::ok);
  w.sim.run_for(seconds(5));
  CHECK(in_vain.error == Errc::connection_refused);
}

TEST_CASE("a listener that was left goes on while others serve, but not this port", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  Host& old = w.process();
  Host& other = w.process(81);
  old.leave(*old.listeners.front());
  std::vector<Socket*> sockets;
  for (int i = 0; i < 20; ++i) sockets.push_back(&w.connect(500));
  w.sim.run_for(milliseconds(100));
  CHECK(old.worker->connections() == 20);
  CHECK(other.worker->connections() == 0);
  Host& next = w.process();
  w.sim.run_for(milliseconds(100));
  CHECK(next.accepted.size() == 20);
  for (Socket* s : sockets) CHECK(World::good(*s, 500));
}

TEST_CASE("who ends while nobody accepts leaves its connections to a process that has the listener", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  Host& other = w.process(81);
  const bool leaves_first = GENERATE(true, false);
  CAPTURE(leaves_first);
  for (Host* h : {&a, &b}) h->watch(*h->listeners.front(), false);
  bool lose = false;
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return lose && f.from == 0 && f.tcp && !f.has(kSyn); };
  auto sockets = w.connect_to(a, 10, 3000);
  w.sim.run_for(milliseconds(100));
  lose = true;
  const auto half_open = w.connect_to(a, 10, 3000);
  sockets.insert(sockets.end(), half_open.begin(), half_open.end());
  w.sim.run_for(milliseconds(100));
  CHECK(a.worker->connections() == 10);
  if (leaves_first) a.leave(*a.listeners.front());
  w.sim.run_for(milliseconds(leaves_first ? 5 : 0));
  a.exit();
  lose = false;
  w.sim.run_for(seconds(20));
  CHECK(b.worker->connections() == 20);
  CHECK(b.count(Counter::connections_adopted) >= 20);  // and those of no client any more
  for (Socket* s : sockets) CHECK((s->connected && s->error == Errc::ok));
  b.watch(*b.listeners.front(), true);
  w.sim.run_for(seconds(1));
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  CHECK(other.count(Counter::adoptions_refused) == 0);
}

TEST_CASE("connections that go on to the next stack while their data is still arriving take all of it along", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  Host& between = w.process();
  Host& last = w.process();
  const bool between_ends = GENERATE(false, true);
  CAPTURE(between_ends);
  last.watch(*last.listeners.front(), false);
  a.accepting = b.accepting = false;
  // A head and two pieces of data each, so that what the next one reads at a time does not end with a connection.
  auto sockets = w.connect_to(a, 35, 2000);
  for (Socket* s : w.connect_to(b, 35, 2000)) sockets.push_back(s);
  w.sim.run_for(milliseconds(100));
  for (Host* h : {&a, &b}) h->leave(*h->listeners.front());
  const auto handed_over = [&] { return a.count(Counter::connections_handed_over) + b.count(Counter::connections_handed_over); };
  between.accepting = false;
  while (handed_over() == 0) w.sim.step(w.sim.now + microseconds(1));
  between.watch(*between.listeners.front(), false);
  last.watch(*last.listeners.front(), true);
  if (between_ends) between.exit();
  w.sim.run_for(milliseconds(100));
  CHECK(last.accepted.size() == 70);
  for (Socket* s : sockets) CHECK(World::good(*s, 2000));
}

TEST_CASE("a leaving process keeps its connections for one that is busy for long", "[listeners]") {
  World w;
  INFO(w.sim.label());
  Host& a = w.process();
  Host& busy = w.process();
  a.accepting = busy.accepting = false;
  busy.watch(*busy.listeners.front(), false);
  const auto sockets = w.connect_to(a, 5, 1000);
  w.sim.run_for(milliseconds(50));
  a.leave(*a.listeners.front());
  w.sim.run_for(seconds(30));
  for (Socket* s : sockets) CHECK(s->error == Errc::ok);
  busy.accepting = true;
  busy.watch(*busy.listeners.front(), true);
  w.sim.run_for(milliseconds(50));
  for (Socket* s : sockets) CHECK(World::good(*s, 1000));
}

TEST_CASE("more listeners than the control block tells apart: they are handed over, too", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  constexpr std::uint16_t kLast = 1000 + ControlBlock::kListeners + 20;
  for (std::uint16_t port = 1000; port < kLast; ++port)
    for (Host* h : {&a, &b}) h->listen(port);
  a.accepting = false;
  const auto sockets = w.connect_to(a, 5, 1000, kLast - 1);
  w.sim.run_for(milliseconds(50));
  a.leave(*a.listeners.back());
  w.sim.run_for(milliseconds(50));
  CHECK(b.accepted.size() == 5);
  for (Socket* s : sockets) CHECK(World::good(*s, 1000));
}

TEST_CASE("a SYN that was sent to a stack just before its listener was left goes on to one that has it, at once", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  w.process(81);  // home of some flows
  Host& a = w.process();
  Host& b = w.process();
  const bool ends = GENERATE(false, true);
  CAPTURE(ends);
  a.stalled_until = w.sim.now + milliseconds(50);
  std::vector<Socket*> sockets;
  for (int i = 0; i < 40; ++i) sockets.push_back(&w.connect(100));
  w.sim.run_for(milliseconds(20));
  const auto connected = [&] { return std::ranges::count_if(sockets, [](Socket* s) { return s->connected; }); };
  REQUIRE(connected() < 40);  // the others' wait for a
  a.leave(*a.listeners.front());
  if (ends) a.exit();
  w.sim.run_for(milliseconds(200));
  CHECK(connected() == 40);
  for (Socket* s : sockets) CHECK(World::good(*s, 100));
  CHECK(b.accepted.size() == 40);
  if (!ends) CHECK(a.count(Counter::left_to_another) == 0);
}

TEST_CASE("whoever ends while only a process without a stack has the listener: connections wait for the next", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  const bool somebody_polls = GENERATE(true, false);
  CAPTURE(somebody_polls);
  Host* other = somebody_polls ? &w.process(81) : nullptr;
  a.accepting = false;
  bool lose = false;
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return lose && f.from == 0 && f.tcp && !f.has(kSyn); };
  auto sockets = w.connect_to(a, 10, 3000);
  w.sim.run_for(milliseconds(100));
  lose = true;
  for (Socket* s : w.connect_to(a, 10, 3000)) sockets.push_back(s);
  w.sim.run_for(milliseconds(100));
  lose = false;
  w.sim.held.insert(80);
  a.leave(*a.listeners.front());
  a.exit();
  for (int i = 0; i < 10; ++i) sockets.push_back(&w.connect(3000));  // unanswered for a while
  w.sim.run_for(seconds(8));
  for (Socket* s : sockets) CHECK((s->error == Errc::ok && s->received == 0));
  CHECK(w.device.control().unclaimed({Sim::kShared, 80}));
  CHECK_FALSE(w.device.control().unclaimed({Sim::kShared, 81}));
  CHECK(w.device.kept == std::set<std::uint16_t>{80});
  Host& next = w.process();
  w.sim.run_for(seconds(8));
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  CHECK(next.accepted.size() == 30);
  CHECK_FALSE(w.device.control().unclaimed({Sim::kShared, 80}));
  CHECK(w.device.kept.empty());
  if (other != nullptr) CHECK(other->count(Counter::resets_sent) == 0);
  // And those of who is the last to have it are reset at once.
  w.sim.held.clear();
  next.accepting = false;
  const auto last = w.connect_to(next, 5, 0);
  w.sim.run_for(milliseconds(100));
  next.leave(*next.listeners.front());
  next.exit();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : last) CHECK(s->error == Errc::connection_reset);
}

TEST_CASE("what was on its way to a stack that has gone, and whose successor lacks the listener, waits for one that has it", "[listeners]") {
  World w;
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  Host& other = w.process(81);
  a.accepting = false;
  const std::uint64_t bytes = GENERATE(0, 3000, 20'000);
  CAPTURE(bytes);
  const bool half_open = GENERATE(false, true);
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return half_open && f.from == 0 && f.tcp && !f.has(kSyn); };
  const auto sockets = w.connect_to(a, 4, bytes);
  w.sim.run_for(milliseconds(50));
  w.sim.wire.drop_if = {};
  w.sim.held.insert(80);
  a.leave(*a.listeners.front());
  a.exit();
  b.kill();  // with all of it in its message ring
  w.sim.run_for(seconds(3));
  CHECK(w.device.kept == std::set<std::uint16_t>{80});
  for (Socket* s : sockets) CHECK(s->error == Errc::ok);
  CHECK(other.count(Counter::adoptions_refused) == 0);
  Host& next = w.process();
  w.sim.run_for(seconds(4));
  for (Socket* s : sockets) CHECK(World::good(*s, bytes));
  CHECK(next.accepted.size() == 4);
}

TEST_CASE("the last process resets what waits for the next one, and refuses nobody else: another program may come", "[listeners]") {
  World w;
  INFO(w.sim.label());
  Host& a = w.process();
  a.accepting = false;
  const auto waiting = w.connect_to(a, 10, 3000);
  w.sim.run_for(milliseconds(100));
  w.sim.held.insert(80);
  a.leave(*a.listeners.front());
  a.exit();
  REQUIRE(w.device.control().any_unclaimed());
  Host& last = w.process(0);
  last.worker->part();
  Socket& late = w.connect();
  last.steering->take_all_unclaimed();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : waiting) CHECK(s->error == Errc::connection_reset);
  CHECK_FALSE(w.device.control().any_unclaimed());
  CHECK(w.device.kept.empty());
  CHECK((late.error == Errc::ok && !late.connected));
  last.exit();
  w.process();
  w.sim.run_for(seconds(4));
  CHECK(late.connected);
}

TEST_CASE("a listener that was left goes on for as long as another process may still come for it", "[listeners]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  w.sim.held.insert(80);
  old.leave(*old.listeners.front());
  std::vector<Socket*> sockets;
  for (int i = 0; i < 20; ++i) {
    sockets.push_back(&w.connect(500));
    w.sim.run_for(seconds(1));
  }
  CHECK(old.worker->connections() == 20);
  Host& next = w.process();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : sockets) CHECK(World::good(*s, 500));
  CHECK(next.accepted.size() == 20);
}

TEST_CASE("a mutex of accepting that goes round among stalled processes whose clocks are read late resets nobody", "[listeners]") {
  World w(2);
  INFO(w.sim.label());
  std::vector<Host*> hosts;
  for (int i = 0; i < 3; ++i) hosts.push_back(&w.process());
  const auto chance = [&](std::uint32_t n) { return static_cast<std::uint32_t>(w.sim.random() % n); };
  const auto pass_mutex_to = [&](std::size_t who) {
    for (std::size_t i = 0; i < hosts.size(); ++i) hosts[i]->watch(*hosts[i]->listeners.front(), i == who);
  };
  std::vector<Socket*> sockets;
  for (int i = 0; i < 20000; ++i) {
    if (chance(3) == 0) pass_mutex_to(chance(3));
    for (Host* h : hosts) {
      h->clock_delay = chance(4) == 0 ? milliseconds(chance(12)) : Duration::zero();
      if (chance(10) == 0) h->stalled_until = w.sim.now + microseconds(chance(400));
    }
    sockets.push_back(&w.connect(100 + chance(3000)));
    sockets.back()->shutdown_when_sent = true;
    w.sim.run_for(microseconds(chance(60)));
  }
  for (Host* h : hosts) h->clock_delay = Duration::zero();
  w.sim.run_for(seconds(10));
  std::uint64_t failed = 0;
  for (Socket* s : sockets) failed += s->error != Errc::ok || s->wrong != 0 || !s->eof ? 1U : 0U;
  CHECK(failed == 0);
  CHECK(hosts[0]->count(Counter::connections_handed_over) > 100);
}

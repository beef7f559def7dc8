// Processes that are killed: what the others do for the peers, and what must not be lost with the dead.
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;
using World = SharedWorld;

TEST_CASE("who was to tell a dead stack's peers dies, too: the next one tells them", "[deaths]") {
  World w(3);
  INFO(w.sim.label());
  Host& first = w.process();
  Host& second = w.process();
  const bool exits = GENERATE(false, true);
  CAPTURE(exits);
  const auto doomed = w.connect_to(first, 100, 1000);
  w.sim.run_for(milliseconds(100));
  CHECK(first.accepted.size() == 100);
  bool silent = true;  // nothing that the stacks say arrives
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return silent && f.from != 0; };
  first.kill();
  w.sim.run_for(milliseconds(1500));
  CHECK(second.count(Counter::orphans_told) == 200);  // twice
  exits ? second.exit() : second.kill();
  silent = false;
  Host& third = w.process();
  w.sim.run_for(seconds(4));
  for (Socket* s : doomed) CHECK(s->error == Errc::connection_reset);
  // Three times, and then nobody has to any more.
  CHECK(third.count(Counter::orphans_told) == 300);
  for (std::uint32_t i = 0; i < 3; ++i) CHECK(w.device.board().place(i).orphans_end == 0);
}

TEST_CASE("all stacks die at once: the next one tells all their peers", "[deaths]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  std::vector<Socket*> sockets;
  for (int i = 0; i < 200; ++i) sockets.push_back(&w.connect(1000));
  w.sim.run_for(milliseconds(100));
  a.kill();
  b.kill();
  w.sim.run_for(seconds(1));
  Host& next = w.process();
  w.sim.run_for(seconds(1));
  for (Socket* s : sockets) CHECK(s->error == Errc::connection_reset);
  CHECK(next.worker->connections() == 0);
}

TEST_CASE("SYNs that come in while nobody has noticed a death are answered, not only when they are sent again", "[deaths]") {
  World w(4);
  INFO(w.sim.label());
  std::vector<Host*> hosts;
  for (int i = 0; i < 4; ++i) hosts.push_back(&w.process());
  for (int round = 0; round < 3; ++round) {
    hosts[static_cast<std::size_t>(round)]->kill();
    const Time killed = w.sim.now;
    std::vector<Socket*> sockets;
    for (int i = 0; i < 150; ++i) {
      sockets.push_back(&w.connect(500));
      w.sim.run_for(microseconds(100));
    }
    w.sim.run_for(milliseconds(100) - (w.sim.now - killed));
    for (Socket* s : sockets) CHECK(World::good(*s, 500));
  }
  CHECK(w.client.count(Counter::rto_fired) == 0);
}

TEST_CASE("a connection that was on its way to a stack when that was killed is another's", "[deaths]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  Host& doomed = w.process();
  old.accepting = false;
  const auto sockets = w.connect_to(old, 5, 3000);
  w.sim.run_for(milliseconds(50));
  REQUIRE(old.worker->connections() == 5);
  old.leave(*old.listeners.front());
  REQUIRE(old.worker->connections() == 0);
  doomed.kill();
  Host& next = w.process();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  CHECK(next.accepted.size() == 5);
}

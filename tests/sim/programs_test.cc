// Several programs on one device: who opens a connection is sent to whoever listens, and what is there stays in its program.
#include <catch2/catch.hpp>

#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;

namespace {

struct World : SharedWorld {
  using SharedWorld::SharedWorld;
  Host& process_of(std::uint64_t program, std::uint16_t port = 80) {
    device.next_program = program;
    return process(port);
  }
};

bool all(const std::vector<Socket*>& sockets, const std::function<bool(const Socket&)>& is) {
  return std::ranges::all_of(sockets, [&](const Socket* s) { return is(*s); });
}

}  // namespace

TEST_CASE("each program gets the connections to its ports, wherever their packets come in", "[programs]") {
  World w(GENERATE(1U, 3U));
  Host& a = w.process_of(1, 80);
  Host& b = w.process_of(2, 81);
  Host& c = w.process_of(2, 81);
  std::vector<Socket*> to_a, to_b;
  for (int i = 0; i < 60; ++i) {
    to_a.push_back(&w.connect(3000, 80));
    to_b.push_back(&w.connect(3000, 81));
  }
  w.sim.run_for(seconds(1));
  const auto good = [](const Socket& s) { return World::good(s, 3000); };
  CHECK(all(to_a, good));
  CHECK(all(to_b, good));
  CHECK(a.accepted.size() == 60);
  CHECK(b.accepted.size() + c.accepted.size() == 60);
  Socket& nowhere = w.connect(0, 82);
  w.sim.run_for(milliseconds(100));
  CHECK(nowhere.error == Errc::connection_refused);
}

TEST_CASE("one program's end is nothing to the other, and its peers are told", "[programs]") {
  World w(GENERATE(1U, 2U));
  const bool killed = GENERATE(false, true);
  Host& a = w.process_of(1, 80);
  Host& b = w.process_of(2, 81);
  std::vector<Socket*> to_a, to_b;
  for (int i = 0; i < 20; ++i) {
    to_a.push_back(&w.connect(0, 80));
    to_b.push_back(&w.connect(0, 81));
  }
  w.sim.run_for(milliseconds(200));
  killed ? a.kill() : a.exit();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : to_b) s->send(5000);
  w.sim.run_for(seconds(4));
  CHECK(all(to_b, [](const Socket& s) { return World::good(s, 5000); }));
  if (killed) CHECK(all(to_a, [](const Socket& s) { return s.error == Errc::connection_reset; }));
  Socket& refused = w.connect(0, 80);
  w.sim.run_for(seconds(2));
  CHECK(refused.error == Errc::connection_refused);
  CHECK(b.accepted.size() == 20);
}

TEST_CASE("connections that nobody has accepted do not go to another program with the same port", "[programs]") {
  World w;
  Host& a = w.process_of(1);
  a.accepting = false;
  Host& b = w.process_of(2);
  const auto waiting = w.connect_to(a, 5, 100);
  w.sim.run_for(milliseconds(200));
  CHECK(b.count(Counter::connections_adopted) == 0);
  SECTION("though its own listener is left") {
    a.leave(*a.listeners.front());
    a.exit();
    w.sim.run_for(milliseconds(300));
    CHECK(all(waiting, [](const Socket& s) { return s.error == Errc::connection_reset; }));
  }
  SECTION("and wait for their own where that may still come") {
    w.sim.held.insert(80);
    a.leave(*a.listeners.front());
    a.exit();
    w.sim.run_for(seconds(1));
    REQUIRE(w.device.control().any_unclaimed());
    Host& next = w.process_of(1);
    w.sim.run_for(seconds(4));
    CHECK(all(waiting, [](const Socket& s) { return World::good(s, 100); }));
    CHECK(next.count(Counter::connections_adopted) == 5);
  }
  SECTION("and are not reset by another's end") {
    w.sim.held.insert(80);
    a.leave(*a.listeners.front());
    a.exit();
    w.sim.run_for(milliseconds(100));
    b.steering->take_all_unclaimed();
    w.sim.run_for(milliseconds(100));
    CHECK(w.device.control().any_unclaimed());
    CHECK(all(waiting, [](const Socket& s) { return s.error == Errc::ok; }));
  }
  CHECK(b.count(Counter::connections_adopted) == 0);
  CHECK(b.count(Counter::adoptions_refused) == 0);
}

TEST_CASE("what was on its way to a dead process of one program is not taken by the other that finds it", "[programs]") {
  World w;
  Host& a = w.process_of(1);
  Host& b = w.process_of(1);
  Host& other = w.process_of(2);
  a.accepting = false;
  const auto waiting = w.connect_to(a, 4, 0);
  w.sim.run_for(milliseconds(50));
  w.sim.held.insert(80);
  a.leave(*a.listeners.front());
  a.exit();
  b.kill();  // with all of it in its message ring
  w.sim.run_for(seconds(3));
  CHECK(other.count(Counter::connections_adopted) == 0);
  Host& next = w.process_of(1);
  w.sim.run_for(seconds(4));
  CHECK(all(waiting, [](const Socket& s) { return World::good(s, 0); }));
  CHECK(next.accepted.size() == 4);
}

TEST_CASE("of a program's connections another one sees what opens them at most", "[programs]") {
  World w;
  w.process_of(1, 80);  // polls the queue
  Host& b = w.process_of(2, 81);
  std::vector<Socket*> sockets;
  for (int i = 0; i < 20; ++i) sockets.push_back(&w.connect(100'000));
  w.sim.run_for(seconds(2));
  CHECK(all(sockets, [](const Socket& s) { return World::good(s, 100'000); }));
  CHECK(b.steering->traffic().received <= 20);
}

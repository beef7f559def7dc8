// What a stack says when it gives up a connection: the peer must be able to believe it, and it must be said at all.
#include <catch2/catch.hpp>

#include "tests/sim/states_world.hh"

using namespace mtcp::sim;
using World = StatesWorld;

TEST_CASE("rfc5961 3.2: a reset does not overtake data that waits for the device: it would not be believed", "[reset]") {
  World w;
  w.enter(State::established);
  w.host.port.has_link = false;  // the device is full
  w.socket->send(1000);
  w.sim.run_for(milliseconds(2));
  w.peer.forget();
  w.socket->abort();
  w.host.port.has_link = true;
  w.sim.run_for(milliseconds(2));
  const auto heard = w.peer.hear_all();
  REQUIRE(heard.size() == 2);
  CHECK(heard[0].data.size() == 1000);
  CHECK(heard[1].is(kRst | kAck));
  CHECK(heard[1].seq == w.peer.rcv + 1000);
}

TEST_CASE("a connection that is reset gives up what it has for the packet that says so", "[reset]") {
  World w;
  w.enter(State::established);
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv, .data = std::string(1000, 'x')});
  w.peer.forget();
  std::vector<Packet*> taken;
  const auto take_all = [&] {
    for (Packet* p = nullptr; w.host.pool.alloc(&p, 1) == 1;) taken.push_back(p);
  };
  const auto heard_reset = [&] {
    w.host.pool.free(taken.data(), taken.size());
    w.sim.run_for(milliseconds(2));
    return std::ranges::any_of(w.peer.hear_all(), [](const Seg& s) { return s.is(kRst | kAck); });
  };

  SECTION("its application closes it, with unread data (RFC 2525 2.17)") {
    take_all();
    w.socket->send(1'000'000);  // takes what the stack has in stock
    w.socket->close();
    CHECK(heard_reset());
  }
  SECTION("the stack gives it up, for others") {
    for (int i = 0; i < 3; ++i) {  // a stack gives its stock to a pool that has little
      take_all();
      w.sim.run_for(milliseconds(2));
    }
    CHECK(w.host.count(Counter::connections_sacrificed) == 1);
    CHECK(heard_reset());
  }
}

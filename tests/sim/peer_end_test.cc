// A wire with one peer only, a process (memif): when that has ended, nobody is left who could answer for its
// connections.
#include <catch2/catch.hpp>

#include "stack/delivery.hh"
#include "tests/sim/states_world.hh"

using namespace mtcp::sim;
using World = StatesWorld;

namespace {

void end_peer(Sim& sim, Host& host) {
  host.port.has_link = false;
  host.port.peers_ended = 1;
  sim.run_for(milliseconds(3));
}

}  // namespace

TEST_CASE("the end of a wire's only peer ends its connections as a reset would", "[peer_end]") {
  for (State s : {State::established, State::fin_wait_1, State::fin_wait_2, State::syn_received}) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    end_peer(w.sim, w.host);
    CHECK(w.state() == State::closed);
    CHECK(w.socket->error == Errc::connection_reset);
    CHECK(w.host.count(Counter::peer_ended) == 1);
    w.socket->close();
    CHECK(w.host.worker->connections() == 0);
    CHECK(w.host.leaked_packets() == 0);
  }
}

TEST_CASE("a peer that has closed its connections before it ends is no error", "[peer_end]") {
  for (State s : {State::closing, State::last_ack}) {
    World w;
    w.enter(s);
    CAPTURE(name(s));
    end_peer(w.sim, w.host);
    CHECK(w.state() == State::closed);
    CHECK(w.socket->error == Errc::ok);
  }
  World w;
  w.enter(State::close_wait);
  end_peer(w.sim, w.host);
  w.sim.run_for(seconds(100));
  CHECK(w.state() == State::close_wait);
  CHECK(w.socket->error == Errc::ok);

  SECTION("who writes to it is told so, as by a kernel that has the port no more") {
    w.socket->send(10);
    w.sim.run_for(milliseconds(3));
    CHECK(w.socket->error == Errc::broken_pipe);
  }
  SECTION("and who closes it has closed it") {
    w.socket->close();
    w.sim.run_for(milliseconds(3));
    CHECK(w.host.worker->connections() == 0);
  }
}

TEST_CASE("what the peer has sent before its end can be read, and then the reset is seen", "[peer_end]") {
  World w;
  w.enter(State::established);
  w.peer.say({.flags = kAck, .seq = w.peer.snd, .ack = w.peer.rcv, .data = std::string(100, 'x')});
  Connection& c = *std::exchange(w.socket->connection, nullptr);  // its application reads late
  end_peer(w.sim, w.host);
  std::array<std::byte, 200> buffer;
  const iovec v{buffer.data(), buffer.size()};
  const auto read = [&] { return w.host.worker->receive(c, {&v, 1}, {}, w.sim.now); };
  const auto n = read();
  REQUIRE(n);
  CHECK(*n == 100);
  const auto end = read();
  REQUIRE_FALSE(end);
  CHECK(end.error() == Errc::connection_reset);
  w.host.worker->close(c, w.sim.now);
}

TEST_CASE("the next peer on the wire is reached at once, by what was asked for before it came", "[peer_end]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  Socket& former = client.connect(server, 80);
  former.send(100);
  REQUIRE(sim.run_until([&] { return !server.accepted.empty() && server.accepted[0]->received == 100; }));
  end_peer(sim, client);
  CHECK(former.error == Errc::connection_reset);
  Socket& next = client.connect(server, 80);
  sim.run_for(milliseconds(30));
  CHECK_FALSE(next.connected);
  client.port.has_link = true;
  next.send(100);
  // Not after the second that a SYN waits to be sent again.
  CHECK(sim.run_until([&] { return server.accepted.size() == 2 && server.accepted[1]->received == 100; }, milliseconds(200)));
}

TEST_CASE("a stack whose peer has ended does not keep its process waiting", "[peer_end]") {
  World w;
  w.enter(State::established);
  w.socket->send(1000);
  w.sim.run_for(milliseconds(1));
  w.host.port.has_link = false;
  w.socket->close();
  const Time begin = w.sim.now;
  Delivery delivery(*w.host.worker, &w.host.port, seconds(10), begin);
  const auto is_over = [&] { return delivery.is_over(w.sim.now); };

  SECTION("the link is down") {
    REQUIRE(w.sim.run_until(is_over));
    CHECK(w.sim.now - begin < milliseconds(600));
    w.host.worker->abort_orphans(w.sim.now);
  }
  SECTION("the peer has ended") {
    w.host.port.peers_ended = 1;
    w.sim.run_for(milliseconds(2));
    CHECK(is_over());
  }
  CHECK(w.host.worker->connections() == 0);
}

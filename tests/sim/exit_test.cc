// The end of a process: what it can still do for its peers.
#include <catch2/catch.hpp>

#include "stack/delivery.hh"
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;

TEST_CASE("who has not got everything when a process ends is told so by a reset", "[exit]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  server.on_accept = [](Socket& s) {
    s.send(20'000'000);
    s.close_when_sent = true;
  };
  Socket& slow = client.connect(server, 80);
  slow.reading = false;
  Socket& quick = client.connect(server, 80);
  REQUIRE(sim.run_until([&] { return quick.eof; }));
  REQUIRE(quick.received == 20'000'000);
  // The application of the server goes while the slow peer's window is closed.
  for (auto& s : server.sockets) s->close();
  sim.run_for(seconds(1));
  CHECK(server.worker->connections() == 2);
  server.worker->abort_orphans(sim.now);
  server.worker->flush(sim.now);
  CHECK(server.worker->connections() == 1);  // the quick one's, in FIN-WAIT-2: its peer has everything
  CHECK(server.count(Counter::resets_sent) == 1);
  sim.run_for(seconds(1));
  CHECK(slow.error == Errc::connection_reset);
  CHECK(quick.error == Errc::ok);
}

TEST_CASE("connections whose peers have everything are not reset when a process ends", "[exit]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  server.on_accept = [](Socket& s) {
    s.send(1000);
    s.close_when_sent = true;
  };
  Socket& c = client.connect(server, 80);
  REQUIRE(sim.run_until([&] { return c.eof; }));
  sim.run_for(seconds(1));
  server.worker->abort_orphans(sim.now);
  server.worker->flush(sim.now);
  sim.run_for(seconds(1));
  CHECK(server.count(Counter::resets_sent) == 0);
  CHECK(c.error == Errc::ok);
  c.close();
}

TEST_CASE("a process that ends waits for a peer until what was sent again has had an answer, and not for ever", "[exit]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  Socket& c = client.connect(server, 80);
  REQUIRE(sim.run_until([&] { return !server.accepted.empty(); }));
  sim.wire.options.loss = 1;
  server.accepted[0]->close_when_sent = true;
  server.accepted[0]->send(1000);
  const Time begin = sim.now;
  Delivery delivery(*server.worker, &server.port, seconds(10), begin);
  const auto is_over = [&] { return delivery.is_over(sim.now); };

  SECTION("the answer comes after some timeouts: 0.2, 0.4 and 0.8 s") {
    REQUIRE_FALSE(sim.run_until(is_over, milliseconds(700)));
    sim.wire.options.loss = 0;
    REQUIRE(sim.run_until(is_over));
    CHECK(c.received == 1000);
    CHECK(sim.now - begin < seconds(2));
  }
  SECTION("nobody answers") {
    REQUIRE(sim.run_until(is_over));
    CHECK(sim.now - begin >= milliseconds(1400));
    CHECK(sim.now - begin < seconds(3));
  }
  SECTION("there is no more time than that") {
    Delivery brief(*server.worker, &server.port, milliseconds(100), begin);
    CHECK_FALSE(brief.is_over(begin + milliseconds(99)));
    CHECK(brief.is_over(begin + milliseconds(100)));
  }
  server.worker->abort_orphans(sim.now);
}

TEST_CASE("what others have asked a process to send is sent though it ends: nobody has to send it again", "[exit]") {
  SharedWorld w(1);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  REQUIRE(a.steering->queues() + b.steering->queues() == 1);
  Host& leaves = a.steering->queues() == 1 ? a : b;
  Host& stays = &leaves == &a ? b : a;
  std::vector<Socket*> sockets = w.connect_to(stays, 5, 0);
  REQUIRE(w.sim.run_until([&] { return std::ranges::all_of(sockets, [](const Socket* s) { return s->connected; }); }));
  w.sim.run_for(milliseconds(5));
  leaves.leave(*leaves.listeners.front());
  leaves.worker->abort_orphans(w.sim.now);
  leaves.worker->flush(w.sim.now);
  // Its last turn is over; what comes now lies in its message ring.
  leaves.stalled_until = w.sim.now + seconds(1);
  REQUIRE(stays.accepted.size() == 5);
  for (Socket* s : stays.accepted) s->echo = false, s->send(1000);
  w.sim.run_for(milliseconds(2));
  leaves.exit();
  const auto all_here = [&] { return std::ranges::all_of(sockets, [](const Socket* s) { return s->received == 1000; }); };
  CHECK(w.sim.run_until(all_here, milliseconds(100)));
  CHECK(stays.count(Counter::retransmitted_segments) == 0);
}

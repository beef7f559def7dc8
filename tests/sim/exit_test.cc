// The end of a process: what it can still do for its peers.
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

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

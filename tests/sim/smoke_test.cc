#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

TEST_CASE("two stacks connect over the wire, exchange bytes both ways and close", "[sim]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.on_accept = [](Socket& s) {
    s.echo = true;
    s.close_on_eof = true;
  };
  server.listen(80);
  Socket& c = client.connect(server, 80);
  c.send(100'000);
  c.shutdown_when_sent = true;
  c.close_on_eof = true;
  REQUIRE(sim.run_until([&] { return c.connection == nullptr; }));
  CHECK(c.error == Errc::ok);
  CHECK(c.received == 100'000);
  CHECK(c.wrong == 0);
  REQUIRE(server.accepted.size() == 1);
  CHECK(server.accepted[0]->received == 100'000);
  CHECK(server.accepted[0]->wrong == 0);
  sim.run_for(mtcp::stack::seconds(2));
  CHECK(server.worker->connections() == 0);
  CHECK(client.worker->connections() == 0);
  CHECK(client.worker->time_waits() == 1);
  CHECK(server.worker->time_waits() == 0);
  sim.run_for(mtcp::stack::seconds(61));
  CHECK(client.worker->time_waits() == 0);
  CHECK(client.leaked_packets() == 0);
  CHECK(server.leaked_packets() == 0);
}

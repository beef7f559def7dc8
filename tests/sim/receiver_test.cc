// The receiver over whole paths: its window keeps up with the path, and what is lost costs no more than itself.
#include <catch2/catch.hpp>

#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;

TEST_CASE("rfc9293 3.8.6.2.2: the window grows ahead of slow start and fills 100 ms at 1 Gbit/s", "[sim]") {
  Sim sim(3);
  INFO(sim.label());
  constexpr double kRate = 125e6;  // bytes per second
  sim.wire.options.delay = milliseconds(50);
  sim.wire.options.bandwidth = kRate;
  sim.wire.options.queue = 100'000;
  const auto tune = [](Options& o) { o.tcp.wmem.max = 64 << 20; };
  Host& server = sim.add_host(tune, 65536);
  Host& client = sim.add_host(tune, 65536);
  server.listen(80);
  Socket& c = client.connect(server, 80);
  c.send(1 << 30);
  sim.run_for(milliseconds(1500));  // slow start takes ten round trips
  REQUIRE(server.accepted.size() == 1);
  const Socket& s = *server.accepted[0];
  const std::uint64_t before = s.received;
  sim.run_for(milliseconds(500));
  CHECK(static_cast<double>(s.received - before) > 0.9 * kRate * 0.5 * 1448 / 1514);
  CHECK(s.wrong == 0);
  c.abort();
}

TEST_CASE("rfc9293 3.8.6: a reader that takes little is offered little", "[sim]") {
  Sim sim(4);
  INFO(sim.label());
  sim.wire.options.delay = milliseconds(5);
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  server.on_accept = [](Socket& s) { s.read_limit = 10'000; };
  Socket& c = client.connect(server, 80);
  c.send(10'000'000);
  std::uint32_t most = 0;
  for (int i = 0; i < 100; ++i) {
    sim.run_for(milliseconds(20));
    if (server.accepted.empty()) continue;
    server.accepted[0]->kick();
    most = std::max(most, server.worker->info(*server.accepted[0]->connection).rcv_wnd);
  }
  CHECK(server.accepted[0]->wrong == 0);
  CHECK(most < 1 << 20);
  c.abort();
}

TEST_CASE("rfc2018: a segment that is lost is all that arrives twice, and nothing out of order is given up", "[sim]") {
  Sim sim(5);
  INFO(sim.label());
  sim.wire.options.delay = milliseconds(10);
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  for (unsigned nth : {50U, 300U, 301U, 900U}) sim.wire.drop(is_data, nth);
  Socket& c = client.connect(server, 80);
  c.send(3'000'000);
  REQUIRE(sim.run_until([&] { return !server.accepted.empty() && server.accepted[0]->received == 3'000'000; }));
  CHECK(server.accepted[0]->wrong == 0);
  CHECK(server.count(Counter::out_of_order_pruned) == 0);
  CHECK(server.count(Counter::duplicate_data) == 0);
  c.abort();
}

TEST_CASE("rfc2018 2: a connection that goes on to another stack keeps its SACK", "[sim]") {
  SharedWorld w;
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  for (Host* h : {&a, &b}) h->watch(*h->listeners.front(), false);
  const auto sockets = w.connect_to(a, 3, 3000);
  w.sim.run_for(milliseconds(50));
  REQUIRE(b.accepted.empty());
  b.watch(*b.listeners.front(), true);
  w.sim.run_for(milliseconds(200));
  std::size_t taken = 0;
  for (const Socket* s : b.accepted) {
    if (s->connection == nullptr) continue;
    ++taken;
    CHECK(b.worker->info(*s->connection).sack);
  }
  CHECK(b.count(Counter::connections_adopted) == 3);
  CHECK(taken == 3);
  for (const Socket* s : sockets) CHECK(SharedWorld::good(*s, 3000));
}

// A pool of packets is shared by all connections of a worker: nobody can have it all.
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

constexpr std::size_t kFewPackets = 4096, kOthers = 100;

// Whether one more connection gets its bytes both ways while all others stand still.
void check_that_another_is_served(Sim& sim, Host& client, Host& server) {
  server.on_accept = [](Socket& s) { s.echo = true; };
  Socket& another = client.connect(server, 80);
  another.send(100'000);
  CHECK(sim.run_until([&] { return another.received == 100'000; }, seconds(60)));
  CHECK(another.wrong == 0);
  CHECK(server.count(Counter::no_packets) == 0);
}

}  // namespace

TEST_CASE("Data that the application does not read leaves packets for other connections") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, kFewPackets);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  for (int i = 0; i < static_cast<int>(kOthers); ++i) client.connect(server, 80).send(200'000);
  sim.run_for(seconds(20));
  CHECK(server.accepted.size() == kOthers);
  check_that_another_is_served(sim, client, server);
}

TEST_CASE("Peers that do not read leave packets for other connections") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, kFewPackets);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.send(1'000'000); };
  for (int i = 0; i < static_cast<int>(kOthers); ++i)
    client.connect(server, 80, {.rcvbuf = 4096}).reading = false;
  sim.run_for(seconds(20));
  CHECK(server.accepted.size() == kOthers);
  check_that_another_is_served(sim, client, server);
}

TEST_CASE("When the application reads again after a shortage, everything arrives") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, kFewPackets);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  for (int i = 0; i < static_cast<int>(kOthers); ++i) client.connect(server, 80).send(50'000);
  sim.run_for(seconds(20));
  for (Socket* s : server.accepted) {
    s->reading = true;
    s->kick();
  }
  const auto all_there = [&] {
    for (const Socket* s : server.accepted)
      if (s->received != 50'000 || s->wrong != 0) return false;
    return true;
  };
  CHECK(sim.run_until(all_there, seconds(200)));
}

TEST_CASE("A pool of few packets serves on while hundreds of peers do not read") {
  Sim sim;
  INFO(sim.label());
  const std::size_t packets = GENERATE(512, 1024, 2048);
  Host& server = sim.add_host({}, packets);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.send(1'000'000); };
  for (int i = 0; i < 200; ++i) client.connect(server, 80, {.rcvbuf = 4096}).reading = false;
  sim.run_for(seconds(20));
  CHECK(server.accepted.size() == 200);
  server.on_accept = [](Socket& s) { s.echo = true; };
  Socket& another = client.connect(server, 80);
  another.send(100'000);
  CHECK(sim.run_until([&] { return another.received == 100'000; }, seconds(60)));
  // Where there are several for each, nobody has to go.
  if (packets > 1024) CHECK(server.count(Counter::connections_sacrificed) == 0);
}

// Many short connections over wires of all kinds: none hangs, and no byte is wrong. `sim_flows_test '[long]'` has a million of them.
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

constexpr std::size_t kAtOnce = 50;
constexpr Duration kLongest = std::chrono::hours(8);  // without SACK a transfer may go from timeout to timeout

// A wire and two tunings by chance, and so many connections over it. How many ended with a timeout.
std::size_t run_world(std::uint64_t seed) {
  Sim sim(seed);
  INFO(sim.label());
  const auto chance = [&](double most) { return std::uniform_real_distribution<double>(0, 1)(sim.random) < 0.4 ? 0.0 : std::uniform_real_distribution<double>(0, most)(sim.random); };
  const auto number = [&](std::uint64_t from, std::uint64_t to) { return std::uniform_int_distribution<std::uint64_t>(from, to)(sim.random); };
  const auto tune = [&](Options& o) {
    constexpr const char* kControls[] = {"cubic", "reno", "bbr", "dctcp"};
    o.tcp.congestion_control = kControls[number(0, 3)];
    o.tcp.sack = number(0, 5) != 0;
    o.tcp.timestamps = number(0, 5) != 0;
    o.tcp.window_scaling = number(0, 5) != 0;
    o.tcp.ecn = static_cast<std::uint32_t>(number(0, 2));
  };
  Host& server = sim.add_host(tune);
  Host& client = sim.add_host(tune);
  auto& o = sim.wire.options;
  o.delay = std::chrono::microseconds(number(0, 1) != 0 ? number(10, 1000) : number(1000, 100'000));
  o.loss = chance(0.15);
  o.reorder = chance(0.2);
  o.reorder_by = o.delay;
  o.duplicate = chance(0.1);
  o.jitter = number(0, 2) == 0 ? o.delay : Duration{};
  if (number(0, 1) != 0) {
    o.bandwidth = static_cast<double>(number(100'000, 100'000'000));
    o.queue = number(5, 200);
  }
  server.listen(80, {.backlog = 4 * kAtOnce});
  server.on_accept = [&](Socket& s) {
    s.echo = number(0, 1) != 0;
    s.close_on_eof = true;
  };
  std::vector<Socket*> flows;
  for (std::size_t i = 0; i < kAtOnce; ++i) {
    Socket* s = client.try_connect({server.address, 80});
    REQUIRE(s != nullptr);
    s->send(number(0, 3) == 0 ? number(1, 200'000) : number(1, 5000));
    s->shutdown_when_sent = true;
    flows.push_back(s);
  }
  REQUIRE(sim.run_until([&] { return std::all_of(flows.begin(), flows.end(), [](const Socket* s) { return s->eof || s->error != Errc::ok; }); }, kLongest));
  std::size_t failed = 0;
  for (Socket* s : flows) {
    CHECK(s->wrong == 0);
    if (s->error != Errc::ok) ++failed;
    s->close();
  }
  for (const Socket* s : server.accepted) CHECK(s->wrong == 0);
  sim.run_for(kLongest);
  CHECK(client.worker->connections() == 0);
  CHECK(server.worker->connections() == 0);
  CHECK(client.leaked_packets() == 0);
  CHECK(server.leaked_packets() == 0);
  return failed;
}

void run(std::size_t flows, std::uint64_t seed) {
  std::size_t failed = 0;
  for (std::size_t done = 0; done < flows; done += kAtOnce) {
    failed += run_world(seed++);
    if (done % 100'000 == 0 && done != 0) std::printf("%zu connections, %zu timed out\n", done, failed), std::fflush(stdout);
  }
  CHECK(static_cast<double>(failed) <= 0.01 * static_cast<double>(flows) + 2);
}

}  // namespace

TEST_CASE("flows: none hangs, whatever the wire does", "[sim]") { run(1000, 7); }

TEST_CASE("flows: of a million none hangs", "[.][long]") {
  const char* wanted = std::getenv("MTCP_FLOWS");
  run(wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 1'000'000, 1'000'000);
}

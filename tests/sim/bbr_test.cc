// BBR, delivery rates and pacing, whole: two stacks on a wire with a rate and a queue.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "stack/tcp/sender/bbr.hh"
#include "tests/sim/path_world.hh"

using namespace mtcp::sim;

namespace {

BbrState& model(Socket& s) { return bbr_state(*s.connection->pacing); }
constexpr std::uint64_t kMuch = 1ULL << 40;

}  // namespace

TEST_CASE("bbr: a path of 10 Mbit/s and 40 ms is full, its rate and round trip are known, and its queue is nearly empty", "[sim]") {
  RatedPath w("bbr", 1.25e6, milliseconds(20), 1000);
  Socket& c = w.start(kMuch);
  w.sim.run_for(seconds(2));
  CHECK(model(c).full);
  CHECK(model(c).mode == BbrState::Mode::probe_rate);
  CHECK(model(c).rates.best() == Approx(1.25e6 * 1448 / 1538).epsilon(0.05));
  CHECK(model(c).min_rtt > milliseconds(40));
  CHECK(model(c).min_rtt < milliseconds(44));
  const std::uint64_t bytes = w.run(seconds(5));
  CHECK(static_cast<double>(bytes) > 5 * 1.25e6 * 1448 / 1538 * 0.95);
  CHECK(w.client.count(Counter::retransmitted_segments) == 0);
  CHECK(w.client.worker->info(*c.connection).srtt < milliseconds(60));
}

TEST_CASE("bbr: every ten seconds without a shorter round trip the window is four segments for 200 ms", "[sim]") {
  RatedPath w("bbr", 1.25e6, milliseconds(20), 1000);
  Socket& c = w.start(kMuch);
  w.sim.run_for(seconds(1));
  Duration probing{};
  std::uint32_t least = UINT32_MAX;
  for (int i = 0; i < 23000; ++i) {
    w.sim.run_for(milliseconds(1));
    if (model(c).mode != BbrState::Mode::probe_rtt) continue;
    probing += milliseconds(1);
    least = std::min<std::uint32_t>(least, c.connection->hot.cwnd);
  }
  CHECK(probing > milliseconds(200));
  CHECK(probing < milliseconds(1000));
  CHECK(least == 4 * c.connection->hot.mss);
}

TEST_CASE("bbr: one packet in a hundred that is lost by chance costs hardly any rate, where cubic loses most of it", "[sim]") {
  double rate[2];
  for (int i = 0; i < 2; ++i) {
    RatedPath w(i == 0 ? "bbr" : "cubic", 6.25e6, milliseconds(20), 2000);
    w.sim.wire.options.loss = 0.01;
    w.start(kMuch);
    w.sim.run_for(seconds(2));
    rate[i] = static_cast<double>(w.run(seconds(5))) / 5;
  }
  CHECK(rate[0] > 0.85 * 6.25e6 * 1448 / 1538);
  CHECK(rate[1] < 0.3 * 6.25e6);
}

TEST_CASE("bbr: an application that sends little does not teach it that the path is slow", "[sim]") {
  RatedPath w("bbr", 12.5e6, milliseconds(10), 1000);
  Socket& c = w.start(20'000'000);
  w.sim.run_for(seconds(3));
  REQUIRE(w.received() == 20'000'000);
  const float known = model(c).rates.best();
  CHECK(known > 0.9F * 12.5e6F);
  for (int i = 0; i < 400; ++i) {
    c.send(2000);
    w.sim.run_for(milliseconds(30));
  }
  CHECK(c.connection->pacing->delivery.sample().app_limited);
  c.send(20'000'000);
  const std::uint64_t before = w.received();
  REQUIRE(w.sim.run_until([&] { return w.received() == before + 20'000'000; }, seconds(4)));
}

TEST_CASE("pacing: SO_MAX_PACING_RATE holds cubic to its rate, in bursts of a millisecond's worth and at least two segments", "[sim]") {
  for (const std::uint64_t rate : {100'000ULL, 1'000'000ULL, 12'345'678ULL, 80'000'000ULL}) {
    INFO(rate);
    RatedPath w("cubic", 0, milliseconds(5), 1000);
    SocketOptions o;
    o.max_pacing_rate = rate;
    Time last{};
    std::uint64_t burst = 0, largest = 0;
    Socket& c = w.start(kMuch, o);
    w.sim.run_for(seconds(1));
    w.sim.wire.tap = [&](const FrameInfo& f) {
      if (!is_data(f)) return;
      if (w.sim.now - last > microseconds(2)) burst = 0;
      last = w.sim.now;
      burst += f.len;
      largest = std::max(largest, burst);
    };
    const double got = static_cast<double>(w.run(seconds(2))) / 2;
    CHECK(got == Approx(static_cast<double>(rate)).epsilon(0.03));
    CHECK(largest <= std::max<std::uint64_t>(rate / 1024, 2 * 1448) + 1448);
    CHECK(w.client.worker->info(*c.connection).retransmits == 0);
  }
}

TEST_CASE("pacing: the limit may be lowered and lifted while data flows", "[sim]") {
  RatedPath w("cubic", 12.5e6, milliseconds(5), 200);
  Socket& c = w.start(kMuch);
  w.sim.run_for(seconds(1));
  CHECK(c.connection->pacing == nullptr);
  SocketOptions o = c.connection->options;
  o.max_pacing_rate = 500'000;
  w.client.worker->set_options(*c.connection, o, w.sim.now);
  w.sim.run_for(seconds(1));
  CHECK(static_cast<double>(w.run(seconds(2))) == Approx(1e6).epsilon(0.03));
  o.max_pacing_rate = UINT64_MAX;
  w.client.worker->set_options(*c.connection, o, w.sim.now);
  CHECK(c.connection->pacing == nullptr);
  w.sim.run_for(seconds(2));
  CHECK(static_cast<double>(w.run(seconds(2))) > 0.9 * 2 * 12.5e6 * 1448 / 1538);
}

TEST_CASE("pacing: a limit so low that nothing leaves for minutes holds nothing back once it is higher", "[sim]") {
  for (const char* control : {"cubic", "bbr"}) {
    INFO(control);
    RatedPath w(control, 12.5e6, milliseconds(5), 200);
    SocketOptions o;
    o.max_pacing_rate = 1;
    Socket& c = w.start(10'000'000, o);
    w.sim.run_for(seconds(20));
    CHECK(w.received() < 30'000);
    o = c.connection->options;
    o.max_pacing_rate = 10'000'000;
    w.client.worker->set_options(*c.connection, o, w.sim.now);
    CHECK(w.sim.run_until([&] { return w.received() == 10'000'000; }, seconds(3)));
  }
}

TEST_CASE("pacing: many connections, each at its own rate, and none of them leaves a timer behind", "[sim]") {
  RatedPath w("cubic", 0, milliseconds(1), 1000);
  std::vector<Socket*> sockets;
  for (unsigned i = 0; i < 200; ++i) {
    SocketOptions o;
    o.max_pacing_rate = 10'000 * (1 + i % 10);
    sockets.push_back(&w.start(kMuch, o));
  }
  w.sim.run_for(seconds(4));
  std::vector<std::uint64_t> before;
  for (auto* s : w.server.accepted) before.push_back(s->received);
  REQUIRE(before.size() == 200);
  w.sim.run_for(seconds(5));
  for (std::size_t i = 0; i < 200; ++i) {
    const auto* s = w.server.accepted[i];
    const auto at = static_cast<std::size_t>(s->key.remote_port);
    const auto owner = std::find_if(sockets.begin(), sockets.end(), [at](Socket* x) { return x->key.local_port == at; });
    REQUIRE(owner != sockets.end());
    const double rate = static_cast<double>((*owner)->connection->options.max_pacing_rate);
    CHECK(static_cast<double>(s->received - before[i]) / 5 == Approx(rate).epsilon(0.08));
  }
  for (std::size_t i = 0; i < sockets.size(); i += 2) sockets[i]->abort();
  w.sim.run_for(seconds(1));
  for (auto* s : sockets)
    if (s->connection != nullptr) s->abort();
  w.sim.run_for(milliseconds(10));
  CHECK(w.client.worker->connections() == 0);
  CHECK(w.client.leaked_packets() == 0);
}

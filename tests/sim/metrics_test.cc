// What a connection leaves for the next with the same host (Linux's tcp_metrics; RFC 9040 section 8 has the reasons).
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

struct World {
  explicit World(const std::function<void(Options&)>& tune = {}) : client(sim.add_host(tune)) { server.listen(80); }
  Socket& open(Duration round_trip) {
    sim.wire.options.delay = round_trip / 2;
    Socket& c = client.connect(server, 80);
    const std::size_t number = server.accepted.size();
    REQUIRE(sim.run_until([&] { return c.connected && server.accepted.size() > number; }));
    return c;
  }
  // A connection with data in both directions that is closed here first.
  void pass(Duration round_trip, const std::function<void(Connection&)>& before_close = {}) {
    Socket& c = open(round_trip);
    const std::size_t number = server.accepted.size() - 1;
    c.send(20'000);
    REQUIRE(sim.run_until([&] { return server.accepted.at(number)->received == 20'000; }));
    sim.run_for(seconds(1));
    if (before_close) before_close(*c.connection);
    c.close();
    server.accepted[number]->close();
    sim.run_for(seconds(1));
  }
  [[nodiscard]] Duration rto(const Socket& s) const { return client.worker->info(*s.connection).rto; }
  Sim sim{31};
  Host& server = sim.add_host();
  Host& client;
};

constexpr Duration kShort = milliseconds(20), kLong = milliseconds(300);

bool is_remembered(World& w) { return w.rto(w.open(kShort)) > 2 * kLong; }

}  // namespace

TEST_CASE("metrics: the first timeout is that of the last connection's round trip, if the handshake was faster", "[metrics]") {
  World w;
  CHECK(w.rto(w.open(kShort)) < milliseconds(250));
  w.pass(kLong);
  Socket& c = w.open(kShort);
  // Three times that round trip, as Linux: its variance is not known any more.
  CHECK(w.rto(c) >= 3 * kLong - microseconds(1));  // the packets of a burst are a nanosecond apart
  CHECK(w.rto(c) < 3 * kLong + milliseconds(60));
  c.send(1000);
  w.sim.run_for(milliseconds(100));
  CHECK(w.rto(c) < milliseconds(250));  // there is a sample
}

TEST_CASE("metrics: a shorter round trip is believed by eighths", "[metrics]") {
  World w;
  w.pass(kLong);
  const Duration first = w.rto(w.open(kShort));
  for (int i = 0; i < 4; ++i) w.pass(kShort);
  const Duration some = w.rto(w.open(kShort));
  CHECK(some < first * 7 / 10);
  CHECK(some > first / 2);
  for (int i = 0; i < 40; ++i) w.pass(kShort);
  CHECK(w.rto(w.open(kShort)) < milliseconds(260));
}

TEST_CASE("metrics: the passive side remembers, too, and each pair of addresses its own", "[metrics]") {
  World w;
  w.pass(kLong);
  w.sim.wire.options.delay = kShort / 2;
  w.client.listen(81);
  Socket& s = w.server.connect(w.client, 81);
  REQUIRE(w.sim.run_until([&] { return s.connected; }));
  CHECK(w.server.worker->info(*s.connection).rto >= 3 * kLong);  // saved in LAST-ACK
  Host& other = w.sim.add_host();
  other.listen(80);
  Socket& c = w.client.connect(other, 80);
  REQUIRE(w.sim.run_until([&] { return c.connected; }));
  CHECK(w.rto(c) < milliseconds(250));
}

TEST_CASE("metrics: what reorders is known from the start", "[metrics]") {
  World w;
  w.pass(kShort, [](Connection& c) { c.recovery.duplicate_threshold = 17; });
  Socket& c = w.open(kShort);
  CHECK(w.client.worker->info(*c.connection).duplicate_threshold == 17);
  w.pass(kShort);
  CHECK(w.client.worker->info(*w.open(kShort).connection).duplicate_threshold == 17);
}

TEST_CASE("metrics: ssthresh is kept only where that is wanted", "[metrics]") {
  const bool wanted = GENERATE(false, true);
  const Duration round_trip = GENERATE(kShort, kLong);
  World w([&](Options& o) { o.tcp.no_ssthresh_metrics_save = !wanted; });
  std::uint32_t cwnd = 0;
  w.pass(round_trip, [&](Connection& c) {
    c.tx.ssthresh = 9000;
    cwnd = c.hot.cwnd;
  });
  REQUIRE(cwnd > 2 * 9000);
  CHECK(w.client.worker->info(*w.open(kShort).connection).ssthresh == (wanted ? cwnd / 2 : UINT32_MAX));
}

// RFC 5681 section 4.1 is of data. (A window that began anew would be below ssthresh, of which nothing could be concluded.)
TEST_CASE("rfc5681 4.1: a FIN alone after a pause leaves the window as it was", "[metrics]") {
  World w;
  w.pass(kShort, [&](Connection& c) {
    const std::uint32_t before = c.hot.cwnd;
    REQUIRE(before > 10 * c.hot.mss);
    w.client.worker->shutdown(c, false, true, w.sim.now);
    CHECK(c.hot.fin_sent);
    CHECK(c.hot.cwnd == before);
    CHECK(c.tx.ssthresh == UINT32_MAX);
  });
}

TEST_CASE("metrics: nothing is kept with no_metrics_save, of a connection that was reset, or for longer than an hour", "[metrics]") {
  SECTION("no_metrics_save") {
    World w([](Options& o) { o.tcp.no_metrics_save = true; });
    w.pass(kLong);
    CHECK_FALSE(is_remembered(w));
  }
  SECTION("reset") {
    World w;
    Socket& c = w.open(kLong);
    c.send(1000);
    w.sim.run_for(seconds(1));
    c.abort();
    w.sim.run_for(seconds(1));
    CHECK_FALSE(is_remembered(w));
  }
  SECTION("an hour") {
    World w;
    w.pass(kLong);
    w.sim.run_for(std::chrono::minutes(50));
    CHECK(is_remembered(w));
    w.sim.run_for(std::chrono::minutes(11));
    CHECK_FALSE(is_remembered(w));
  }
}

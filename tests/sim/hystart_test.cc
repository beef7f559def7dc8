// HyStart++: slow start ends before the queue is full.
#include <catch2/catch.hpp>

#include "tests/sim/path_world.hh"

using namespace mtcp::sim;

namespace {

struct Start : RatedPath {
  // 50 Mbit/s and a round trip of 40 ms: 250 KB fill the path.
  explicit Start(const char* congestion, std::size_t queue) : RatedPath(congestion, 6.25e6, milliseconds(20), queue) {
    client.options.tcp.wmem.max = 1 << 25;
    socket = &start(1ULL << 40);
  }
  [[nodiscard]] ConnectionInfo info() { return client.worker->info(*socket->connection); }
  Socket* socket;
};

constexpr std::size_t kFill = 250'000 / 1538;  // packets

}  // namespace

TEST_CASE("rfc9406 4.2: with a deep buffer slow start is over before anything is lost, where without HyStart++ the buffer overflows", "[sim]") {
  Start plain("reno", 8 * kFill), watched("cubic", 8 * kFill);
  for (Start* s : {&plain, &watched}) s->sim.run_for(seconds(3));
  CHECK(plain.info().retransmits > 100);
  CHECK(watched.info().retransmits == 0);
  CHECK(watched.info().ssthresh != UINT32_MAX);
  CHECK(watched.info().ssthresh > 250'000);
  CHECK(watched.info().ssthresh < 8 * 250'000);
  // And not too early: the path is full.
  const std::uint64_t before = watched.received();
  watched.sim.run_for(seconds(2));
  CHECK(static_cast<double>(watched.received() - before) > 2 * 6.25e6 * 1448 / 1538 * 0.97);
}

TEST_CASE("rfc9406 4.2: growth is conservative for five rounds: a quarter of what was acknowledged", "[sim]") {
  Start s("cubic", 8 * kFill);
  // The window at each round trip.
  std::vector<std::uint32_t> windows;
  std::uint32_t last = 0;
  for (int i = 0; i < 40 && s.socket->connection->hot.snd_una == s.socket->connection->hot.snd_nxt; ++i) s.sim.run_for(milliseconds(10));
  Seq end = s.socket->connection->hot.snd_nxt;
  for (int i = 0; i < 30000 && s.info().ssthresh == UINT32_MAX; ++i) {
    s.sim.run_for(microseconds(100));
    const auto& h = s.socket->connection->hot;
    last = h.cwnd;
    if (before(h.snd_una, end)) continue;
    windows.push_back(last);
    end = h.snd_nxt;
  }
  windows.push_back(last);
  REQUIRE(windows.size() >= 6);
  std::size_t doubled = 0, slower = 0;
  for (std::size_t i = 1; i < windows.size(); ++i) {
    const double growth = static_cast<double>(windows[i]) / windows[i - 1];
    if (growth > 1.7) ++doubled;
    if (growth > 1.1 && growth < 1.35) ++slower;
  }
  CHECK(doubled >= 3);
  CHECK(slower >= 4);
  CHECK(slower <= 5);
}

TEST_CASE("rfc9406 4.2: a round trip that was longer by chance does not end slow start", "[sim]") {
  Start s("cubic", 8 * kFill);
  // A round of 15 ms more, well before the path is full; it is 40 ms again afterwards.
  REQUIRE(s.sim.run_until([&] { return s.socket->connection->hot.cwnd >= 40'000; }));
  s.sim.wire.options.delay = milliseconds(28);
  s.sim.run_for(milliseconds(50));
  for (int i = 0; i < 80; ++i) {  // slowly, so that nothing overtakes
    s.sim.wire.options.delay -= microseconds(100);
    s.sim.run_for(milliseconds(1));
  }
  REQUIRE(s.sim.run_until([&] { return s.info().ssthresh != UINT32_MAX; }));
  CHECK(s.info().ssthresh > 250'000);
}

TEST_CASE("rfc9406: a timeout that was a mistake brings slow start back, and it learns anew", "[sim]") {
  Start s("cubic", 8 * kFill);
  REQUIRE(s.sim.run_until([&] { return s.socket->connection->hot.cwnd >= 60'000; }));
  s.sim.wire.options.delay = milliseconds(400);
  s.sim.run_for(milliseconds(600));
  s.sim.wire.options.delay = milliseconds(20);
  s.sim.run_for(seconds(8));
  CHECK(s.client.count(Counter::reductions_undone) >= 1);
  const std::uint64_t before = s.received();
  s.sim.run_for(seconds(2));
  CHECK(static_cast<double>(s.received() - before) > 2 * 6.25e6 * 1448 / 1538 * 0.9);
}

TEST_CASE("rfc9406 4.2: slow start that is resumed after needless reductions, however many, notices the queue that stands by then", "[sim]") {
  for (const int apart : {60, 90, 120}) {
    Start s("cubic", 16 * kFill);
    REQUIRE(s.sim.run_until([&] { return s.socket->connection->hot.cwnd >= 60'000; }));
    // Again and again some packets are late, by more than RACK waits.
    for (int i = 0; i < 2400 / apart; ++i) {
      s.sim.wire.options.reorder_by = milliseconds(60);
      s.sim.wire.options.reorder = 1;
      s.sim.run_for(microseconds(400));
      s.sim.wire.options.reorder = 0;
      s.sim.run_for(milliseconds(apart));
    }
    INFO("every " << apart << " ms");
    CHECK(s.client.count(Counter::reductions_undone) >= 3);
    CHECK(s.sim.wire.dropped() == 0);
  }
}

TEST_CASE("rfc9406: over a short path a train of ACKs ends slow start long before the round trips are longer by 4 ms", "[sim]") {
  for (const double reorder : {0.0, 0.05}) {
    RatedPath s("cubic", 1.3e9 / 8, microseconds(500), 1000);
    s.sim.wire.options.reorder = reorder;
    s.sim.wire.options.reorder_by = microseconds(250);
    const Socket& c = s.start(1ULL << 40);
    s.run(milliseconds(100));
    INFO("reordered: " << reorder);
    CHECK(s.sim.wire.dropped() == 0);
    CHECK(s.client.worker->info(*c.connection).retransmits <= (reorder > 0 ? 10U : 0U));
    // And not too early.
    CHECK(static_cast<double>(s.run(milliseconds(200))) > 0.2 * 1.3e9 / 8 * 1448 / 1538 * 0.97);
  }
}

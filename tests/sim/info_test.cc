// What tcp_info tells of where the time goes: as Linux's tcp_chrono and tcp_update_rto_stats.
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

struct World {
  World() {
    sim.wire.options.delay = milliseconds(50);
    server.listen(80);
  }
  Socket& open(const SocketOptions& o = {}) {
    Socket& c = client.connect(server, 80, o);
    REQUIRE(sim.run_until([&] { return c.connected && !server.accepted.empty(); }));
    return c;
  }
  [[nodiscard]] ConnectionInfo info(const Socket& s) const { return client.worker->info(*s.connection); }
  [[nodiscard]] Duration of(const ConnectionInfo::Wait& wait) const { return wait.until(sim.now); }
  Sim sim{32};
  Host& server = sim.add_host();
  Host& client = sim.add_host();
};

bool about(Duration d, Duration expected, Duration margin) { return d >= expected - margin && d <= expected + margin; }

}  // namespace

TEST_CASE("tcp_info: busy_time is the time in which something is not acknowledged", "[info]") {
  World w;
  Socket& c = w.open();
  w.sim.run_for(seconds(1));
  CHECK(w.of(w.info(c).busy) == Duration::zero());
  for (int i = 1; i <= 3; ++i) {
    c.send(1000);
    w.sim.run_for(seconds(1));
    // A round trip each time, and a delayed ACK at most.
    CHECK(w.of(w.info(c).busy) >= i * milliseconds(100));
    CHECK(w.of(w.info(c).busy) <= i * milliseconds(145));
    CHECK(w.of(w.info(c).for_window) == Duration::zero());
    CHECK(w.of(w.info(c).for_buffer) == Duration::zero());
  }
  const Duration before = w.of(w.info(c).busy);
  c.send(1000);
  w.sim.run_for(milliseconds(30));
  CHECK(about(w.of(w.info(c).busy) - before, milliseconds(30), milliseconds(2)));  // while it lasts
}

TEST_CASE("tcp_info: rwnd_limited is the time in which the peer's window is the limit", "[info]") {
  World w;
  Socket& c = w.open();
  w.server.accepted[0]->reading = false;
  c.send(10'000'000);
  w.sim.run_for(seconds(5));
  const ConnectionInfo full = w.info(c);
  REQUIRE(full.snd_wnd < 1460);
  const Duration limited = w.of(full.for_window), busy = w.of(full.busy);
  CHECK(limited > seconds(4));
  CHECK(limited < busy);
  CHECK(about(busy, seconds(5), milliseconds(10)));
  w.server.accepted[0]->reading = true;
  w.server.accepted[0]->kick();
  REQUIRE(w.sim.run_until([&] { return w.server.accepted[0]->received == 10'000'000; }));
  const Duration after = w.of(w.info(c).for_window);
  w.sim.run_for(seconds(3));
  CHECK(w.of(w.info(c).for_window) == after);
  CHECK(w.of(w.info(c).for_buffer) < milliseconds(100));
}

TEST_CASE("tcp_info: sndbuf_limited is the time in which the send buffer is the limit", "[info]") {
  World w;
  SocketOptions o;
  o.sndbuf = 8192;  // less than the initial window
  Socket& c = w.open(o);
  c.send(100'000);
  REQUIRE(w.sim.run_until([&] { return w.server.accepted[0]->received == 100'000; }));
  w.sim.run_for(seconds(1));
  const ConnectionInfo info = w.info(c);
  CHECK(w.of(info.for_buffer) > w.of(info.busy) / 2);
  CHECK(w.of(info.for_buffer) <= w.of(info.busy));
  CHECK(w.of(info.for_window) == Duration::zero());
}

TEST_CASE("tcp_info: timeouts, rows of them, and how long they took", "[info]") {
  World w;
  Socket& c = w.open();
  c.send(1000);
  w.sim.run_for(seconds(1));
  CHECK(w.info(c).timeouts == 0);
  bool dead = true;
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return dead && f.tcp; };
  c.send(1000);
  w.sim.run_for(seconds(4));
  const ConnectionInfo during = w.info(c);
  CHECK(during.timeouts >= 2);
  CHECK(during.timeout_episodes == 1);
  CHECK(w.of(during.in_timeouts) > seconds(1));
  const Duration so_far = w.of(during.in_timeouts);
  dead = false;
  w.sim.run_for(seconds(10));
  const Duration took = w.of(w.info(c).in_timeouts);
  CHECK(took > so_far);
  CHECK(took < so_far + seconds(6));
  w.sim.run_for(seconds(1));
  CHECK(w.of(w.info(c).in_timeouts) == took);
  dead = true;
  c.send(1000);
  w.sim.run_for(seconds(4));
  CHECK(w.info(c).timeout_episodes == 2);
}

TEST_CASE("tcp_info: the rate of delivery is measured once somebody asks, and nothing else changes by that", "[info]") {
  World w;
  w.sim.wire.options.bandwidth = 1.25e6;
  w.sim.wire.options.queue = 200;
  Socket& c = w.open();
  c.send(1ULL << 40);
  w.sim.run_for(seconds(2));
  CHECK(w.info(c).delivery_rate == 0);
  w.client.worker->measure_delivery(*c.connection);
  w.sim.run_for(seconds(2));
  CHECK(static_cast<double>(w.info(c).delivery_rate) == Approx(1.1e6).epsilon(0.3));
  CHECK(w.info(c).pacing_rate != UINT64_MAX);
  SocketOptions o = c.connection->options;
  o.max_pacing_rate = 500'000;
  w.client.worker->set_options(*c.connection, o, w.sim.now);
  w.sim.run_for(seconds(2));
  const std::uint64_t before = w.server.accepted[0]->received;
  w.sim.run_for(seconds(2));
  CHECK(static_cast<double>(w.server.accepted[0]->received - before) == Approx(1e6).epsilon(0.05));
  o.max_pacing_rate = UINT64_MAX;
  w.client.worker->set_options(*c.connection, o, w.sim.now);
  w.sim.run_for(seconds(4));
  CHECK(static_cast<double>(w.info(c).delivery_rate) == Approx(1.1e6).epsilon(0.3));
}

// Reloads and deaths of stacks under load; the world and its oracle are in churn_world.hh.
#include "tests/sim/churn_world.hh"

using namespace mtcp::sim;

TEST_CASE("hundreds of reloads under load: no connection is lost, none is refused", "[stacks]") {
  Churn w(4);
  INFO(w.sim.label());
  w.begin(2);
  w.sim.wire.options.loss = 0.01;
  w.sim.wire.options.reorder = 0.02;
  for (int i = 0; i < 400; ++i) {
    for (std::uint64_t n = w.sim.random() % 8; n > 0 && w.open.size() < 300; --n) w.open_one();
    w.run_for(microseconds(static_cast<std::int64_t>(w.sim.random() % 20'000)));
    w.end_drained();
    if (w.may_reload()) w.reload();
    if (w.living.empty()) w.join();
    w.check_shares();
    (void)w.flows();
  }
  w.finish();
  CHECK(w.killed == 0);
  CHECK(w.good == w.opened);
}

TEST_CASE("joins, reloads and deaths in any order: only what a dead stack had is lost, and its peers hear of it", "[stacks]") {
  const std::uint32_t slots = GENERATE(16u, kMaxStacks);
  const bool many = slots == kMaxStacks;
  Churn w(3, slots);
  INFO(w.sim.label());
  CAPTURE(slots);
  std::size_t most = 0;
  // What an idle peer has if the stack that was to tell it is killed, too.
  w.options.keepalive = true;
  w.options.keepalive_time = seconds(10);
  w.options.keepalive_intvl = seconds(2);
  w.begin(1);
  w.sim.wire.options.loss = 0.01;
  w.sim.wire.options.duplicate = 0.01;
  for (int i = 0; i < 600; ++i) {
    for (std::uint64_t n = w.sim.random() % 6; n > 0 && w.open.size() < 300; --n) w.open_one();
    w.run_for(microseconds(static_cast<std::int64_t>(w.sim.random() % 20'000)));
    w.end_drained();
    const std::uint64_t dice = w.sim.random() % 10;
    most = std::max(most, w.living.size() + w.draining.size());
    if (dice < (many ? 6U : 3U) && w.living.size() < (many ? slots : 6) && w.sim_has_room()) {
      w.join();
    } else if (dice < (many ? 7U : 5U) && w.living.size() > 1) {
      w.leave(*w.living[w.sim.random() % w.living.size()]);
    } else if (dice == (many ? 7U : 5U) && !w.living.empty() && w.sim_has_room()) {
      w.kill(*w.living[w.sim.random() % w.living.size()]);
    } else if (dice == (many ? 8U : 6U) && !w.draining.empty()) {
      w.kill(*w.draining[w.sim.random() % w.draining.size()]);
    } else if (dice == (many ? 9U : 7U) && w.may_reload() && w.living.size() < 5) {
      w.reload();
    }
    if (w.living.empty()) w.join();
    w.run_for(milliseconds(i % 10 == 0 ? 45 : 0));
    if (i % 10 == 0) w.check_shares();  // the dead have been found
    (void)w.flows();
  }
  w.finish();
  CHECK(w.good + w.killed == w.opened);
  CHECK(w.good > w.opened / 2);
  CHECK((many || w.killed > 0));  // of few connections on many stacks, none may have been on one that died
  CHECK(w.slowest < seconds(40));
  CHECK(most > (many ? 40 : 4));
}

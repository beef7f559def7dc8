// Connections that nobody has accepted yet, among processes that stall, read their clocks late, pass a mutex of accepting
// round, reload, exit at once and are killed, in any order; what may happen to each says the oracle of churn_world.hh.
#include "tests/sim/churn_world.hh"

using namespace mtcp::sim;

namespace {

// Under the address sanitizer each step costs ten times as much.
#ifdef __SANITIZE_ADDRESS__
constexpr int kSteps = 1500;
#else
constexpr int kSteps = 4000;
#endif

// `happens`: what becomes of processes at each step, but for what disturbs them.
template <typename Happens>
void live(Churn& w, Happens happens) {
  w.begin(3);
  for (int i = 0; i < kSteps; ++i) {
    for (std::uint64_t n = w.sim.random() % 3; n > 0 && w.open.size() < 200; --n) w.open_one();
    if (w.sim.random() % 3 == 0) w.pass_mutex();
    w.disturb();
    w.run_for(microseconds(static_cast<std::int64_t>(w.sim.random() % 600)));
    w.end_drained();
    happens();
    if (w.living.empty()) w.join();
    (void)w.flows();
  }
  w.pass_mutex();
  w.calm();
  w.finish();
}

}  // namespace

TEST_CASE("thousands of migrations, exits, stalls and late clocks: no byte is lost and nobody is reset", "[migration]") {
  Churn w(GENERATE(1u, 3u));
  INFO(w.sim.label());
  live(w, [&] {
    if (w.sim.random() % 100 == 0 && w.may_reload()) w.reload();
  });
  CHECK(w.good == w.opened);
  CHECK(w.migrated() > kSteps / 8);
}

TEST_CASE("the same with deaths: only what a dead stack had is lost", "[migration]") {
  Churn w(2);
  INFO(w.sim.label());
  w.options.keepalive = true;
  w.options.keepalive_time = seconds(10);
  w.options.keepalive_intvl = seconds(2);
  live(w, [&] {
    const std::uint64_t dice = w.sim.random() % 200;
    if (dice == 0 && w.living.size() > 1)
      w.kill(*w.living[w.sim.random() % w.living.size()]);
    else if (dice < 4 && w.living.size() < 5 && w.sim_has_room())
      w.join();
    else if (dice == 4 && w.may_reload())
      w.reload();
  });
  CHECK(w.good + w.killed == w.opened);
  CHECK(w.killed > 0);
}

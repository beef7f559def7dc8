// How long a wait polls before it sleeps (intercept/waiting/wait.hh).
#include <catch2/catch.hpp>
#include <thread>

#include "intercept/waiting/wait.hh"
#include "tests/intercept/bench.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

Options polling() {
  Options o = Bench::default_options();
  o.poll.spin = stack::seconds(60);
  return o;
}

}  // namespace

TEST_CASE("a stack whose thread has lost its CPU between two turns of polling is not polled for 10 ms", "[waiting]") {
  Bench bench(polling());
  REQUIRE(bench.pair().server >= 0);
  Guard guard(bench->first());
  WaitLoop wait(*bench, guard, stack::kNever, nullptr);
  wait.turn();
  REQUIRE(!wait.will_sleep());
  REQUIRE(wait.idle({}, [](Sleeper&) { FAIL("it sleeps"); }) == 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));  // as if another program had run meanwhile
  wait.turn();
  CHECK(wait.will_sleep());
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  wait.turn();
  CHECK(!wait.will_sleep());
}

TEST_CASE("a pause between two turns that is no polling does not count as a lost CPU", "[waiting]") {
  Bench bench(polling());
  REQUIRE(bench.pair().server >= 0);
  Guard guard(bench->first());
  WaitLoop wait(*bench, guard, stack::kNever, nullptr);
  wait.turn();
  std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the application's
  wait.turn();
  CHECK(!wait.will_sleep());
}

TEST_CASE("a stack is not polled until 10 ms have gone by since the loss", "[waiting]") {
  Bench bench(polling());
  REQUIRE(bench.pair().server >= 0);
  Instance& instance = *bench->first().instance;
  const stack::Time lost = Bench::now();
  CHECK(instance.may_spin(lost));
  instance.was_preempted(lost);
  CHECK(!instance.may_spin(lost));
  CHECK(!instance.may_spin(lost + stack::milliseconds(10) - std::chrono::nanoseconds(1)));
  CHECK(instance.may_spin(lost + stack::milliseconds(10)));
}

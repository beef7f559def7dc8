// The clock: what it shows beside CLOCK_MONOTONIC, however the TSC and the kernel's clock run against each other.
#include <catch2/catch.hpp>
#include <cmath>
#include <tuple>

#include "intercept/support/clock.hh"
#include "intercept/support/clock_line.hh"

using mtcp::intercept::ClockLine;
using mtcp::intercept::ClockPair;

namespace {

constexpr double kHertz = 2.3e9;

// A machine whose kernel's clock runs `drift` faster than its TSC says.
struct Machine {
  double ns = 5e9;
  double tsc = 1e12;
  double drift = 0;
  void pass(double nanoseconds) {
    ns += nanoseconds;
    tsc += nanoseconds * kHertz / 1e9 / (1 + drift);
  }
  [[nodiscard]] ClockPair pair(double error = 0) const {
    return {static_cast<std::uint64_t>(tsc), static_cast<std::int64_t>(ns + error)};
  }
  // What the clock shows now.
  [[nodiscard]] std::int64_t shown(const ClockLine& l) const {
    const std::uint64_t at = static_cast<std::uint64_t>(tsc);
    return l.origin.ns + ClockLine::ns_of(at > l.origin.tsc ? at - l.origin.tsc : 0, l.scale);
  }
  [[nodiscard]] bool is_over(const ClockLine& l) const {
    return static_cast<std::uint64_t>(tsc) - l.origin.tsc > l.life;
  }
};

// A line from two readings 2 ms apart, the second of which is wrong by `error`.
ClockLine started(Machine& m, double error) {
  const ClockPair a = m.pair();
  m.pass(2e6);
  return ClockLine::first(a, m.pair(error));
}

}  // namespace

TEST_CASE("the clock stays with the kernel's and never goes back, whatever the first measurement and the drift",
          "[clock]") {
  for (const double drift : {0.0, 500e-6, -500e-6})
    for (const double error : {0.0, 400.0, -400.0}) {
      CAPTURE(drift, error);
      Machine m;
      m.drift = drift;
      ClockLine line = started(m, error);
      std::int64_t last = 0;
      double worst = 0;
      for (int i = 0; i < 200'000; ++i) {  // more than three minutes
        m.pass(1e6);
        if (m.is_over(line)) line = line.next(m.pair(i % 3 * 50.0));
        const std::int64_t t = m.shown(line);
        REQUIRE(t >= last);
        last = t;
        worst = std::max(worst, std::abs(static_cast<double>(t) - m.ns));
      }
      CHECK(worst < 100e3);  // ns
    }
}

TEST_CASE("the clock does not go back after the machine was suspended, and catches up with the kernel's", "[clock]") {
  for (const bool tsc_went_on : {true, false}) {
    CAPTURE(tsc_went_on);
    Machine m;
    ClockLine line = started(m, 0);
    m.pass(20e6);
    const std::int64_t before = m.shown(line);
    m.tsc = tsc_went_on ? m.tsc + 3600 * kHertz : 1e6;  // an hour of which CLOCK_MONOTONIC knows nothing
    std::int64_t last = before;
    for (int i = 0; i < 1000; ++i) {
      if (m.is_over(line)) line = line.next(m.pair());
      const std::int64_t t = m.shown(line);
      REQUIRE(t >= last);
      last = t;
      m.pass(1e6);
    }
    if (m.is_over(line)) line = line.next(m.pair());
    CHECK(std::abs(static_cast<double>(m.shown(line)) - m.ns) < 100e3);
  }
}

TEST_CASE("the clock begins anew where the kernel's has jumped ahead", "[clock]") {
  Machine m;
  ClockLine line = started(m, 0);
  m.ns += 10e9;  // and the TSC has stood still
  m.pass(60e6);
  REQUIRE(m.is_over(line));
  line = line.next(m.pair());
  CHECK(std::abs(static_cast<double>(m.shown(line)) - m.ns) < 1000);
}

TEST_CASE("two readings that make no sense give no line", "[clock]") {
  CHECK(ClockLine::first({1000, 1000}, {1000, 2000}).scale == 0);
  CHECK(ClockLine::first({1000, 1000}, {2000, 1000}).scale == 0);
}

TEST_CASE("now() is CLOCK_MONOTONIC", "[clock]") {
  mtcp::intercept::clock_start();
  const auto kernel_now = [] {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
  };
  // Between two readings of the kernel's, but for what the TSC was measured wrong by.
  bool good = false;
  for (int i = 0; i < 100 && !good; ++i) {
    const auto before = kernel_now();
    const auto shown = mtcp::intercept::now().time_since_epoch().count();
    good = shown >= before - 50'000 && shown <= kernel_now() + 50'000;
  }
  CHECK(good);
}

TEST_CASE("clock: a whole second is no second of nanoseconds, which the kernel refuses") {
  using namespace mtcp;
  for (const auto& [d, s, ns] : {std::tuple{stack::Duration(0), 0, 0}, {stack::Duration(999'999'999), 0, 999'999'999},
                                 {stack::seconds(1), 1, 0}, {stack::seconds(3) + stack::Duration(5), 3, 5}}) {
    const timespec t = intercept::to_timespec(d);
    CHECK(t.tv_sec == s);
    CHECK(t.tv_nsec == ns);
  }
}

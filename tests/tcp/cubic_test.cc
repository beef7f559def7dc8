// CUBIC (RFC 9438): the window at given times.
#include <cmath>

#include "tests/tcp/flight.hh"

namespace mtcp::test {
namespace {

// A flow of a hundred segments over a path so long that Reno is no faster.
struct Flow {
  explicit Flow(Duration round_trip) : rtt(round_trip), s(setup(rtt)) {
    s.peer_ack(0);
    s.write(pattern(200000));
    s.wait(rtt);
  }
  static Setup setup(Duration rtt) {
    Setup setup = with_sack("cubic", 100);
    setup.rtt = rtt;
    return setup;
  }
  // Round trips, each of which acknowledges all that is on its way.
  void run(Duration d) {
    for (const Time end = s.now + d; s.now < end;) {
      ack(s, acked += s.info().flight);
      s.write(pattern(200000));
      s.forget();
      s.wait(rtt);
    }
  }
  // The first of the flight does not arrive, so many behind it do.
  void lose(std::uint32_t arrive) { ack(s, acked, {{acked + 1000, acked + 1000 * (arrive + 1)}}); }
  // The first of the flight does not arrive, and what is sent again does.
  void lose_one() {
    const std::uint32_t segments = s.info().flight / 1000;
    lose(segments - 1);
    ack(s, acked += 1000 * segments);
    s.forget();
    s.wait(rtt);
  }
  Duration rtt;
  Script s;
  std::uint32_t acked = 0;
};

}  // namespace

TEST_CASE("rfc9438 4.2, 4.3: after a loss the window follows the cubic curve, or Reno where that is faster") {
  Script s(with_sack("cubic", 100));
  fill(s, 100);
  ack(s, 0, {{1000, 100000}});
  REQUIRE(s.info().ssthresh == 70000);  // section 4.6: beta = 0.7
  ack(s, s.info().flight != 0 ? 100000U : 0U);
  s.forget();
  std::uint32_t acked = 100000;
  const std::string block = pattern(100000);
  const auto run = [&](Duration d) {
    for (const Time end = s.now + d; s.now < end;) {
      s.write(block);
      s.forget();
      s.wait(milliseconds(10));
      acked += s.info().flight;
      ack(s, acked);
    }
  };
  run(milliseconds(1));
  const Time start = s.now;
  const double w_max = 100, k = std::cbrt((w_max - 70) / 0.4);
  for (const int at : {1, 2, 4, 5}) {
    run(seconds(at) - (s.now - start));
    const double t = static_cast<double>((s.now - start).count()) * 1e-9 + 0.01;
    const double cubic = w_max + 0.4 * (t - k) * (t - k) * (t - k);
    const double reno = 70 + 0.529 * (t / 0.01);  // section 4.3: at 10 ms Reno is faster
    INFO("after " << t << " s");
    CHECK(s.info().cwnd / 1000.0 > std::max(cubic, std::min(reno, 100.0)) * 0.95);
  }
}

TEST_CASE("rfc9438 4.6, 4.7: a loss leaves seven tenths; where it comes before the last window was reached again, the next aim is lower") {
  Flow f(milliseconds(200));
  f.lose_one();
  CHECK(f.s.info().ssthresh == 70000);
  f.run(milliseconds(1200));
  const std::uint32_t second = f.s.info().cwnd;
  REQUIRE(second > 80000);
  REQUIRE(second < 95000);
  f.lose_one();
  CHECK(f.s.info().ssthresh == Approx(0.7 * second).margin(1));
  // Where the curve is flat: 0.85 of the window, after the third root of 0.15 of it by 0.4.
  f.run(milliseconds(3000));
  CHECK(f.s.info().cwnd == Approx(0.85 * second).epsilon(0.04));
}

TEST_CASE("rfc9438 4.9: a reduction that was needless gives back the window, and the curve aims where it did") {
  Flow f(milliseconds(400));
  f.lose_one();
  f.run(milliseconds(800));
  const std::uint32_t before = f.s.info().cwnd;
  REQUIRE(before > 80000);
  REQUIRE(before < 95000);
  f.lose(4);
  REQUIRE(f.s.info().ssthresh < before);
  f.s.wait(milliseconds(3));
  const std::uint32_t twice = f.acked;
  ack(f.s, f.acked += 5000);
  ack(f.s, f.acked, {{twice, twice + 1000}});
  REQUIRE(f.s.count(Counter::reductions_undone) == 1);
  CHECK(f.s.info().cwnd >= before);
  f.s.wait(f.rtt);
  f.run(milliseconds(1600));
  CHECK(f.s.info().cwnd > 97000);  // a hundred is where the curve is flat; from the new window upwards it would be 95 by now
  CHECK(f.s.info().cwnd < 103000);
}

}  // namespace mtcp::test

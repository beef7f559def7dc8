#include "stack/tcp/active/ports.hh"

#include <catch2/catch.hpp>
#include <set>

using namespace mtcp::stack;

namespace {
constexpr SipKey kKey{5, 6};
const auto kAny = [](std::uint16_t) { return true; };
}  // namespace

TEST_CASE("rfc6056: every port of the range is chosen once before any is needed twice", "[ports]") {
  Ports ports(40000, 40999, kKey);
  std::set<std::uint16_t> chosen;
  for (int i = 0; i < 1000; ++i) {
    const std::uint16_t p = ports.choose(1, kAny);
    REQUIRE(p >= 40000);
    REQUIRE(p <= 40999);
    ports.hold(p);
    chosen.insert(p);
  }
  CHECK(chosen.size() == 1000);
  CHECK(ports.free_ports() == 0);
}

TEST_CASE("rfc6056 3.3: where a destination's ports begin depends on a secret and on the destination",
          "[ports]") {
  std::set<std::uint16_t> firsts;
  for (std::uint64_t key = 0; key < 20; ++key) firsts.insert(Ports(32768, 60999, {key, 1}).choose(1, kAny));
  CHECK(firsts.size() > 15);
  Ports ports(32768, 60999, kKey);
  firsts.clear();
  for (std::uint64_t destination = 0; destination < 20; ++destination)
    firsts.insert(ports.choose(destination, kAny));
  CHECK(firsts.size() > 15);
}

TEST_CASE("free ports come before those in TIME-WAIT, and those before ports used towards others",
          "[ports]") {
  Ports ports(50000, 50002, kKey);
  ports.hold(50000);
  ports.hold(50001);
  ports.enter_time_wait(50001);
  CHECK(ports.choose(1, kAny) == 50002);
  ports.hold(50002);
  CHECK(ports.choose(1, kAny) == 50001);
  std::set<std::uint16_t> asked;
  CHECK(ports.choose(1, [&](std::uint16_t p) { return asked.insert(p), p == 50002; }) == 50002);
  CHECK(ports.choose(1, [&](std::uint16_t p) { return asked.insert(p), false; }) == 0);
  CHECK(asked == std::set<std::uint16_t>{50000, 50001, 50002});
}

TEST_CASE("a port is free again when its last use ends", "[ports]") {
  Ports ports(50000, 50000, kKey);
  ports.hold(50000);
  ports.hold(50000);
  ports.release(50000);
  CHECK(ports.free_ports() == 0);
  ports.enter_time_wait(50000);
  CHECK(ports.free_ports() == 0);
  ports.leave_time_wait(50000);
  CHECK(ports.free_ports() == 1);
  ports.hold(80);  // outside the range: nothing to keep
  ports.release(80);
  CHECK(ports.free_ports() == 1);
}

TEST_CASE("with 25,000 of 28,232 ports in use a choice asks about few", "[ports]") {
  Ports ports(32768, 60999, kKey);
  for (int i = 0; i < 25'000; ++i) ports.hold(ports.choose(7, kAny));
  std::uint64_t asked = 0;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint16_t p = ports.choose(7, [&](std::uint16_t) { return ++asked, true; });
    ports.hold(p);
    ports.release(p);
  }
  CHECK(asked == 100'000);
}

TEST_CASE("with every port in TIME-WAIT a choice asks about few", "[ports]") {
  Ports ports(32768, 60999, kKey);
  for (int i = 0; i < 28'232; ++i) {
    const std::uint16_t p = ports.choose(7, kAny);
    ports.hold(p);
    ports.enter_time_wait(p);
  }
  // Each may be used again when 20,000 others have been.
  std::vector<std::uint32_t> used_at(65536, 0);
  std::uint64_t asked = 0, now = 30'000;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint16_t p = ports.choose(7, [&](std::uint16_t candidate) {
      ++asked;
      return now - used_at[candidate] > 20'000;
    });
    REQUIRE(p != 0);
    used_at[p] = static_cast<std::uint32_t>(now++);
  }
  CHECK(asked < 110'000);
}

TEST_CASE("where one port in four is usable a choice asks about few, also when those have all been used", "[ports]") {
  Ports ports(32768, 60999, kKey);
  std::uint64_t asked = 0;
  for (int i = 0; i < 50'000; ++i) {
    const std::uint16_t p = ports.choose(7, [&](std::uint16_t candidate) { return ++asked, candidate % 4 == 1; });
    REQUIRE(p % 4 == 1);
    ports.hold(p);
    ports.enter_time_wait(p);
  }
  CHECK(asked < 50'000 * 150);
}

TEST_CASE("rfc6056 3.3: lives that share their counters use different ports, one after the other or side by side", "[ports]") {
  PortCounters counters;
  std::set<std::uint16_t> seen;
  std::size_t chosen = 0;
  const auto live = [&](Ports& ports, int n) {
    for (int i = 0; i < n; ++i, ++chosen) {
      const std::uint16_t p = ports.choose(7, kAny);
      ports.hold(p);
      seen.insert(p);
    }
  };
  for (int life = 0; life < 20; ++life) {
    Ports ports(32768, 60999, kKey, static_cast<std::uint64_t>(life), &counters);
    live(ports, 100);
  }
  Ports a(32768, 60999, kKey, 0, &counters), b(32768, 60999, kKey, 0, &counters);
  for (int i = 0; i < 50; ++i) {
    live(a, 37);
    live(b, 53);
  }
  CHECK(seen.size() == chosen);
}

TEST_CASE("what is walked over behind a block of ports is counted for the others", "[ports]") {
  PortCounters counters;
  Ports a(32768, 60999, kKey, 0, &counters);
  // Only one port in a hundred will do. What the last choice has walked over is counted by the next.
  std::set<std::uint16_t> asked;
  for (int i = 0; i < 20; ++i)
    (void)a.choose(7, [&](std::uint16_t p) {
      if (i < 19) asked.insert(p);
      return p % 100 == 0;
    });
  CHECK(asked.size() > 1800);
  Ports b(32768, 60999, kKey, 0, &counters);
  CHECK_FALSE(asked.contains(b.choose(7, kAny)));
}

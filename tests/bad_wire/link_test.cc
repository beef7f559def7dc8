// The bad wire does to frames what it was asked for.
#include "tests/bad_wire/link.hh"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace bad_wire;

namespace {

constexpr Nanoseconds kMs = 1'000'000;

Frame frame(std::uint16_t number, std::size_t size = 1514, std::uint8_t tos = 0) {
  Frame f(size);
  f[12] = 0x08;
  f[14] = 0x45;
  f[15] = tos;
  f[18] = static_cast<std::uint8_t>(number >> 8);
  f[19] = static_cast<std::uint8_t>(number);
  return f;
}

std::uint16_t number_of(const Frame& f) { return static_cast<std::uint16_t>(f[18] << 8 | f[19]); }

Options options(std::initializer_list<std::pair<const char*, const char*>> list) {
  Options o;
  for (const auto& [key, value] : list) REQUIRE(o.set(key, value));
  return o;
}

// Sends n frames, one each 100 us, and returns those that come out, in order.
std::vector<Frame> pass(Link& link, std::uint16_t n, std::uint8_t tos = 0) {
  std::vector<Frame> out;
  for (std::uint16_t i = 0; i < n; ++i) link.take(frame(i, 1514, tos), i * kMs / 10);
  while (link.next() < 100'000 * kMs) out.push_back(link.give(link.next()));
  return out;
}

std::uint32_t header_sum(const Frame& f) {
  std::uint32_t sum = 0;
  for (std::size_t i = 14; i < 34; i += 2) sum += static_cast<std::uint32_t>(f[i] << 8 | f[i + 1]);
  return (sum & 0xffff) + (sum >> 16);
}

}  // namespace

TEST_CASE("A wire without faults passes everything in order, after its delay") {
  Link link(options({{"delay", "10ms"}}), 1);
  link.take(frame(1), 0);
  link.take(frame(2), 1);
  CHECK(link.next() == 10 * kMs);
  CHECK(link.give(10 * kMs - 1).empty());
  CHECK(number_of(link.give(10 * kMs)) == 1);
  CHECK(number_of(link.give(10 * kMs + 1)) == 2);
}

TEST_CASE("Loss is as frequent as it was asked for; in bursts, they are as long") {
  Link random(options({{"loss", "5%"}}), 7);
  const std::size_t arrived = pass(random, 10'000).size();
  CHECK(arrived == 10'000 - random.counts().lost);
  CHECK(random.counts().lost > 400);
  CHECK(random.counts().lost < 600);
  Link bursts(options({{"burst", "0.01"}, {"burst_end", "0.2"}}), 7);
  const auto out = pass(bursts, 20'000);
  std::size_t gaps = 0;
  for (std::size_t i = 1; i < out.size(); ++i)
    gaps += number_of(out[i]) != number_of(out[i - 1]) + 1 ? 1 : 0;
  const double length = static_cast<double>(bursts.counts().lost) / static_cast<double>(gaps);
  CHECK(length > 4);
  CHECK(length < 6);
}

TEST_CASE("The same seed has the same chances") {
  Link one(options({{"loss", "0.1"}}), 3), same(options({{"loss", "0.1"}}), 3), other(options({{"loss", "0.1"}}), 4);
  const auto a = pass(one, 1000);
  CHECK(a == pass(same, 1000));
  CHECK(a != pass(other, 1000));
}

TEST_CASE("A rate spreads frames; what the queue does not hold is dropped") {
  Link link(options({{"rate", "100M"}, {"queue", "10"}}), 1);
  for (std::uint16_t i = 0; i < 20; ++i) link.take(frame(i, 1250), 0);  // 100 us each
  CHECK(link.counts().dropped == 10);
  CHECK(link.next() == kMs / 10);
  for (int i = 1; i <= 10; ++i) CHECK(!link.give(i * kMs / 10).empty());
  CHECK(link.give(100 * kMs).empty());
}

TEST_CASE("The delay does not count as queue") {
  Link link(options({{"rate", "100M"}, {"queue", "2"}, {"delay", "100ms"}}), 1);
  for (std::uint16_t i = 0; i < 50; ++i) link.take(frame(i, 1250), i * kMs / 10);
  CHECK(link.counts().dropped == 0);
}

TEST_CASE("Jitter keeps the order; early and late frames do not") {
  Link jitter(options({{"delay", "5ms"}, {"jitter", "5ms"}}), 1);
  const auto in_order = [](const std::vector<Frame>& v) {
    return std::is_sorted(v.begin(), v.end(), [](const Frame& a, const Frame& b) { return number_of(a) < number_of(b); });
  };
  CHECK(in_order(pass(jitter, 1000)));
  for (const char* kind : {"reorder", "late"}) {
    Link link(options({{"delay", "5ms"}, {kind, "0.05"}}), 1);
    const auto out = pass(link, 1000);
    CHECK(out.size() == 1000);
    CHECK(!in_order(out));
    CHECK(link.counts().reordered + link.counts().late > 20);
  }
}

TEST_CASE("Duplicates and corruption") {
  Link twice(options({{"duplicate", "0.1"}}), 1);
  const std::size_t arrived = pass(twice, 1000).size();
  CHECK(arrived == 1000 + twice.counts().duplicated);
  CHECK(twice.counts().duplicated > 50);
  Link bits(options({{"corrupt", "1"}}), 1);
  const auto out = pass(bits, 10);
  for (std::uint16_t i = 0; i < 10; ++i) {
    const Frame whole = frame(i);
    int differ = 0;
    for (std::size_t b = 0; b < whole.size(); ++b) differ += __builtin_popcount(whole[b] ^ out[i][b]);
    CHECK(differ == 1);
  }
}

TEST_CASE("rfc3168: a long queue marks those who can be marked, and the header's checksum stays right") {
  Link link(options({{"rate", "100M"}, {"queue", "100"}, {"mark", "5"}}), 1);
  Frame capable = frame(1, 1250, 2), other = frame(2, 1250, 0);
  const std::uint32_t sum = ~header_sum(capable) & 0xffff;
  capable[24] = static_cast<std::uint8_t>(sum >> 8);
  capable[25] = static_cast<std::uint8_t>(sum);
  for (int i = 0; i < 10; ++i) link.take(capable, 0);
  for (int i = 0; i < 10; ++i) link.take(other, 0);
  CHECK(link.counts().marked == 5);
  for (int i = 0; i < 20; ++i) {
    const Frame f = link.give(100 * kMs);
    CHECK((f[15] & 3) == (i >= 10 ? 0 : i >= 5 ? 3 : 2));
    if (i < 10) CHECK(header_sum(f) == 0xffff);
  }
}

TEST_CASE("ARP comes through whatever the wire does to others") {
  Link link(options({{"loss", "1"}}), 1);
  Frame arp(42);
  arp[12] = 0x08, arp[13] = 0x06;
  for (int i = 0; i < 100; ++i) link.take(arp, i);
  link.take(frame(1), 100);
  int n = 0;
  while (!link.give(1000).empty()) ++n;
  CHECK(n == 100);
}

TEST_CASE("What is no option is refused") {
  Options o;
  for (const char* key : {"lose", "", "seed"}) CHECK_FALSE(o.set(key, "1"));
  for (const char* value : {"", "x", "1kg", "-1"}) CHECK_FALSE(o.set("delay", value));
  CHECK_FALSE(o.set("loss", "5"));
  CHECK_FALSE(o.set("queue", "0"));
}

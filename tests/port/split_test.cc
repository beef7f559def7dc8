#include "stack/port/dpdk/interface/split.hh"

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>
#include <vector>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"

using namespace mtcp::stack;
using namespace mtcp::stack::dpdk;

namespace {

// Ethernet, IPv4 or IPv6, TCP with 12 bytes of options, payload.
std::vector<std::byte> frame(bool v4, std::size_t payload, std::uint8_t flags = 0x18) {
  const std::size_t ip = v4 ? 20 : 40, tcp = 32;
  std::vector<std::byte> f(14 + ip + tcp + payload);
  store_be<std::uint16_t>(&f[12], v4 ? 0x0800 : 0x86dd);
  if (v4) {
    f[14] = std::byte{0x45};
    store_be<std::uint16_t>(&f[16], static_cast<std::uint16_t>(f.size() - 14));
    store_be<std::uint16_t>(&f[18], 0xfffe);  // identification, about to wrap
    store_be<std::uint16_t>(&f[20], 0x4000);
    f[23] = std::byte{6};
  } else {
    f[14] = std::byte{0x60};
    store_be<std::uint16_t>(&f[18], static_cast<std::uint16_t>(tcp + payload));
    f[20] = std::byte{6};
  }
  store_be<std::uint32_t>(&f[14 + ip + 4], 0xfffffff0);  // the sequence number wraps too
  f[14 + ip + 12] = std::byte{0x80};
  f[14 + ip + 13] = std::byte{flags};
  return f;
}

std::vector<std::byte> piece(const LargeFrame& large, const std::vector<std::byte>& f, std::size_t i) {
  std::vector<std::byte> h(f.begin(), f.begin() + static_cast<std::ptrdiff_t>(large.headers));
  write_piece_headers(large, i, h.data());
  return h;
}

}  // namespace

TEST_CASE("a large TCP packet is cut into segments that fit the MTU and continue each other") {
  const auto v4 = GENERATE(true, false);
  const auto f = frame(v4, 4000);
  const LargeFrame large = analyse_large({f.data(), 200}, f.size(), 1500);
  REQUIRE(large.headers == (v4 ? 66 : 86));
  REQUIRE(large.payload == 4000);
  REQUIRE(large.segment == 1500 + 14 - large.headers);
  REQUIRE(large.pieces() == 3);
  const std::size_t tcp = large.headers - 32;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto h = piece(large, f, i);
    const std::size_t payload = i < 2 ? large.segment : 4000 - 2 * large.segment;
    CHECK(load_be<std::uint32_t>(&h[tcp + 4]) == static_cast<std::uint32_t>(0xfffffff0 + i * large.segment));
    if (v4) {
      CHECK(load_be<std::uint16_t>(&h[16]) == 20 + 32 + payload);
      CHECK(load_be<std::uint16_t>(&h[18]) == static_cast<std::uint16_t>(0xfffe + i));
      CHECK(fold_sum(partial_sum(&h[14], 20)) == 0xffff);
    } else {
      CHECK(load_be<std::uint16_t>(&h[18]) == 32 + payload);
    }
  }
}

TEST_CASE("rfc3168: of a cut packet only the first segment carries CWR, only the last FIN and PSH") {
  const auto f = frame(true, 4000, 0x99);
  const LargeFrame large = analyse_large({f.data(), 200}, f.size(), 1500);
  const std::size_t flags = large.headers - 32 + 13;
  CHECK(piece(large, f, 0)[flags] == std::byte{0x90});
  CHECK(piece(large, f, 1)[flags] == std::byte{0x10});
  CHECK(piece(large, f, 2)[flags] == std::byte{0x19});
}

TEST_CASE("what is not a whole TCP packet is not cut") {
  auto f = frame(true, 4000);
  const auto headers = [&](std::size_t seen, std::size_t length) {
    return analyse_large({f.data(), seen}, length, 1500).headers;
  };
  REQUIRE(headers(200, f.size()) == 66);
  CHECK(headers(65, f.size()) == 0);  // the options are not there
  CHECK(headers(33, f.size()) == 0);
  CHECK(headers(0, f.size()) == 0);
  CHECK(headers(200, f.size() + 1) == 0);  // IP says another length
  SECTION("UDP") { f[23] = std::byte{17}; }
  SECTION("a fragment") { store_be<std::uint16_t>(&f[20], 0x2000); }
  SECTION("an IP header that is too short") { f[14] = std::byte{0x44}; }
  SECTION("a TCP header that is too short") { f[46] = std::byte{0x40}; }
  SECTION("another protocol") { store_be<std::uint16_t>(&f[12], 0x0806); }
  CHECK(headers(200, f.size()) == 0);
}

TEST_CASE("an MTU smaller than the headers cuts nothing") {
  const auto f = frame(true, 4000);
  CHECK(analyse_large({f.data(), 200}, f.size(), 52).headers == 0);
  CHECK(analyse_large({f.data(), 200}, f.size(), 53).segment == 1);
}

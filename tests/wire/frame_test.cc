#include "stack/wire/frame.hh"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "stack/base/bytes.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/ipv6.hh"

using namespace mtcp::stack;

namespace {

const IpAddress kFrom4 = IpAddress::v4(10, 0, 0, 1), kTo4 = IpAddress::v4(10, 0, 0, 2);
IpAddress v6(std::uint8_t last) {
  IpAddress a;
  a.bytes = {0x20, 1, 0xd, 0xb8};
  a.bytes[15] = last;
  return a;
}

// TCP from port 1000 to port 80 with `options` bytes of options and `payload` bytes, in a frame with so much padding.
std::vector<std::byte> tcp_frame(bool v4, std::size_t options = 0, std::size_t payload = 5, std::size_t padding = 0) {
  const std::size_t ip = v4 ? kIpv4Header : kIpv6Header, segment = 20 + options + payload;
  std::vector<std::byte> f(kEthernetHeader + ip + segment + padding);
  store_be<std::uint16_t>(&f[12], v4 ? kEtherIpv4 : kEtherIpv6);
  std::byte* at = &f[kEthernetHeader];
  if (v4) {
    at[0] = std::byte{0x45};
    store_be<std::uint16_t>(at + 2, static_cast<std::uint16_t>(ip + segment));
    at[9] = std::byte{kProtocolTcp};
    std::memcpy(at + 12, &kFrom4.bytes[12], 4);
    std::memcpy(at + 16, &kTo4.bytes[12], 4);
  } else {
    at[0] = std::byte{0x60};
    store_be<std::uint16_t>(at + 4, static_cast<std::uint16_t>(segment));
    at[6] = std::byte{kProtocolTcp};
    std::memcpy(at + 8, v6(1).bytes.data(), 16);
    std::memcpy(at + 24, v6(2).bytes.data(), 16);
  }
  at += ip;
  store_be<std::uint16_t>(at, std::uint16_t{1000});
  store_be<std::uint16_t>(at + 2, std::uint16_t{80});
  at[12] = static_cast<std::byte>((20 + options) / 4 << 4);
  return f;
}

}  // namespace

TEST_CASE("the headers of a TCP segment are found in a frame, padded or not", "[frame]") {
  const bool v4 = GENERATE(true, false);
  const std::size_t options = GENERATE(0U, 12U, 40U), padding = GENERATE(0U, 6U);
  const auto f = tcp_frame(v4, options, 5, padding);
  const TcpLayout at = find_tcp(f);
  CHECK(at.v4 == v4);
  CHECK(at.ip == 14);
  CHECK(at.tcp == (v4 ? 34 : 54));
  CHECK(at.headers == at.tcp + 20 + options);
  CHECK(at.length == f.size() - padding);
}

TEST_CASE("what ends within the headers has none, and no byte behind its end is read", "[frame]") {
  const bool v4 = GENERATE(true, false);
  const auto f = tcp_frame(v4, 12, 0);
  for (std::size_t n = 0; n <= f.size(); ++n) {
    const std::vector<std::byte> cut(f.begin(), f.begin() + static_cast<std::ptrdiff_t>(n));  // the sanitizer watches its end
    CHECK((find_tcp(cut).headers != 0) == (n == f.size()));
    CHECK(find_flow_headers(cut).found == (n >= (v4 ? 38U : 58U)));
    CHECK_FALSE(tells_address_to_all(cut));
  }
}

TEST_CASE("a fragment, another protocol, a header that is too short: no TCP segment", "[frame]") {
  auto f = tcp_frame(true);
  SECTION("the first fragment") { f[20] = std::byte{0x20}; }
  SECTION("a later fragment") { f[21] = std::byte{1}; }
  SECTION("UDP") { f[23] = std::byte{17}; }
  SECTION("an IP header of 16 bytes") { f[14] = std::byte{0x44}; }
  SECTION("an IP header of version 6") { f[14] = std::byte{0x65}; }
  SECTION("a TCP header of 16 bytes") { f[46] = std::byte{0x40}; }
  SECTION("a TCP header longer than the frame") { f[46] = std::byte{0xf0}; }
  SECTION("an IP length within the headers") { f[17] = std::byte{39}; }
  SECTION("another Ethernet type") { f[13] = std::byte{6}; }
  CHECK(find_tcp(f).headers == 0);
}

TEST_CASE("the flow of a frame is that of its segment, turned round where an ICMP error quotes it", "[frame]") {
  const FlowKey wanted{kTo4, kFrom4, 80, 1000};
  CHECK(find_flow_headers(tcp_frame(true)).key() == wanted);
  CHECK(find_flow_headers(tcp_frame(false)).key() == FlowKey{v6(2), v6(1), 80, 1000});

  const auto quoted = tcp_frame(true);
  std::vector<std::byte> f(kEthernetHeader + kIpv4Header + 8);
  store_be<std::uint16_t>(&f[12], kEtherIpv4);
  f[14] = std::byte{0x45};
  f[23] = std::byte{kProtocolIcmp};
  f[34] = std::byte{3};
  f.insert(f.end(), quoted.begin() + kEthernetHeader, quoted.begin() + kEthernetHeader + 28);
  const FlowHeaders flow = find_flow_headers(f);
  REQUIRE(flow.found);
  CHECK(flow.quoted);
  CHECK(flow.key() == FlowKey{kFrom4, kTo4, 1000, 80});
  f[34] = std::byte{8};  // an echo request quotes nothing
  CHECK_FALSE(find_flow_headers(f).found);
}

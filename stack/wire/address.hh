// Addresses as values.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mtcp::stack {

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};
  friend bool operator==(const MacAddress&, const MacAddress&) = default;
  [[nodiscard]] bool is_multicast() const { return (bytes[0] & 1) != 0; }
};
inline constexpr MacAddress kBroadcastMac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

// IPv6, with IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), so that the core knows one kind of address. 16 bytes in network order.
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};

  // From an IPv4 address in host order.
  [[nodiscard]] static constexpr IpAddress v4(std::uint32_t host_order) {
    IpAddress a;
    a.bytes[10] = a.bytes[11] = 0xff;
    for (unsigned i = 0; i < 4; ++i) a.bytes[12 + i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
    return a;
  }
  [[nodiscard]] static constexpr IpAddress v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
    return v4(std::uint32_t{a} << 24 | std::uint32_t{b} << 16 | std::uint32_t{c} << 8 | d);
  }
  [[nodiscard]] static constexpr IpAddress any_v4() { return v4(0); }
  [[nodiscard]] static constexpr IpAddress any_v6() { return {}; }

  [[nodiscard]] bool is_v4() const {
    static constexpr std::uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return std::memcmp(bytes.data(), prefix, sizeof prefix) == 0;
  }
  // Host order; only for is_v4().
  [[nodiscard]] std::uint32_t as_v4() const {
    return std::uint32_t{bytes[12]} << 24 | std::uint32_t{bytes[13]} << 16 | std::uint32_t{bytes[14]} << 8 | bytes[15];
  }
  // 0.0.0.0 or ::
  [[nodiscard]] bool is_any() const { return *this == any_v6() || *this == any_v4(); }
  // 127.0.0.0/8 or ::1
  [[nodiscard]] bool is_loopback() const {
    if (is_v4()) return bytes[12] == 127;
    IpAddress one;
    one.bytes[15] = 1;
    return *this == one;
  }
  friend bool operator==(const IpAddress& a, const IpAddress& b) { return std::memcmp(a.bytes.data(), b.bytes.data(), 16) == 0; }
};

// For hash tables and tags: the high bits are mixed best. Processes of a program tell each other what follows from it.
[[nodiscard]] inline std::uint64_t mix(const IpAddress& a) {
  std::uint64_t half[2];
  std::memcpy(half, a.bytes.data(), sizeof half);
  return (half[0] * std::uint64_t{0xff51afd7ed558ccd} + half[1]) * std::uint64_t{0x9e3779b97f4a7c15};
}

struct Endpoint {
  IpAddress address;
  std::uint16_t port = 0;  // host order
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

// A connection's identity, seen from here. No padding, so that it can be hashed and compared as bytes.
struct FlowKey {
  IpAddress local;
  IpAddress remote;
  std::uint16_t local_port = 0;   // host order
  std::uint16_t remote_port = 0;  // host order
  friend bool operator==(const FlowKey& a, const FlowKey& b) { return std::memcmp(&a, &b, sizeof(FlowKey)) == 0; }
};
static_assert(sizeof(FlowKey) == 36);

// A network: address and prefix length (of the 128 bits: an IPv4 /24 is 120).
struct Prefix {
  IpAddress address;
  std::uint8_t length = 0;
  friend bool operator==(const Prefix&, const Prefix&) = default;
  [[nodiscard]] bool contains(const IpAddress& a) const {
    const unsigned whole = length / 8, rest = length % 8;
    if (std::memcmp(address.bytes.data(), a.bytes.data(), whole) != 0) return false;
    if (rest == 0) return true;
    const auto mask = static_cast<std::uint8_t>(0xff << (8 - rest));
    return ((address.bytes[whole] ^ a.bytes[whole]) & mask) == 0;
  }
};

}  // namespace mtcp::stack

// IPv6 headers (RFC 8200) without extension headers: enough for the loopback wire.
#pragma once

#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/address.hh"
#include "stack/wire/parse_error.hh"

namespace mtcp::stack {

inline constexpr std::size_t kIpv6Header = 40;

struct Ipv6Header {
  IpAddress source;
  IpAddress destination;
  std::uint16_t payload_length = 0;  // bytes behind the header
  std::uint8_t next_header = 0;
  std::uint8_t traffic_class = 0;
  std::uint8_t hop_limit = 64;
};

[[nodiscard]] inline ParseError parse_ipv6(std::span<const std::byte> bytes, Ipv6Header& out) {
  if (bytes.size() < kIpv6Header) return ParseError::too_short;
  const std::byte* p = bytes.data();
  const auto first = load_be<std::uint32_t>(p);
  if (first >> 28 != 6) return ParseError::bad_header;
  out.traffic_class = static_cast<std::uint8_t>(first >> 20);
  out.payload_length = load_be<std::uint16_t>(p + 4);
  out.next_header = std::to_integer<std::uint8_t>(p[6]);
  out.hop_limit = std::to_integer<std::uint8_t>(p[7]);
  std::memcpy(out.source.bytes.data(), p + 8, 16);
  std::memcpy(out.destination.bytes.data(), p + 24, 16);
  return out.payload_length > bytes.size() - kIpv6Header ? ParseError::too_short : ParseError::none;
}

// Writes kIpv6Header bytes, flow label 0.
inline void write_ipv6(std::byte* at, const Ipv6Header& h) {
  store_be(at, std::uint32_t{6} << 28 | std::uint32_t{h.traffic_class} << 20);
  store_be(at + 4, h.payload_length);
  at[6] = std::byte{h.next_header};
  at[7] = std::byte{h.hop_limit};
  std::memcpy(at + 8, h.source.bytes.data(), 16);
  std::memcpy(at + 24, h.destination.bytes.data(), 16);
}

}  // namespace mtcp::stack

// IPv4 headers (RFC 791). Options are stepped over and never interpreted.
#pragma once

#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/parse_error.hh"

namespace mtcp::stack {

inline constexpr std::size_t kIpv4Header = 20;  // without options

enum IpProtocol : std::uint8_t { kProtocolIcmp = 1, kProtocolTcp = 6 };

struct Ipv4Header {
  std::uint32_t source = 0;                  // host order
  std::uint32_t destination = 0;             // host order
  std::uint16_t total_length = 0;            // bytes, header included; at most what there is
  std::uint8_t header_length = kIpv4Header;  // bytes
  std::uint8_t protocol = 0;
  std::uint8_t tos = 0;  // DSCP and ECN
  std::uint8_t ttl = 64;
  bool fragment = false;  // a part of a datagram, the first one included
};

namespace ipv4_detail {
inline constexpr std::uint16_t kDontFragment = 0x4000, kFragmentBits = 0x3fff;  // MF and the offset
}

// The fields that do not need the whole datagram to be there: what an ICMP error quotes.
[[nodiscard]] inline ParseError parse_quoted_ipv4(std::span<const std::byte> bytes, Ipv4Header& out) {
  if (bytes.size() < kIpv4Header) return ParseError::too_short;
  const std::byte* p = bytes.data();
  const auto first = std::to_integer<std::uint8_t>(p[0]);
  if (first >> 4 != 4 || (first & 15) < 5) return ParseError::bad_header;
  out.header_length = static_cast<std::uint8_t>((first & 15) * 4);
  if (bytes.size() < out.header_length) return ParseError::too_short;
  out.tos = std::to_integer<std::uint8_t>(p[1]);
  out.total_length = load_be<std::uint16_t>(p + 2);
  if (out.total_length < out.header_length) return ParseError::bad_header;
  out.fragment = (load_be<std::uint16_t>(p + 6) & ipv4_detail::kFragmentBits) != 0;
  out.ttl = std::to_integer<std::uint8_t>(p[8]);
  out.protocol = std::to_integer<std::uint8_t>(p[9]);
  out.source = load_be<std::uint32_t>(p + 12);
  out.destination = load_be<std::uint32_t>(p + 16);
  return ParseError::none;
}

// A whole datagram; bytes may go on behind it (Ethernet padding).
[[nodiscard]] inline ParseError parse_ipv4(std::span<const std::byte> bytes, bool verify_checksum,
                                           Ipv4Header& out) {
  if (const ParseError e = parse_quoted_ipv4(bytes, out); e != ParseError::none) return e;
  if (out.total_length > bytes.size()) return ParseError::too_short;
  if (verify_checksum && !sum_is_good(partial_sum(bytes.data(), out.header_length)))
    return ParseError::bad_checksum;
  return ParseError::none;
}

// Writes kIpv4Header bytes, don't-fragment set and identification 0 (RFC 6864 section 4.1), checksum
// included.
inline void write_ipv4(std::byte* at, const Ipv4Header& h) {
  at[0] = std::byte{0x45};
  at[1] = std::byte{h.tos};
  store_be(at + 2, h.total_length);
  store_be(at + 4, std::uint16_t{0});
  store_be(at + 6, ipv4_detail::kDontFragment);
  at[8] = std::byte{h.ttl};
  at[9] = std::byte{h.protocol};
  store_be(at + 10, std::uint16_t{0});
  store_be(at + 12, h.source);
  store_be(at + 16, h.destination);
  store_checksum(at + 10, partial_sum(at, kIpv4Header));
}

}  // namespace mtcp::stack

// IPv6 headers (RFC 8200). Extension headers are stepped over and never interpreted; none are sent.
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

// What need not be there as a whole: what an ICMPv6 error quotes.
[[nodiscard]] inline ParseError parse_quoted_ipv6(std::span<const std::byte> bytes, Ipv6Header& out) {
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
  return ParseError::none;
}

// A whole packet; bytes may go on behind it (Ethernet padding).
[[nodiscard]] inline ParseError parse_ipv6(std::span<const std::byte> bytes, Ipv6Header& out) {
  if (const ParseError e = parse_quoted_ipv6(bytes, out); e != ParseError::none) return e;
  return out.payload_length > bytes.size() - kIpv6Header ? ParseError::too_short : ParseError::none;
}

// Where the payload begins, and what it is.
struct Ipv6Payload {
  ParseError error = ParseError::none;
  std::size_t offset = 0;  // bytes behind the fixed header
  std::uint8_t protocol = 0;
  bool fragment = false;  // a part of a packet, the first one included
};

// RFC 8200 section 4: from behind the fixed header, whose next header is `next`. What is no extension header is the payload.
[[nodiscard]] inline Ipv6Payload skip_extension_headers(std::span<const std::byte> bytes, std::uint8_t next) {
  constexpr std::uint8_t kHopByHop = 0, kRouting = 43, kFragment = 44, kDestination = 60;
  constexpr unsigned kMost = 8;  // nobody needs more, and a long chain costs time
  Ipv6Payload out;
  for (unsigned i = 0; i <= kMost; ++i) {
    const bool fragment = next == kFragment;
    if (next != kHopByHop && next != kRouting && next != kDestination && !fragment) {
      out.protocol = next;
      return out;
    }
    if (bytes.size() < 8) break;
    const std::size_t length = fragment ? 8 : (std::to_integer<std::size_t>(bytes[1]) + 1) * 8;
    if (length > bytes.size()) break;
    // RFC 8200 section 4.4, RFC 5095: it is to go on to somewhere else.
    if (next == kRouting && bytes[3] != std::byte{0}) break;
    // RFC 6946: one that is all of a packet is no fragment.
    if (fragment) out.fragment = (load_be<std::uint16_t>(bytes.data() + 2) & 0xfff9) != 0;
    next = std::to_integer<std::uint8_t>(bytes[0]);
    out.offset += length;
    bytes = bytes.subspan(length);
    if (out.fragment) return out;
  }
  out.error = ParseError::bad_header;
  return out;
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

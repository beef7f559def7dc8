// ICMPv6 (RFC 4443): the errors that may concern a connection, echo, and neighbour discovery (RFC 4861).
#pragma once

#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/ipv6.hh"
#include "stack/wire/parse_error.hh"

namespace mtcp::stack {

inline constexpr std::size_t kIcmpv6Header = 8;
inline constexpr std::uint8_t kProtocolIcmpv6 = 58;

enum Icmpv6Type : std::uint8_t {
  kIcmpv6Unreachable = 1,
  kIcmpv6PacketTooBig = 2,
  kIcmpv6TimeExceeded = 3,
  kIcmpv6ParameterProblem = 4,
  kIcmpv6EchoRequest = 128,
  kIcmpv6EchoReply = 129,
  kNeighbourSolicitation = 135,
  kNeighbourAdvertisement = 136,
};

struct Icmpv6Header {
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint32_t mtu = 0;  // meaningful for packet too big only
};

// A whole ICMPv6 message that came with `ip`; what it quotes begins at kIcmpv6Header.
[[nodiscard]] inline ParseError parse_icmpv6(std::span<const std::byte> bytes, const Ipv6Header& ip,
                                             Icmpv6Header& out) {
  if (bytes.size() < kIcmpv6Header) return ParseError::too_short;
  const std::uint64_t sum = sum_of_pseudo_header(ip.source, ip.destination, false, kProtocolIcmpv6, bytes.size());
  if (!sum_is_good(sum + partial_sum(bytes.data(), bytes.size()))) return ParseError::bad_checksum;
  out.type = std::to_integer<std::uint8_t>(bytes[0]);
  out.code = std::to_integer<std::uint8_t>(bytes[1]);
  out.mtu = load_be<std::uint32_t>(bytes.data() + 4);
  return ParseError::none;
}

}  // namespace mtcp::stack

// ICMP for IPv4 (RFC 792): echo, and the errors that may concern a connection.
#pragma once

#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/parse_error.hh"

namespace mtcp::stack {

inline constexpr std::size_t kIcmpHeader = 8;

enum IcmpType : std::uint8_t {
  kIcmpEchoReply = 0,
  kIcmpUnreachable = 3,
  kIcmpEchoRequest = 8,
  kIcmpTimeExceeded = 11,
  kIcmpParameterProblem = 12,
};
inline constexpr std::uint8_t kIcmpReassemblyTime = 1;       // code of kIcmpTimeExceeded
inline constexpr std::uint8_t kIcmpFragmentationNeeded = 4;  // code of kIcmpUnreachable
inline constexpr std::uint8_t kIcmpLastUnreachable = 15;     // the highest that there is (RFC 1812 section 5.2.7.1)

struct IcmpHeader {
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint16_t mtu = 0;  // RFC 1191 section 4; meaningful for fragmentation needed only
};

// A whole ICMP message; what it quotes or echoes begins at kIcmpHeader.
[[nodiscard]] inline ParseError parse_icmp(std::span<const std::byte> bytes, bool verify_checksum,
                                           IcmpHeader& out) {
  if (bytes.size() < kIcmpHeader) return ParseError::too_short;
  if (verify_checksum && !sum_is_good(partial_sum(bytes.data(), bytes.size())))
    return ParseError::bad_checksum;
  out.type = std::to_integer<std::uint8_t>(bytes[0]);
  out.code = std::to_integer<std::uint8_t>(bytes[1]);
  out.mtu = load_be<std::uint16_t>(bytes.data() + 6);
  return ParseError::none;
}

}  // namespace mtcp::stack

// TCP options: MSS (RFC 9293 3.7.1), window scale and timestamps (RFC 7323), SACK (RFC 2018).
#pragma once

#include <array>
#include <span>

#include "stack/wire/segment.hh"

namespace mtcp::stack {

inline constexpr std::size_t kMaxTcpOptions = 40;
inline constexpr std::uint8_t kMaxWindowScale = 14;  // RFC 7323 section 2.3

enum TcpOptionKind : std::uint8_t {
  kOptionEnd = 0,
  kOptionNop = 1,
  kOptionMss = 2,
  kOptionWindowScale = 3,
  kOptionSackPermitted = 4,
  kOptionSack = 5,
  kOptionTimestamps = 8,
  kOptionFastOpen = 34,
  kOptionExperiment = 254,  // RFC 6994: a magic number says of what
};

inline constexpr std::uint16_t kFastOpenMagic = 0xf989;

// What a Fast Open option carries (RFC 7413 section 4.1.1): a cookie, or nothing, which asks for one.
struct FastOpenCookie {
  std::uint8_t length = 0;  // even; 0: a request, else 4 to 16
  std::array<std::byte, 16> bytes{};
  bool experimental = false;  // the option is RFC 6994's, as Fast Open had it before it had a number
  [[nodiscard]] bool is(const FastOpenCookie& other) const { return length == other.length && bytes == other.bytes; }
};
// The option of a received SYN, whose packet has been cut to its payload. False: there is none, or it is malformed.
[[nodiscard]] bool read_fast_open(const Segment& s, FastOpenCookie& out);

// Reads everything between the fixed header and the payload. `syn`: MSS, window scale and SACK-permitted
// count only there. An option of a known kind with another length than its own is skipped; one of length 0 or
// 1, or that runs past the end, is the last that is looked at (RFC 9293 MUST-7): the segment counts without it, as in
// Linux. False: there was one.
bool parse_tcp_options(std::span<const std::byte> bytes, bool syn, TcpOptions& out);

}  // namespace mtcp::stack

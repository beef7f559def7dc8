// TCP headers (RFC 9293 section 3.1): the one place where received ones are taken apart, and where ours are
// written.
#pragma once

#include <cstdint>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/parse_error.hh"
#include "stack/wire/segment.hh"
#include "stack/wire/tcp_options.hh"

namespace mtcp::stack {

inline constexpr std::size_t kTcpHeader = 20;  // without options
inline constexpr std::size_t kTcpFlagsOffset = 13;
inline constexpr std::size_t kTcpChecksumOffset = 16;
inline constexpr std::size_t kTcpUrgentOffset = 18;
inline constexpr std::size_t kTimestampsLength = 12;  // with two NOPs in front

// Takes a packet apart that begins at the TCP header and ends with the segment. On success the packet has
// been cut to its payload, its `seq` is that of the first payload byte, and `out` holds it. On failure
// nothing has been changed and the packet stays the caller's. `ecn` is left to the caller.
[[nodiscard]] ParseError parse_tcp(Packet* p, const IpAddress& source, const IpAddress& destination,
                                   bool verify_checksum, Segment& out);

// A header to write. Options come out in Linux's order, which keeps them aligned.
struct TcpHeader {
  std::uint16_t source_port = 0, destination_port = 0;  // host order
  Seq seq, ack;
  std::uint8_t flags = 0;    // TcpFlag bits
  std::uint16_t window = 0;  // as on the wire
  bool timestamps = false;
  std::uint32_t ts_val = 0, ts_ecr = 0;
  std::uint16_t mss = 0;        // 0: no option
  int window_scale = -1;        // -1: no option
  bool sack_permitted = false;
  const FastOpenCookie* fast_open = nullptr;  // null: no option
  std::uint8_t sack_count = 0;  // blocks that follow; at most 4, at most 3 with timestamps
  std::array<SackBlock, 4> sack{};
};

// Bytes that write_tcp() will write: a multiple of 4, at most 60.
[[nodiscard]] std::size_t tcp_header_length(const TcpHeader& h);
// Writes the header with a checksum of zero; returns its length.
std::size_t write_tcp(std::byte* at, const TcpHeader& h);

// Bytes of a SACK option with that many blocks, NOPs in front included.
[[nodiscard]] constexpr std::size_t sack_option_length(std::size_t blocks) { return 4 + 8 * blocks; }
// Writes one, of a block at least.
void write_sack_option(std::byte* at, std::span<const SackBlock> blocks);
// Behind a header that has been written, options of so many bytes belong to it.
void lengthen_header(std::byte* header, std::size_t bytes);

// The header of an ordinary segment: no option but timestamps. Writes 20 or 32 bytes with a checksum of zero.
inline std::size_t write_tcp_plain(std::byte* at, std::uint16_t source_port, std::uint16_t destination_port,
                                   Seq seq, Seq ack, std::uint8_t flags, std::uint16_t window,
                                   bool timestamps, std::uint32_t ts_val, std::uint32_t ts_ecr) {
  const std::size_t length = timestamps ? kTcpHeader + kTimestampsLength : kTcpHeader;
  store_be(at, source_port);
  store_be(at + 2, destination_port);
  store_be(at + 4, seq.value());
  store_be(at + 8, ack.value());
  store_be(at + 12, static_cast<std::uint16_t>(length / 4 << 12 | flags));
  store_be(at + 14, window);
  store_be(at + 16, std::uint32_t{0});  // checksum and urgent pointer
  if (timestamps) {
    store_be(at + 20, std::uint32_t{0x0101080a});
    store_be(at + 24, ts_val);
    store_be(at + 28, ts_ecr);
  }
  return length;
}

}  // namespace mtcp::stack

#include "stack/wire/tcp_header.hh"

#include <cassert>
#include <cstring>

namespace mtcp::stack {
namespace {

void put_key(Segment& out, const std::byte* header, const IpAddress& source, const IpAddress& destination) {
  out.key.local = destination;
  out.key.remote = source;
  out.key.remote_port = load_be<std::uint16_t>(header);
  out.key.local_port = load_be<std::uint16_t>(header + 2);
}

std::byte* put_option(std::byte* at, std::uint8_t kind, std::uint8_t length) {
  at[0] = std::byte{kind};
  at[1] = std::byte{length};
  return at + 2;
}

std::byte* put_nop(std::byte* at) {
  *at = std::byte{kOptionNop};
  return at + 1;
}

// Behind all others, and filled up to whole words behind it.
std::byte* put_fast_open(std::byte* at, const FastOpenCookie& cookie) {
  if (cookie.experimental) {
    at = put_option(at, kOptionExperiment, static_cast<std::uint8_t>(4 + cookie.length));
    store_be(at, kFastOpenMagic);
    at += 2;
  } else {
    at = put_option(at, kOptionFastOpen, static_cast<std::uint8_t>(2 + cookie.length));
  }
  std::memcpy(at, cookie.bytes.data(), cookie.length);
  at += cookie.length;
  return cookie.length % 4 == (cookie.experimental ? 2 : 0) ? put_nop(put_nop(at)) : at;
}

std::byte* put_sack(std::byte* at, std::span<const SackBlock> blocks) {
  at = put_option(put_nop(put_nop(at)), kOptionSack, static_cast<std::uint8_t>(2 + 8 * blocks.size()));
  for (const SackBlock& b : blocks) {
    store_be(at, b.begin.value());
    store_be(at + 4, b.end.value());
    at += 8;
  }
  return at;
}

// In the order of Linux, which middleboxes and those who look at fingerprints know: MSS, SACK-permitted in place of the
// NOPs in front of timestamps (or behind two of its own), timestamps, window scale.
std::byte* put_options(std::byte* at, const TcpHeader& h) {
  if (h.mss != 0) {
    at = put_option(at, kOptionMss, 4);
    store_be(at, h.mss);
    at += 2;
  }
  if (h.timestamps || h.sack_permitted) {
    if (!h.timestamps || !h.sack_permitted) at = put_nop(put_nop(at));
    if (h.sack_permitted) at = put_option(at, kOptionSackPermitted, 2);
  }
  if (h.timestamps) {
    at = put_option(at, kOptionTimestamps, 10);
    store_be(at, h.ts_val);
    store_be(at + 4, h.ts_ecr);
    at += 8;
  }
  if (h.window_scale >= 0) {
    at = put_option(put_nop(at), kOptionWindowScale, 3);
    *at++ = static_cast<std::byte>(h.window_scale);
  }
  if (h.fast_open != nullptr) at = put_fast_open(at, *h.fast_open);
  return h.sack_count != 0 ? put_sack(at, std::span(h.sack).first(h.sack_count)) : at;
}

}  // namespace

ParseError parse_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, bool verify_checksum,
                     Segment& out) {
  const std::size_t length = p->len;
  if (length < kTcpHeader) return ParseError::too_short;
  const std::byte* h = p->data;
  const auto offset_and_flags = load_be<std::uint16_t>(h + 12);
  const std::size_t header = std::size_t{offset_and_flags} >> 12 << 2;
  if (header < kTcpHeader) return ParseError::bad_header;
  if (header > length) return ParseError::too_short;
  if (verify_checksum && !sum_is_good(sum_of_pseudo_header(source, destination, source.is_v4(), 6, length) +
                                      partial_sum(h, length))) {
    return ParseError::bad_checksum;
  }
  const auto flags = static_cast<std::uint8_t>(offset_and_flags);
  TcpOptions options;
  if (header > kTcpHeader) {
    const auto bytes = std::span<const std::byte>(h + kTcpHeader, header - kTcpHeader);
    (void)parse_tcp_options(bytes, (flags & kSyn) != 0, options);
  }
  put_key(out, h, source, destination);
  out.seq = Seq(load_be<std::uint32_t>(h + 4));
  out.ack = Seq(load_be<std::uint32_t>(h + 8));
  out.window = load_be<std::uint16_t>(h + 14);
  out.len = static_cast<std::uint32_t>(length - header);
  out.flags = flags;
  if ((flags & kUrg) != 0) [[unlikely]] out.urgent = load_be<std::uint16_t>(h + kTcpUrgentOffset);
  out.options = options;
  out.packet = p;
  p->pull(header);
  p->seq = out.seq + ((flags & kSyn) != 0 ? 1U : 0U);
  return ParseError::none;
}

std::size_t tcp_header_length(const TcpHeader& h) {
  std::size_t options = 0;
  if (h.mss != 0) options += 4;
  if (h.window_scale >= 0) options += 4;
  if (h.timestamps)
    options += kTimestampsLength;
  else if (h.sack_permitted)
    options += 4;
  if (h.fast_open != nullptr) options += ((h.fast_open->experimental ? 4U : 2U) + h.fast_open->length + 3) / 4 * 4;
  if (h.sack_count != 0) options += sack_option_length(h.sack_count);
  assert(options <= kMaxTcpOptions);
  return kTcpHeader + options;
}

std::size_t write_tcp(std::byte* at, const TcpHeader& h) {
  assert(h.sack_count <= h.sack.size());
  write_tcp_plain(at, h.source_port, h.destination_port, h.seq, h.ack, h.flags, h.window, false, 0, 0);
  const auto length = static_cast<std::size_t>(put_options(at + kTcpHeader, h) - at);
  assert(length == tcp_header_length(h));
  at[12] = static_cast<std::byte>(length / 4 << 4);
  return length;
}

void write_sack_option(std::byte* at, std::span<const SackBlock> blocks) { put_sack(at, blocks); }

void lengthen_header(std::byte* header, std::size_t bytes) {
  const std::size_t length = (std::to_integer<std::size_t>(header[12]) >> 4) * 4 + bytes;
  assert(length <= kTcpHeader + kMaxTcpOptions);
  header[12] = static_cast<std::byte>(length / 4 << 4);
}

}  // namespace mtcp::stack

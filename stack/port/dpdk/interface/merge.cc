#include "stack/port/dpdk/interface/merge.hh"

#include <algorithm>
#include <cstring>

#include "stack/base/bytes.hh"
#include "stack/packet/external.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/frame.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::size_t kMostIp = 65535;  // bytes: what the length field of IPv4 can say
constexpr std::uint8_t kFin = 0x01, kPsh = 0x08, kAck = 0x10;

std::uint8_t flags_of(const Packet& p, const MergedFrame& f) {
  return tcp_flags(p.data + f.tcp);
}

bool same(const std::byte* a, const std::byte* b, std::size_t from, std::size_t to) {
  return std::memcmp(a + from, b + from, to - from) == 0;
}

// Where the headers of a TCP segment lie; `headers` is 0 if it is none, or not a plain one.
MergedFrame analyse(const Packet& p) {
  MergedFrame f{.packets = 1};
  if ((p.flags & kTxL4Offload) == 0) return f;
  const TcpLayout at = find_tcp({p.data, p.len});
  if (at.headers == 0 || at.length != p.len) return f;
  f.v4 = at.v4;
  f.ip = at.ip;
  f.tcp = at.tcp;
  f.headers = at.headers;
  f.payload = f.segment = p.len - at.headers;
  if ((p.flags & kExternal) != 0) {
    if (const std::size_t segment = external_of(p).segment; segment != 0) f.segment = std::min(f.segment, segment);
  }
  return f;
}

// Everything that the parts have in common: not the lengths, the checksums, the sequence number, the flags.
// Nor the identification, which means nothing where fragmentation is forbidden (RFC 6864 section 4.1).
bool same_headers(const MergedFrame& f, const Packet& a, const Packet& b) {
  const std::size_t length = f.ip + (f.v4 ? 2 : 4), after_length = f.ip + 6;
  if (!same(a.data, b.data, 0, length) || !same(a.data, b.data, after_length, f.v4 ? f.ip + 10 : f.tcp))
    return false;
  return (!f.v4 || same(a.data, b.data, f.ip + 12, f.tcp)) && same(a.data, b.data, f.tcp, f.tcp + 4) &&
         same(a.data, b.data, f.tcp + 8, f.tcp + 13) && same(a.data, b.data, f.tcp + 14, f.tcp + 16) &&
         same(a.data, b.data, f.tcp + 18, f.headers);
}

// Whether a segment may be the first of several: of IPv4, no options and no fragmentation on the way.
bool may_begin(const MergedFrame& f, const Packet& p) {
  if (f.payload == 0 || (flags_of(p, f) & ~kPsh) != kAck) return false;
  return !f.v4 || is_plain_and_whole(p.data + f.ip);
}

}  // namespace

MergedFrame merge(std::span<const Packet* const> packets) {
  const Packet& first = *packets.front();
  MergedFrame f = analyse(first);
  if (f.headers == 0 || !may_begin(f, first)) return f;
  const std::uint32_t seq = sequence_number(first.data + f.tcp);
  // Only the last one may be short, or end a write or the stream; but part of a file may follow on anything, such as a response's
  // header: the receiver may have both in one piece, and the boundary between them elsewhere.
  bool ended = flags_of(first, f) != kAck;
  while (f.packets < packets.size()) {
    const Packet& p = *packets[f.packets];
    const bool external = (p.flags & kExternal) != 0;
    if (ended && !external) break;
    const MergedFrame g = analyse(p);
    if (g.headers != f.headers || g.v4 != f.v4 || g.tcp != f.tcp || g.payload == 0 || (g.payload > f.segment && !external))
      break;
    if (f.size() + g.payload > f.ip + kMostIp || !same_headers(f, first, p)) break;
    if (sequence_number(p.data + f.tcp) != static_cast<std::uint32_t>(seq + f.payload)) break;
    const std::uint8_t flags = flags_of(p, f);
    if ((flags & ~(kPsh | kFin)) != kAck) break;
    f.payload += g.payload;
    ++f.packets;
    ended = g.payload < f.segment || flags != kAck;
    if (g.segment > f.segment) f.segment = g.segment;
    if ((flags & kFin) != 0) break;
  }
  return f;
}

void write_merged_headers(const MergedFrame& merged, std::span<const Packet* const> packets, std::byte* out) {
  std::memcpy(out, packets.front()->data, merged.headers);
  std::byte* ip = out + merged.ip;
  std::byte* tcp = out + merged.tcp;
  const auto segment = static_cast<std::uint16_t>(merged.size() - merged.tcp);
  if (merged.v4) {
    store_be<std::uint16_t>(ip + 2, static_cast<std::uint16_t>(merged.size() - merged.ip));
    store_be<std::uint16_t>(ip + 10, 0);
    store_checksum(ip + 10, partial_sum(ip, kIpv4Header));
  } else {
    store_be<std::uint16_t>(ip + 4, segment);
  }
  store_checksum(tcp + kTcpChecksumOffset, ~fold_sum(sum_of_pseudo_header(ip, merged.v4, segment)) & 0xffff);
  tcp[kTcpFlagsOffset] = std::byte{flags_of(*packets[merged.packets - 1], merged)};
}

}  // namespace mtcp::stack::dpdk

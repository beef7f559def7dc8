#include "stack/port/dpdk/interface/split.hh"

#include <algorithm>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/frame.hh"
#include "stack/wire/ipv6.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::uint8_t kFin = 0x01, kPsh = 0x08, kCwr = 0x80;

}  // namespace

LargeFrame analyse_large(std::span<const std::byte> start, std::size_t length, std::size_t mtu) {
  const TcpLayout at = find_tcp(start);
  if (at.headers == 0 || at.length != length || length <= at.headers || mtu + kEthernetHeader <= at.headers) return {};
  return {.headers = at.headers,
          .tcp = at.tcp,
          .payload = length - at.headers,
          .segment = mtu + kEthernetHeader - at.headers,
          .v4 = at.v4};
}

void write_piece_headers(const LargeFrame& large, std::size_t index, std::byte* headers) {
  std::byte* ip = headers + kEthernetHeader;
  const std::size_t offset = index * large.segment;
  const std::size_t payload = std::min(large.segment, large.payload - offset);
  const auto ip_length = static_cast<std::uint16_t>(large.headers - kEthernetHeader + payload);
  std::byte* tcp = headers + large.tcp;
  if (large.v4) {
    store_be<std::uint16_t>(ip + 2, ip_length);
    store_be<std::uint16_t>(ip + 4, static_cast<std::uint16_t>(load_be<std::uint16_t>(ip + 4) + index));
    store_be<std::uint16_t>(ip + 10, 0);
    const auto checksum = static_cast<std::uint16_t>(~fold_sum(partial_sum(ip, large.tcp - kEthernetHeader)));
    std::memcpy(ip + 10, &checksum, sizeof checksum);
  } else {
    store_be<std::uint16_t>(ip + 4, static_cast<std::uint16_t>(ip_length - kIpv6Header));
  }
  store_be<std::uint32_t>(tcp + 4, static_cast<std::uint32_t>(sequence_number(tcp) + offset));
  std::uint8_t flags = tcp_flags(tcp);
  // RFC 3168 section 6.1.2: CWR once; the end of the stream and of a write at the end only.
  if (index > 0) flags = static_cast<std::uint8_t>(flags & ~kCwr);
  if (index + 1 < large.pieces()) flags = static_cast<std::uint8_t>(flags & ~(kFin | kPsh));
  tcp[kTcpFlagsOffset] = std::byte{flags};
}

}  // namespace mtcp::stack::dpdk

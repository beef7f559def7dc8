#include "stack/port/dpdk/interface/split.hh"

#include <algorithm>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv6 = 40;
constexpr std::byte kTcp{6};
constexpr std::uint8_t kFin = 0x01, kPsh = 0x08, kCwr = 0x80;

}  // namespace

LargeFrame analyse_large(std::span<const std::byte> start, std::size_t length, std::size_t mtu) {
  LargeFrame large;
  if (start.size() < kEthernet + 20) return {};
  const std::byte* ip = start.data() + kEthernet;
  std::size_t ip_header = 0, ip_length = 0;
  const auto type = load_be<std::uint16_t>(start.data() + 12);
  if (type == 0x0800 && ip[9] == kTcp && (load_be<std::uint16_t>(ip + 6) & 0x3fff) == 0) {
    large.v4 = true;
    ip_header = static_cast<std::size_t>(ip[0] & std::byte{0x0f}) * 4;
    ip_length = load_be<std::uint16_t>(ip + 2);
    if (ip_header < 20) return {};
  } else if (type == 0x86dd && start.size() >= kEthernet + kIpv6 && ip[6] == kTcp) {
    ip_header = kIpv6;
    ip_length = kIpv6 + load_be<std::uint16_t>(ip + 4);
  }
  const std::size_t tcp = kEthernet + ip_header;
  if (ip_header == 0 || start.size() < tcp + 20) return {};
  const std::size_t tcp_header = (std::to_integer<std::size_t>(start[tcp + 12]) >> 4) * 4;
  const std::size_t headers = tcp + tcp_header;
  if (tcp_header < 20 || start.size() < headers || kEthernet + ip_length != length || length <= headers)
    return {};
  if (mtu + kEthernet <= headers) return {};
  large.headers = headers;
  large.tcp = tcp;
  large.payload = length - headers;
  large.segment = mtu + kEthernet - headers;
  return large;
}

void write_piece_headers(const LargeFrame& large, std::size_t index, std::byte* headers) {
  std::byte* ip = headers + kEthernet;
  const std::size_t offset = index * large.segment;
  const std::size_t payload = std::min(large.segment, large.payload - offset);
  const auto ip_length = static_cast<std::uint16_t>(large.headers - kEthernet + payload);
  std::byte* tcp = headers + large.tcp;
  if (large.v4) {
    store_be<std::uint16_t>(ip + 2, ip_length);
    store_be<std::uint16_t>(ip + 4, static_cast<std::uint16_t>(load_be<std::uint16_t>(ip + 4) + index));
    store_be<std::uint16_t>(ip + 10, 0);
    const auto checksum = static_cast<std::uint16_t>(~fold_sum(partial_sum(ip, large.tcp - kEthernet)));
    std::memcpy(ip + 10, &checksum, sizeof checksum);
  } else {
    store_be<std::uint16_t>(ip + 4, static_cast<std::uint16_t>(ip_length - kIpv6));
  }
  store_be<std::uint32_t>(tcp + 4, static_cast<std::uint32_t>(load_be<std::uint32_t>(tcp + 4) + offset));
  std::uint8_t flags = std::to_integer<std::uint8_t>(tcp[13]);
  // RFC 3168 section 6.1.2: CWR once; the end of the stream and of a write at the end only.
  if (index > 0) flags = static_cast<std::uint8_t>(flags & ~kCwr);
  if (index + 1 < large.pieces()) flags = static_cast<std::uint8_t>(flags & ~(kFin | kPsh));
  tcp[13] = std::byte{flags};
}

}  // namespace mtcp::stack::dpdk

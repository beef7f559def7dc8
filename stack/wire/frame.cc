#include "stack/wire/frame.hh"

#include <cstring>
#include <utility>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/icmpv6.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/ipv6.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint16_t kFragmentOffset = 0x1fff, kMoreFragments = 0x2000;
constexpr std::size_t kIcmpHeader = 8;

std::uint8_t byte_at(std::span<const std::byte> b, std::size_t at) { return std::to_integer<std::uint8_t>(b[at]); }
std::uint16_t word_at(std::span<const std::byte> b, std::size_t at) { return load_be<std::uint16_t>(&b[at]); }
std::uint32_t long_at(std::span<const std::byte> b, std::size_t at) { return load_be<std::uint32_t>(&b[at]); }

// An IPv4 header's length, or 0 if the bytes are no header.
std::size_t ipv4_header_length(std::span<const std::byte> ip) {
  if (ip.size() < kIpv4Header || byte_at(ip, 0) >> 4 != 4) return 0;
  const std::size_t length = std::size_t{byte_at(ip, 0)} % 16 * 4;
  return length < kIpv4Header || length > ip.size() ? 0 : length;
}

bool tells_address(std::span<const std::byte> arp) {
  constexpr std::uint16_t kReply = 2;
  return arp.size() >= 28 && (word_at(arp, 6) == kReply || long_at(arp, 14) == long_at(arp, 24));
}

// It has no extension headers in front.
bool is_neighbour_advertisement(std::span<const std::byte> ip) {
  constexpr std::uint8_t kAdvertisement = 136;
  return ip.size() > kIpv6Header && byte_at(ip, 6) == kProtocolIcmpv6 && byte_at(ip, kIpv6Header) == kAdvertisement;
}

bool is_icmp_error(std::uint8_t type) { return type == 3 || type == 4 || type == 5 || type == 11 || type == 12; }
bool is_icmpv6_error(std::uint8_t type) { return type >= 1 && type <= 4; }

FlowHeaders flow_of_v4(std::span<const std::byte> ip, bool quoted) {
  const std::size_t length = ipv4_header_length(ip);
  if (length == 0 || (word_at(ip, 6) & kFragmentOffset) != 0) return {};
  const auto payload = ip.subspan(length);
  if (byte_at(ip, 9) == kProtocolTcp) return {payload.size() >= 4, true, quoted, ip, payload};
  if (quoted || byte_at(ip, 9) != kProtocolIcmp || payload.size() < kIcmpHeader || !is_icmp_error(byte_at(payload, 0))) return {};
  return flow_of_v4(payload.subspan(kIcmpHeader), true);
}

FlowHeaders flow_of_v6(std::span<const std::byte> ip, bool quoted) {
  if (ip.size() < kIpv6Header || byte_at(ip, 0) >> 4 != 6) return {};
  const auto behind = ip.subspan(kIpv6Header);
  const Ipv6Payload found = skip_extension_headers(behind, byte_at(ip, 6));
  if (found.error != ParseError::none || found.fragment) return {};
  const auto payload = behind.subspan(found.offset);
  if (found.protocol == kProtocolTcp) return {payload.size() >= 4, false, quoted, ip, payload};
  if (quoted || found.protocol != kProtocolIcmpv6 || payload.size() < kIcmpHeader || !is_icmpv6_error(byte_at(payload, 0)))
    return {};
  return flow_of_v6(payload.subspan(kIcmpHeader), true);
}

}  // namespace

// RFC 1624: the word that the flags are in becomes larger by one.
void add_fin(std::byte* tcp, bool whole_sum) {
  constexpr std::byte kFinFlag{0x01};
  tcp[kTcpFlagsOffset] |= kFinFlag;
  if (!whole_sum) return;
  const std::uint32_t sum = (~load_be<std::uint16_t>(tcp + kTcpChecksumOffset) & 0xffffU) + 1;
  store_be<std::uint16_t>(tcp + kTcpChecksumOffset, static_cast<std::uint16_t>(~(sum + (sum >> 16))));
}

bool is_plain_and_whole(const std::byte* ip) {
  return ip[0] == std::byte{0x40 | kIpv4Header / 4} && (load_be<std::uint16_t>(ip + 6) & ipv4_detail::kDontFragment) != 0;
}

TcpLayout find_tcp(std::span<const std::byte> start) {
  TcpLayout f;
  if (start.size() < kEthernetHeader + kIpv4Header + kTcpHeader) return f;
  const auto ip = start.subspan(kEthernetHeader);
  std::size_t header = 0;
  switch (word_at(start, 12)) {
    case kEtherIpv4:
      if (byte_at(ip, 9) != kProtocolTcp || (word_at(ip, 6) & (kFragmentOffset | kMoreFragments)) != 0) return f;
      header = ipv4_header_length(ip);
      f.length = kEthernetHeader + word_at(ip, 2);
      f.v4 = true;
      break;
    case kEtherIpv6:
      if (byte_at(ip, 6) != kProtocolTcp) return f;
      header = kIpv6Header;
      f.length = kEthernetHeader + kIpv6Header + word_at(ip, 4);
      break;
    default:
      return f;
  }
  const std::size_t tcp = kEthernetHeader + header;
  if (header == 0 || start.size() < tcp + kTcpHeader) return f;
  const std::size_t tcp_header = std::size_t{byte_at(start, tcp + 12)} / 16 * 4;
  if (tcp_header < kTcpHeader || start.size() < tcp + tcp_header || f.length < tcp + tcp_header) return f;
  f.ip = kEthernetHeader;
  f.tcp = tcp;
  f.headers = tcp + tcp_header;
  return f;
}

std::uint64_t sum_of_pseudo_header(const std::byte* ip, bool v4, std::size_t length) {
  const std::uint32_t addresses = v4 ? partial_sum(ip + 12, 8) : partial_sum(ip + 8, 32);
  return std::uint64_t{addresses} + sum_of_field(kProtocolTcp) + sum_of_field(static_cast<std::uint16_t>(length));
}

FlowHeaders find_flow_headers(std::span<const std::byte> frame) {
  if (frame.size() < kEthernetHeader) return {};
  const std::uint16_t type = word_at(frame, 12);
  if (type == kEtherIpv4) return flow_of_v4(frame.subspan(kEthernetHeader), false);
  return type == kEtherIpv6 ? flow_of_v6(frame.subspan(kEthernetHeader), false) : FlowHeaders{};
}

FlowKey FlowHeaders::key() const {
  const auto v4_at = [&](std::size_t at) { return IpAddress::v4(long_at(ip, at)); };
  const auto v6_at = [&](std::size_t at) {
    IpAddress a;
    std::memcpy(a.bytes.data(), &ip[at], a.bytes.size());
    return a;
  };
  FlowKey key{v4 ? v4_at(16) : v6_at(24), v4 ? v4_at(12) : v6_at(8), word_at(tcp, 2), word_at(tcp, 0)};
  if (quoted) {
    std::swap(key.local, key.remote);
    std::swap(key.local_port, key.remote_port);
  }
  return key;
}

bool tells_address_to_all(std::span<const std::byte> frame) {
  if (frame.size() < kEthernetHeader) return false;
  const auto packet = frame.subspan(kEthernetHeader);
  const std::uint16_t type = word_at(frame, 12);
  return type == kEtherArp ? tells_address(packet) : type == kEtherIpv6 && is_neighbour_advertisement(packet);
}

}  // namespace mtcp::stack

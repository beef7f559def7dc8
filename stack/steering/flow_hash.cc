#include "stack/steering/flow_hash.hh"

#include <cassert>
#include <cstring>
#include <utility>

#include "stack/base/siphash.hh"
#include "stack/wire/icmpv6.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/ipv6.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::uint16_t kTypeIpv4 = 0x0800, kTypeArp = 0x0806, kTypeIpv6 = 0x86dd;

std::uint8_t byte_at(std::span<const std::byte> b, std::size_t at) { return std::to_integer<std::uint8_t>(b[at]); }
std::uint16_t word_at(std::span<const std::byte> b, std::size_t at) {
  return static_cast<std::uint16_t>(byte_at(b, at) << 8 | byte_at(b, at + 1));
}
std::uint32_t long_at(std::span<const std::byte> b, std::size_t at) {
  return std::uint32_t{word_at(b, at)} << 16 | word_at(b, at + 2);
}

// An IPv4 header's length, or 0 if the bytes are no header or a later fragment.
std::size_t header_length(std::span<const std::byte> ip) {
  if (ip.size() < 20 || byte_at(ip, 0) >> 4 != 4) return 0;
  const std::size_t length = std::size_t{byte_at(ip, 0)} % 16 * 4;
  constexpr std::uint16_t kFragmentOffset = 0x1fff;
  return length < 20 || length > ip.size() || (word_at(ip, 6) & kFragmentOffset) != 0 ? 0 : length;
}

// RFC 826: a reply, or an announcement (sender and target are the same). A question is answered by whoever gets it.
bool tells_an_address(std::span<const std::byte> arp) {
  constexpr std::uint16_t kReply = 2;
  return arp.size() >= 28 && (word_at(arp, 6) == kReply || long_at(arp, 14) == long_at(arp, 24));
}

// RFC 4861: a neighbour advertisement, which has no extension headers in front.
bool tells_an_address_v6(std::span<const std::byte> ip) {
  constexpr std::uint8_t kAdvertisement = 136;
  return ip.size() > kIpv6Header && byte_at(ip, 6) == kProtocolIcmpv6 && byte_at(ip, kIpv6Header) == kAdvertisement;
}

bool is_icmp_error(std::uint8_t type) { return type == 3 || type == 4 || type == 5 || type == 11 || type == 12; }
bool is_icmpv6_error(std::uint8_t type) { return type >= 1 && type <= 4; }

// The headers that say whose flow a frame belongs to: its own, or those that an ICMP error quotes (RFC 792, RFC 4443). What
// was ours in these is the source.
struct Flow {
  bool found = false, v4 = false, quoted = false;
  std::span<const std::byte> ip, tcp;  // of the latter the ports at least
};

Flow flow_of_v4(std::span<const std::byte> ip, bool quoted) {
  const std::size_t length = header_length(ip);
  if (length == 0) return {};
  const auto payload = ip.subspan(length);
  if (byte_at(ip, 9) == kProtocolTcp) return {payload.size() >= 4, true, quoted, ip, payload};
  if (quoted || byte_at(ip, 9) != kProtocolIcmp || payload.size() < 8 || !is_icmp_error(byte_at(payload, 0))) return {};
  return flow_of_v4(payload.subspan(8), true);
}

Flow flow_of_v6(std::span<const std::byte> ip, bool quoted) {
  if (ip.size() < kIpv6Header || byte_at(ip, 0) >> 4 != 6) return {};
  const auto behind = ip.subspan(kIpv6Header);
  const Ipv6Payload found = skip_extension_headers(behind, byte_at(ip, 6));
  if (found.error != ParseError::none || found.fragment) return {};
  const auto payload = behind.subspan(found.offset);
  if (found.protocol == kProtocolTcp) return {payload.size() >= 4, false, quoted, ip, payload};
  if (quoted || found.protocol != kProtocolIcmpv6 || payload.size() < 8 || !is_icmpv6_error(byte_at(payload, 0))) return {};
  return flow_of_v6(payload.subspan(8), true);
}

Flow flow_of(std::span<const std::byte> frame) {
  const std::uint16_t type = word_at(frame, 12);
  if (type == kTypeIpv4) return flow_of_v4(frame.subspan(kEthernet), false);
  return type == kTypeIpv6 ? flow_of_v6(frame.subspan(kEthernet), false) : Flow{};
}

// As of a segment that has come in. Of one of IPv6 that was found.
FlowKey key_of(const Flow& flow) {
  const auto address = [&](std::size_t at) {
    IpAddress a;
    std::memcpy(a.bytes.data(), &flow.ip[at], a.bytes.size());
    return a;
  };
  FlowKey key{address(24), address(8), word_at(flow.tcp, 2), word_at(flow.tcp, 0)};
  if (flow.quoted) {
    std::swap(key.local, key.remote);
    std::swap(key.local_port, key.remote_port);
  }
  return key;
}

}  // namespace

FlowHash::FlowHash(const Key& key) {
  // Bit i of the input selects the 32 bits of the key that begin at bit i.
  const auto window = [&key](std::size_t bit) {
    std::uint32_t w = 0;
    for (std::size_t i = 0; i < 32; ++i)
      w = w << 1 | (key[(bit + i) / 8] >> (7 - (bit + i) % 8) & 1U);
    return w;
  };
  for (std::size_t half = 0; half < table_.size(); ++half)
    for (std::uint32_t value = 0; value < 16; ++value) {
      std::uint32_t& sum = table_[half][value] = 0;
      for (std::size_t bit = 0; bit < 4; ++bit)
        if ((value >> (3 - bit) & 1) != 0) sum ^= window(half * 4 + bit);
    }
}

FlowHash::Key FlowHash::make_key(const std::array<std::uint64_t, 4>& secrets) {
  Key key;
  const SipKey sip{secrets[0] ^ secrets[2], secrets[1] ^ secrets[3]};
  for (std::size_t i = 0; i < key.size(); ++i)
    key[i] = static_cast<std::uint8_t>(siphash_words<2, 4>(sip, std::uint64_t{0x5455'0000} + i));
  return key;
}

std::uint32_t FlowHash::of(std::span<const std::byte> input) const {
  assert(input.size() <= kInput);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < input.size(); ++i) {
    const auto b = std::to_integer<std::uint8_t>(input[i]);
    sum ^= table_[2 * i][b >> 4] ^ table_[2 * i + 1][b & 15];
  }
  return sum;
}

std::uint32_t FlowHash::of_v4(std::uint32_t remote, std::uint32_t local, std::uint16_t remote_port,
                              std::uint16_t local_port) const {
  std::array<std::byte, 12> input;
  const auto put = [&input](std::size_t at, std::uint32_t v, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) input[at + i] = static_cast<std::byte>(v >> (8 * (n - 1 - i)));
  };
  put(0, remote, 4);
  put(4, local, 4);
  put(8, remote_port, 2);
  put(10, local_port, 2);
  return of(input);
}

std::uint32_t FlowHash::of(const FlowKey& key) const {
  if (key.local.is_v4() && key.remote.is_v4())
    return of_v4(key.remote.as_v4(), key.local.as_v4(), key.remote_port, key.local_port);
  std::array<std::byte, kInput> input;
  std::memcpy(input.data(), key.remote.bytes.data(), 16);
  std::memcpy(input.data() + 16, key.local.bytes.data(), 16);
  for (std::size_t i = 0; i < 2; ++i) {
    input[32 + i] = static_cast<std::byte>(key.remote_port >> (8 - 8 * i));
    input[34 + i] = static_cast<std::byte>(key.local_port >> (8 - 8 * i));
  }
  return of(input);
}

FrameKind classify(std::span<const std::byte> frame, const FlowHash& hash) {
  using Kind = FrameKind::Kind;
  if (frame.size() < kEthernet) return {};
  const std::uint16_t type = word_at(frame, 12);
  if (type == kTypeArp) return {tells_an_address(frame.subspan(kEthernet)) ? Kind::all : Kind::anyone, 0};
  if (type == kTypeIpv6 && tells_an_address_v6(frame.subspan(kEthernet))) return {Kind::all, 0};
  const Flow flow = flow_of(frame);
  if (!flow.found) return {};
  if (!flow.v4) return {Kind::flow, hash.of(key_of(flow)), !flow.quoted};
  const std::span<const std::byte> ip = flow.ip;
  // Addresses and ports lie in the order that the hash wants, but for options between them.
  if (!flow.quoted)
    return {Kind::flow, hash.of_v4(long_at(ip, 12), long_at(ip, 16), word_at(flow.tcp, 0), word_at(flow.tcp, 2)), true};
  return {Kind::flow, hash.of_v4(long_at(ip, 16), long_at(ip, 12), word_at(flow.tcp, 2), word_at(flow.tcp, 0))};
}

}  // namespace mtcp::stack

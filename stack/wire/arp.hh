// ARP for IPv4 over Ethernet (RFC 826).
#pragma once

#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/address.hh"
#include "stack/wire/parse_error.hh"

namespace mtcp::stack {

inline constexpr std::size_t kArpPacket = 28;

enum ArpOperation : std::uint16_t { kArpRequest = 1, kArpReply = 2 };

struct ArpPacket {
  std::uint16_t operation = 0;  // ArpOperation
  MacAddress sender_mac;
  std::uint32_t sender = 0;  // IPv4, host order
  MacAddress target_mac;
  std::uint32_t target = 0;  // IPv4, host order
};

namespace arp_detail {
// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
inline constexpr std::uint64_t kPreamble = 0x0001'0800'0604;
}  // namespace arp_detail

[[nodiscard]] inline ParseError parse_arp(std::span<const std::byte> bytes, ArpPacket& out) {
  if (bytes.size() < kArpPacket) return ParseError::too_short;
  const std::byte* p = bytes.data();
  if (load_be<std::uint64_t>(p) >> 16 != arp_detail::kPreamble) return ParseError::bad_header;
  out.operation = load_be<std::uint16_t>(p + 6);
  if (out.operation != kArpRequest && out.operation != kArpReply) return ParseError::bad_header;
  std::memcpy(out.sender_mac.bytes.data(), p + 8, 6);
  out.sender = load_be<std::uint32_t>(p + 14);
  std::memcpy(out.target_mac.bytes.data(), p + 18, 6);
  out.target = load_be<std::uint32_t>(p + 24);
  return ParseError::none;
}

// Writes kArpPacket bytes.
inline void write_arp(std::byte* at, const ArpPacket& a) {
  store_be(at, arp_detail::kPreamble << 16 | a.operation);
  std::memcpy(at + 8, a.sender_mac.bytes.data(), 6);
  store_be(at + 14, a.sender);
  std::memcpy(at + 18, a.target_mac.bytes.data(), 6);
  store_be(at + 24, a.target);
}

}  // namespace mtcp::stack

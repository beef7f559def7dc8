// Ethernet II frames.
#pragma once

#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/address.hh"
#include "stack/wire/parse_error.hh"

namespace mtcp::stack {

inline constexpr std::size_t kEthernetHeader = 14;

enum EtherType : std::uint16_t { kEtherIpv4 = 0x0800, kEtherArp = 0x0806, kEtherIpv6 = 0x86dd };

struct EthernetHeader {
  MacAddress destination;
  MacAddress source;
  std::uint16_t type = 0;  // EtherType, or anything else
};

[[nodiscard]] inline ParseError parse_ethernet(std::span<const std::byte> frame, EthernetHeader& out) {
  if (frame.size() < kEthernetHeader) return ParseError::too_short;
  std::memcpy(out.destination.bytes.data(), frame.data(), 6);
  std::memcpy(out.source.bytes.data(), frame.data() + 6, 6);
  out.type = load_be<std::uint16_t>(frame.data() + 12);
  return ParseError::none;
}

// Writes kEthernetHeader bytes.
inline void write_ethernet(std::byte* at, const EthernetHeader& h) {
  std::memcpy(at, h.destination.bytes.data(), 6);
  std::memcpy(at + 6, h.source.bytes.data(), 6);
  store_be(at + 12, h.type);
}

}  // namespace mtcp::stack

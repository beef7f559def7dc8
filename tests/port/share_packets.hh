// Frames for the programs that share an interface with the kernel, from the inside out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "stack/base/bytes.hh"
#include "stack/wire/address.hh"

namespace mtcp::test {

using stack::IpAddress;
using Bytes = std::vector<std::byte>;

// Without checksums, which the programs do not look at.
inline Bytes tcp(std::uint16_t from, std::uint16_t to, std::uint8_t flags) {
  Bytes b(20);
  stack::store_be<std::uint16_t>(&b[0], from);
  stack::store_be<std::uint16_t>(&b[2], to);
  b[12] = std::byte{0x50};
  b[13] = std::byte{flags};
  return b;
}

// `fragment`: of IPv4, the flags and the offset.
inline Bytes ip(const IpAddress& from, const IpAddress& to, std::uint8_t protocol, const Bytes& inside, std::uint16_t fragment = 0) {
  const bool v4 = from.is_v4();
  Bytes b(v4 ? 20 : 40);
  b[0] = std::byte{v4 ? std::uint8_t{0x45} : std::uint8_t{0x60}};
  if (v4) {
    stack::store_be<std::uint16_t>(&b[2], static_cast<std::uint16_t>(20 + inside.size()));
    stack::store_be<std::uint16_t>(&b[6], fragment);
    b[9] = std::byte{protocol};
    stack::store_be<std::uint32_t>(&b[12], from.as_v4());
    stack::store_be<std::uint32_t>(&b[16], to.as_v4());
  } else {
    stack::store_be<std::uint16_t>(&b[4], static_cast<std::uint16_t>(inside.size()));
    b[6] = std::byte{protocol};
    std::memcpy(&b[8], from.bytes.data(), 16);
    std::memcpy(&b[24], to.bytes.data(), 16);
  }
  b.insert(b.end(), inside.begin(), inside.end());
  return b;
}

// `type`: 0, what `inside` is. `tag`: -1, none.
inline Bytes frame(const Bytes& inside, std::uint16_t type = 0, int tag = -1) {
  Bytes b(12);
  if (tag >= 0) {
    b.resize(16);
    stack::store_be<std::uint16_t>(&b[12], 0x8100);
    stack::store_be<std::uint16_t>(&b[14], static_cast<std::uint16_t>(tag));
  }
  if (type == 0) type = (std::to_integer<int>(inside[0]) >> 4) == 4 ? 0x0800 : 0x86dd;
  b.resize(b.size() + 2);
  stack::store_be<std::uint16_t>(&b[b.size() - 2], type);
  b.insert(b.end(), inside.begin(), inside.end());
  b.resize(std::max<std::size_t>(b.size(), 60));
  return b;
}

inline Bytes icmp(std::uint8_t type, const Bytes& about) {
  Bytes b(8);
  b[0] = std::byte{type};
  b.insert(b.end(), about.begin(), about.end());
  return b;
}

}  // namespace mtcp::test

// The Internet checksum (RFC 1071). A partial sum is a ones'-complement sum of 16-bit words as they lie in
// memory: it does not depend on the byte order of the machine, and is stored without swapping.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "stack/base/bytes.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

// Partial sum of n bytes (an odd one is padded with zero), at most 0xffff. Zero only if all bytes are zero.
[[nodiscard]] std::uint32_t partial_sum(const std::byte* p, std::size_t n);
// Copies n bytes (the ranges do not overlap) and returns their partial sum, in one pass.
std::uint32_t copy_and_sum(std::byte* dst, const std::byte* src, std::size_t n);

// Ones'-complement addition of 64 bits: the carry comes round.
[[nodiscard]] constexpr std::uint64_t add_with_carry(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t sum = a + b;
  return sum + (sum < b ? 1 : 0);
}

// Folds a sum into 33 bits, so that more can be added.
[[nodiscard]] constexpr std::uint64_t fold_once(std::uint64_t sum) { return (sum & 0xffffffff) + (sum >> 32); }

// Folds any sum into 16 bits. Added to itself with its halves swapped, the upper half is the sum of both with the carry come
// round.
[[nodiscard]] constexpr std::uint32_t fold_sum(std::uint64_t sum) {
  auto half = static_cast<std::uint32_t>((sum + std::rotr(sum, 32)) >> 32);
  return (half + std::rotr(half, 16)) >> 16;
}

// The partial sum of a block of `offset` bytes (summed: `head`) with another block (summed: `tail`) behind
// it.
[[nodiscard]] constexpr std::uint32_t append_sum(std::uint32_t head, std::uint32_t tail, std::size_t offset) {
  tail = fold_sum(tail);
  if ((offset & 1) != 0) tail = (tail << 8 | tail >> 8) & 0xffff;
  return fold_sum(std::uint64_t{head} + tail);
}

// What a 16-bit field with this value (host order) contributes to a sum.
[[nodiscard]] constexpr std::uint32_t sum_of_field(std::uint16_t value) {
  return std::endian::native == std::endian::little ? byteswap(value) : value;
}

// What an address contributes: an IPv4 address its 4 bytes, an IPv6 address all 16. Not folded.
[[nodiscard]] inline std::uint64_t sum_of_address(const IpAddress& a, bool v4) {
  std::uint32_t w[4];
  std::memcpy(w, a.bytes.data(), sizeof w);
  return v4 ? w[3] : std::uint64_t{w[0]} + w[1] + w[2] + w[3];
}

// Pseudo-header of TCP and its kin (RFC 9293 section 3.1, RFC 8200 section 8.1). Not folded.
[[nodiscard]] inline std::uint64_t sum_of_pseudo_header(const IpAddress& source, const IpAddress& destination,
                                                        bool v4, std::uint8_t protocol, std::size_t length) {
  return sum_of_address(source, v4) + sum_of_address(destination, v4) + sum_of_field(protocol) +
         sum_of_field(static_cast<std::uint16_t>(length));
}

// Stores the checksum that makes everything summed so far (with zero in its place) come out right.
inline void store_checksum(std::byte* at, std::uint64_t sum) {
  const auto value = static_cast<std::uint16_t>(~fold_sum(sum));
  std::memcpy(at, &value, sizeof value);
}

// True if a sum over data that includes its checksum says that nothing has changed.
[[nodiscard]] constexpr bool sum_is_good(std::uint64_t sum) { return fold_sum(sum) == 0xffff; }

}  // namespace mtcp::stack

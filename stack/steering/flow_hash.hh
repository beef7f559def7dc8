// The hash that network cards spread flows by (Toeplitz, as in Microsoft's RSS specification), in software, and what
// it is taken of in a received frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/wire/address.hh"

namespace mtcp::stack {

class FlowHash {
 public:
  static constexpr std::size_t kHalves = 72;    // half bytes of the longest input
  static constexpr std::size_t kKeyBytes = 52;  // as the longest that cards take; 40 is what most take
  using Key = std::array<std::uint8_t, kKeyBytes>;

  explicit FlowHash(const Key& key);
  // The key that belongs to a device's secrets.
  [[nodiscard]] static Key make_key(const std::array<std::uint64_t, 4>& secrets);

  // Of a packet that comes in for `key`: remote and local address, remote and local port, in this order.
  [[nodiscard]] std::uint32_t of(const FlowKey& key) const;
  [[nodiscard]] std::uint32_t of_v4(std::uint32_t remote, std::uint32_t local, std::uint16_t remote_port,
                                    std::uint16_t local_port) const;
  // Of bytes in network order, at most 36.
  [[nodiscard]] std::uint32_t of(std::span<const std::byte> input) const;

  // What each half byte of the input adds, by position and value.
  using Halves = std::array<std::array<std::uint32_t, 16>, kHalves>;
  [[nodiscard]] const Halves& halves() const { return table_; }

 private:
  static constexpr std::size_t kInput = kHalves / 2;
  Halves table_;
};

// What steering wants to know of a received frame.
struct FrameKind {
  enum class Kind : std::uint8_t {
    flow,   // hash says whose: TCP, or an ICMP error about a TCP segment of ours
    all,    // every stack wants to see it: an ARP reply or announcement, a neighbour advertisement
    anyone  // whoever has it deals with it: questions (ARP, echo), fragments, what is to be dropped
  };
  Kind kind = Kind::anyone;
  std::uint32_t hash = 0;
  bool tcp = false;  // the frame itself is a TCP segment: of these a card computes the same hash
};
// Reads no byte beyond the frame; says `anyone` to whatever is not well formed.
[[nodiscard]] FrameKind classify(std::span<const std::byte> frame, const FlowHash& hash);

}  // namespace mtcp::stack

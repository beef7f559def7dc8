// A packet filter: a program for the classic BPF machine, as libpcap compiles it. It comes from another process, so it is checked
// before it is run: it ends after as many steps as it has instructions, and reads nothing but the packet and its own memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace mtcp::stack {

// As struct sock_filter of <linux/filter.h>.
struct FilterInstruction {
  std::uint16_t code;
  std::uint8_t jump_true, jump_false;
  std::uint32_t operand;
};
static_assert(sizeof(FilterInstruction) == 8);

class PacketFilter {
 public:
  // Instructions; so many cost some two microseconds.
  static constexpr std::size_t kMost = 1024;

  // None if the program is not sound. An empty one takes every packet.
  static std::optional<PacketFilter> check(std::span<const FilterInstruction> program);

  // Whether it takes the packet. A load from beyond the packet's end refuses it.
  [[nodiscard]] bool accepts(std::span<const std::byte> packet) const { return program_.empty() || run(packet) != 0; }

 private:
  explicit PacketFilter(std::span<const FilterInstruction> program) : program_(program.begin(), program.end()) {}
  [[nodiscard]] std::uint32_t run(std::span<const std::byte> packet) const;

  std::vector<FilterInstruction> program_;
};

}  // namespace mtcp::stack

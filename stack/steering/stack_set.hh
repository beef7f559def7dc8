// A set of the stacks that share a device, by their numbers; of its queues, too, because there are no more of them.
#pragma once

#include <bit>
#include <cstdint>

namespace mtcp::stack {

// The most that a control block can be made for; how many it was made for is ControlBlock::slots().
inline constexpr std::uint32_t kMaxStacks = 64;

class StackSet {
 public:
  constexpr StackSet() = default;
  // As atomics and packets keep it.
  constexpr explicit StackSet(std::uint64_t bits) : bits_(bits) {}
  [[nodiscard]] static constexpr StackSet of(std::uint32_t stack) { return StackSet(std::uint64_t{1} << stack); }

  [[nodiscard]] constexpr std::uint64_t bits() const { return bits_; }
  [[nodiscard]] constexpr bool empty() const { return bits_ == 0; }
  [[nodiscard]] constexpr std::uint32_t size() const { return static_cast<std::uint32_t>(std::popcount(bits_)); }
  // False for what is no stack's number.
  [[nodiscard]] constexpr bool has(std::uint32_t stack) const { return stack < kMaxStacks && (bits_ >> stack & 1) != 0; }
  // The lowest; not if it is empty.
  [[nodiscard]] constexpr std::uint32_t first() const { return static_cast<std::uint32_t>(std::countr_zero(bits_)); }
  // The next one after `stack`, going round; `stack` itself only if it is the only one. Not if it is empty.
  [[nodiscard]] constexpr std::uint32_t after(std::uint32_t stack) const {
    const auto by = static_cast<int>((stack + 1) % kMaxStacks);
    return (StackSet(std::rotr(bits_, by)).first() + stack + 1) % kMaxStacks;
  }

  constexpr void add(std::uint32_t stack) { bits_ |= of(stack).bits_; }
  constexpr void remove(std::uint32_t stack) { bits_ &= ~of(stack).bits_; }
  friend constexpr StackSet operator|(StackSet a, StackSet b) { return StackSet(a.bits_ | b.bits_); }
  friend constexpr StackSet operator&(StackSet a, StackSet b) { return StackSet(a.bits_ & b.bits_); }
  friend constexpr StackSet operator-(StackSet a, StackSet b) { return StackSet(a.bits_ & ~b.bits_); }
  friend constexpr bool operator==(StackSet, StackSet) = default;

  // In ascending order, of what it is when the loop begins.
  class Iterator {
   public:
    constexpr explicit Iterator(std::uint64_t bits) : bits_(bits) {}
    constexpr std::uint32_t operator*() const { return static_cast<std::uint32_t>(std::countr_zero(bits_)); }
    constexpr Iterator& operator++() { return bits_ &= bits_ - 1, *this; }
    friend constexpr bool operator==(Iterator, Iterator) = default;

   private:
    std::uint64_t bits_;
  };
  [[nodiscard]] constexpr Iterator begin() const { return Iterator(bits_); }
  [[nodiscard]] constexpr Iterator end() const { return Iterator(0); }

 private:
  std::uint64_t bits_ = 0;
};

}  // namespace mtcp::stack

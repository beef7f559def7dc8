// Which flows that the stacks of a device have opened are in use, so that no two of them open the same one: after a
// change of the table a flow may hash to one stack while another still has it. By hash: one flow may stand in the
// way of another, whoever's, and then the next port is taken.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mtcp::stack {

class Reservations {
 public:
  // Bytes of shared memory, zero at first.
  static constexpr std::size_t kMemory = std::size_t{1} << 18;
  explicit Reservations(std::byte* memory) : slots_(reinterpret_cast<Slot*>(memory)) {}

  // For `stack`; false if it is taken. A flow is taken back by whom reserved it, once.
  [[nodiscard]] bool take(std::uint32_t hash, std::uint8_t stack);
  void give_back(std::uint32_t hash, std::uint8_t stack);
  // All that a stack had.
  void forget(std::uint8_t stack);

 private:
  using Slot = std::atomic<std::uint8_t>;  // the stack's number + 1; 0: free
  static_assert(sizeof(Slot) == 1 && Slot::is_always_lock_free);
  // The table's entries are chosen by the lowest bits of a hash, which say nothing new within one stack.
  [[nodiscard]] Slot& slot(std::uint32_t hash) const { return slots_[hash * 0x9e37'79b1U >> 14]; }
  Slot* slots_;
};

}  // namespace mtcp::stack

// What the stacks that share a device have in common besides its queues: the board, and the descriptors that wake them.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "stack/steering/board.hh"

namespace mtcp::stack::dpdk {

// Made by the process that opens the device, before any fork.
class SharedState {
 public:
  // For frames of up to `frame` bytes. Null without memory, descriptors or randomness.
  static std::unique_ptr<SharedState> create(std::size_t frame);
  ~SharedState();
  SharedState(const SharedState&) = delete;
  SharedState& operator=(const SharedState&) = delete;

  [[nodiscard]] Board& board() const { return *board_; }
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const { return wake_[stack]; }
  void wake(std::uint32_t stack) const;
  void clear_wake(std::uint32_t stack) const;

 private:
  SharedState() { wake_.fill(-1); }
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  std::unique_ptr<Board> board_;
  std::array<int, kMaxStacks> wake_;
};

}  // namespace mtcp::stack::dpdk

// What the stacks that share a device have in common besides its queues: the board, and the descriptors that wake them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "stack/steering/board.hh"

namespace mtcp::stack::dpdk {

// Made by the process that opens the device, before any fork.
class SharedState {
 public:
  // As many stacks as this machine may want at a time: two for each CPU, so that as many workers as there are CPUs can
  // be reloaded at once, within reason.
  [[nodiscard]] static std::uint32_t places();
  // Null without memory, descriptors or randomness.
  static std::unique_ptr<SharedState> create(const Board::Shape& shape);
  ~SharedState();
  SharedState(const SharedState&) = delete;
  SharedState& operator=(const SharedState&) = delete;

  [[nodiscard]] Board& board() const { return *board_; }
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const { return wake_[stack]; }
  void wake(std::uint32_t stack) const;
  void clear_wake(std::uint32_t stack) const;
  // The calling process is about to end: whether no other one is left that was forked from those who share this.
  bool end_of_family();

 private:
  SharedState() = default;
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  std::unique_ptr<Board> board_;
  std::vector<int> wake_;        // by stack
  int family_[2] = {-1, -1};     // a pipe: hung up when the last process of the family has closed its writing end
};

}  // namespace mtcp::stack::dpdk

// What the stacks that share a device have in common besides its queues: the control block, and the descriptors that wake them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/steering/control_block.hh"

namespace mtcp::stack::dpdk {

// Made by the process that opens the device, before any fork.
class SharedState {
 public:
  // As many stacks as this machine may want at a time: two for each CPU, so that as many workers as there are CPUs can
  // be reloaded at once, within reason.
  [[nodiscard]] static std::uint32_t slots();
  // Null without memory, descriptors or randomness.
  static std::unique_ptr<SharedState> create(const ControlBlock::Shape& shape);
  // The same in a process that was forked before, from the descriptors() there, which are taken unless it is null.
  static std::unique_ptr<SharedState> adopt(const ControlBlock::Shape& shape, std::span<const int> descriptors);
  [[nodiscard]] std::vector<int> descriptors() const;
  [[nodiscard]] static std::size_t descriptors(std::uint32_t slots) { return 1 + 2 + slots; }
  ~SharedState();
  SharedState(const SharedState&) = delete;
  SharedState& operator=(const SharedState&) = delete;

  [[nodiscard]] ControlBlock& control() const { return *control_; }
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const { return wake_[stack]; }
  void wake(std::uint32_t stack) const;
  void clear_wake(std::uint32_t stack) const;
  // A stack more would have a slot and one of so many queues, and a quarter of the slots stays for others.
  [[nodiscard]] bool has_room(std::size_t queues) const;
  // In a process of another program than the one that has passed this on: a pipe of its own. False without descriptors.
  bool begin_family();
  // The calling process is about to end: whether no other one is left of its program that shares this.
  bool end_of_family();

 private:
  SharedState() = default;
  std::byte* map(std::size_t offset, std::size_t bytes);  // of the control block's memory, or null
  [[nodiscard]] ControlBlock::Map mapper();
  std::vector<std::span<std::byte>> mapped_;
  std::unique_ptr<ControlBlock> control_;
  int memory_fd_ = -1;
  std::vector<int> wake_;        // by stack
  int family_[2] = {-1, -1};     // a pipe: hung up when the last process of the program has closed its writing end
};

}  // namespace mtcp::stack::dpdk

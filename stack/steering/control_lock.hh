// The right to change a control block's members and table.
#pragma once

#include <cstdint>
#include <thread>

#include "stack/steering/control_block.hh"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack {

// Whoever finds it with a dead process takes it.
class ControlBlock::Lock {
 public:
  Lock(ControlBlock& control, const SharedDevice& device) : control_(control) {
    std::atomic<std::uint64_t>& changer = control_.head().changer;
    // Nobody takes so long; but one that has been stopped in there, or has gone mad, must not stop all others.
    constexpr std::uint32_t kPatience = 1'000'000;
    for (std::uint32_t tries = 1; tries < kPatience; ++tries) {
      std::uint64_t holder = 0;
      held_ = changer.compare_exchange_strong(holder, device.self(), std::memory_order_acquire);
      if (held_) return;
      constexpr std::uint32_t kBetweenLooks = 64;
      held_ = tries % kBetweenLooks == 0 && !device.alive(holder) &&
              changer.compare_exchange_strong(holder, device.self(), std::memory_order_acquire);
      if (held_) return;
      std::this_thread::yield();
    }
  }
  // Who lost patience does not have it: it is somebody else's.
  ~Lock() {
    if (held_) control_.head().changer.store(0, std::memory_order_release);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  ControlBlock& control_;
  bool held_ = false;
};

// The same for one that changes them: share_out() completes it, whatever was half done.
class ControlBlock::Change {
 public:
  Change(ControlBlock& control, const SharedDevice& device) : control_(control), lock_(control, device) {}
  ~Change() {
    control_.share_out();
    control_.head().version.fetch_add(1, std::memory_order_release);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  ControlBlock& control_;
  const Lock lock_;
};

}  // namespace mtcp::stack

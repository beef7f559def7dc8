// A stack's lock: uncontended in the per-core case, so one compare-and-swap each way; contended it spins
// briefly and then sleeps on a futex. Not recursive. Meets the standard's Lockable, so std::unique_lock works
// with it.
#pragma once

#include <atomic>
#include <cstdint>

namespace mtcp::intercept {

class Lock {
 public:
  void lock() {
    std::uint32_t expected = kFree;
    if (!word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire)) [[unlikely]]
      lock_slow();
  }
  bool try_lock() {
    std::uint32_t expected = kFree;
    return word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire);
  }
  void unlock() {
    if (word_.exchange(kFree, std::memory_order_release) == kContended) [[unlikely]]
      wake();
  }
  // How often it had to be waited for. With the lock held.
  [[nodiscard]] std::uint64_t contended() const { return contended_; }
  // In the child of a fork: whoever held it does not exist here.
  void reset_after_fork() { word_.store(kFree, std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kFree = 0, kHeld = 1, kContended = 2;
  void lock_slow();
  void wake();
  std::atomic<std::uint32_t> word_{kFree};
  std::uint64_t contended_ = 0;
};

}  // namespace mtcp::intercept

#include "intercept/support/lock.hh"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mtcp::intercept {
namespace {

// About a microsecond: most critical sections are shorter than a futex round trip.
constexpr int kSpins = 100;

void futex(std::atomic<std::uint32_t>& word, int op, std::uint32_t value) {
  // Errors (EAGAIN, EINTR) only mean "look again", which the callers do.
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), op | FUTEX_PRIVATE_FLAG, value, nullptr,
          nullptr, 0);
}

}  // namespace

void Lock::lock_slow() {
  bool had = false;
  for (int i = 0; i < kSpins && !had; ++i) {
    had = word_.load(std::memory_order_relaxed) == kFree && try_lock();
    if (!had) __builtin_ia32_pause();
  }
  if (!had) {
    while (word_.exchange(kContended, std::memory_order_acquire) != kFree) futex(word_, FUTEX_WAIT, kContended);
  }
  ++contended_;
}

void Lock::wake() { futex(word_, FUTEX_WAKE, 1); }

}  // namespace mtcp::intercept

// The time that the stack is given: CLOCK_MONOTONIC, read through the TSC where that is invariant, and compared with the
// kernel's every 50 ms, so that all processes of the machine have the same time.
#pragma once

#include <time.h>

#include "intercept/kernel.hh"
#include "stack/base/time.hh"

namespace mtcp::intercept {

// Calibrates the TSC once (about 2 ms); before that, and without an invariant TSC, now() asks the kernel's
// vDSO.
void clock_start();
[[nodiscard]] stack::Time now();

// What the kernel takes as a timeout: it refuses (EINVAL) a second of nanoseconds. `d` is not negative.
[[nodiscard]] constexpr timespec to_timespec(stack::Duration d) {
  const auto s = std::chrono::duration_cast<std::chrono::seconds>(d);
  return {.tv_sec = s.count(), .tv_nsec = (d - s).count()};
}

// The calling thread sleeps so long, or until a signal.
inline void sleep_for(Kernel& kernel, stack::Duration d) {
  const timespec t = to_timespec(d);
  (void)kernel.ppoll(nullptr, 0, &t, nullptr);
}

}  // namespace mtcp::intercept

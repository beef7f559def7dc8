// The time that the stack is given: CLOCK_MONOTONIC, read through the TSC where that is invariant, and compared with the
// kernel's every 50 ms, so that all processes of the machine have the same time.
#pragma once

#include "stack/base/time.hh"

namespace mtcp::intercept {

// Calibrates the TSC once (about 2 ms); before that, and without an invariant TSC, now() asks the kernel's
// vDSO.
void clock_start();
[[nodiscard]] stack::Time now();

}  // namespace mtcp::intercept

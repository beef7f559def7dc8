// Timeouts of calls, in the forms that libc has for them.
#pragma once

#include <sys/time.h>
#include <time.h>

namespace mtcp::preload {

// CLOCK_MONOTONIC now plus `t`; far values saturate.
[[nodiscard]] timespec deadline(const timespec& t);
// What is left until `end`; zero when it has passed.
[[nodiscard]] timespec remaining(const timespec& end);
// A timeout in milliseconds; `t` is filled. Null for a negative one: for ever.
[[nodiscard]] const timespec* from_milliseconds(int timeout, timespec& t);

}  // namespace mtcp::preload

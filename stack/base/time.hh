// Time is always an argument: the stack never reads a clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace mtcp::stack {

// A monotonic clock whose origin means nothing; whoever drives the stack supplies the values.
struct StackClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<StackClock>;
  static constexpr bool is_steady = true;
};

using Duration = StackClock::duration;
using Time = StackClock::time_point;
inline constexpr Time kNever = Time::max();

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace mtcp::stack

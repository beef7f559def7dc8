#include "preload/clock.hh"

#include <limits>

namespace mtcp::preload {

namespace {
constexpr long kSecond = 1000000000;
}

timespec deadline(const timespec& t) {
  timespec end{};
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_nsec += t.tv_nsec;
  const time_t carry = end.tv_nsec >= kSecond ? 1 : 0;
  end.tv_nsec -= carry * kSecond;
  if (__builtin_add_overflow(end.tv_sec + carry, t.tv_sec, &end.tv_sec))
    end.tv_sec = std::numeric_limits<time_t>::max();
  return end;
}

timespec remaining(const timespec& end) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  timespec left{end.tv_sec - now.tv_sec, end.tv_nsec - now.tv_nsec};
  if (left.tv_nsec < 0) {
    left.tv_nsec += kSecond;
    --left.tv_sec;
  }
  return left.tv_sec < 0 ? timespec{} : left;
}

const timespec* from_milliseconds(int timeout, timespec& t) {
  if (timeout < 0) return nullptr;
  t.tv_sec = timeout / 1000;
  t.tv_nsec = (timeout % 1000) * 1000000L;
  return &t;
}

}  // namespace mtcp::preload

// Limits how often something is done.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/time.hh"

namespace mtcp::stack {

class TokenBucket {
 public:
  // `per_second` in the long run, at most `burst` at once. Starts full.
  TokenBucket(std::int64_t per_second, std::int64_t burst)
      : interval_(std::chrono::nanoseconds(seconds(1)) / per_second), depth_(interval_ * burst) {}

  // Takes a token if there is one.
  [[nodiscard]] bool take(Time now) {
    empty_at_ = std::max(empty_at_, now - depth_);
    if (empty_at_ + interval_ > now) return false;
    empty_at_ += interval_;
    return true;
  }

 private:
  Duration interval_;
  Duration depth_;
  Time empty_at_{Duration::min() / 2};  // the bucket holds (now - empty_at_) / interval_ tokens
};

}  // namespace mtcp::stack

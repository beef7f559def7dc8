// A scatter list that is consumed from the front, without touching the caller's array.
#pragma once

#include <errno.h>
#include <limits.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace mtcp::intercept {

inline constexpr std::size_t kMostIovecs = 1024;  // UIO_MAXIOV

// The bytes that `v` holds, or -EINVAL (more than SSIZE_MAX in all) or -EFAULT (null with a length).
[[nodiscard]] inline ssize_t total_bytes(std::span<const iovec> v) {
  std::size_t total = 0;
  for (const iovec& piece : v) {
    if (piece.iov_len > static_cast<std::size_t>(SSIZE_MAX) - total) return -EINVAL;
    if (piece.iov_base == nullptr && piece.iov_len > 0) return -EFAULT;
    total += piece.iov_len;
  }
  return static_cast<ssize_t>(total);
}

class Iovecs {
 public:
  explicit Iovecs(std::span<const iovec> all) : rest_(all) {}

  // What is left, or its beginning: the caller's own array as long as nothing has been consumed.
  [[nodiscard]] std::span<const iovec> next() {
    if (offset_ == 0) return rest_;
    const std::size_t n = std::min(rest_.size(), window_.size());
    std::copy_n(rest_.begin(), n, window_.begin());
    window_[0].iov_base = static_cast<std::byte*>(window_[0].iov_base) + offset_;
    window_[0].iov_len -= offset_;
    return {window_.data(), n};
  }
  void consume(std::size_t bytes) {
    offset_ += bytes;
    while (!rest_.empty() && offset_ >= rest_.front().iov_len) {
      offset_ -= rest_.front().iov_len;
      rest_ = rest_.subspan(1);
    }
  }

 private:
  std::span<const iovec> rest_;
  std::size_t offset_ = 0;  // consumed of rest_.front()
  std::array<iovec, 16> window_;
};

}  // namespace mtcp::intercept

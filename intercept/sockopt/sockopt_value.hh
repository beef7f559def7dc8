// How getsockopt gives a value.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace mtcp::intercept {

// As much of it as there is room for: *n bytes, and how many it was is there afterwards. 0.
template <typename T>
int give(const T& value, void* v, socklen_t* n) {
  const auto size = static_cast<socklen_t>(std::min<std::size_t>(*n, sizeof value));
  std::memcpy(v, &value, size);
  *n = size;
  return 0;
}

}  // namespace mtcp::intercept

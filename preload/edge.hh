// The edge between the application and the engine: errno, deferred signal handlers, SIGPIPE.
#pragma once

#include <errno.h>

#include <type_traits>

#include "preload/process.hh"
#include "preload/signals.hh"

namespace mtcp::preload {

// While one lives, the thread is inside the engine.
class Inside {
 public:
  Inside() {
    ++thread.depth;
    signal_fence();
  }
  ~Inside() {
    signal_fence();
    if (--thread.depth == 0 && thread.has_deferred) [[unlikely]]
      run_deferred();
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// -errno to errno and -1.
template <class R>
[[nodiscard]] R translate(R result) {
  if (result < 0) [[unlikely]] {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

// Calls the engine. Handlers that arrived meanwhile run before this returns; errno changes only if the call
// fails.
template <class F>
auto enter(F&& f) -> std::invoke_result_t<F, intercept::Engine&> {
  intercept::Engine& e = *engine();
  const int before = errno;
  std::invoke_result_t<F, intercept::Engine&> result;
  {
    Inside inside;
    result = f(e);
  }
  errno = before;
  return translate(result);
}

// The same for calls that send: EPIPE raises SIGPIPE unless MSG_NOSIGNAL.
template <class F>
auto enter_sending(int flags, F&& f) -> std::invoke_result_t<F, intercept::Engine&> {
  const auto result = enter(static_cast<F&&>(f));
  if (result < 0 && errno == EPIPE && (flags & MSG_NOSIGNAL) == 0) [[unlikely]] {
    raise_sigpipe();
    errno = EPIPE;
  }
  return result;
}

}  // namespace mtcp::preload

// What calls that move bytes of a stream have in common: they may have to wait, and what they have moved by then is their result.
#pragma once

#include <errno.h>
#include <sys/types.h>

#include <cstddef>

#include "intercept/call.hh"

namespace mtcp::intercept {

class StreamCall {
 protected:
  StreamCall(Process& process, Guard& guard, Socket& s) : process_(process), guard_(guard), s_(s) {}

  // `attempt` gives the call's result, or -EAGAIN: it would have to wait. Then the stack runs, if that may help, and it is tried again.
  template <typename Attempt>
  ssize_t attempt_twice(Attempt&& attempt) {
    const ssize_t result = attempt();
    return result == -EAGAIN && retry_after_turn(process_, s_) ? attempt() : result;
  }
  // Of a call that ends early: the bytes that it has moved, if any, as in Linux; then the error is the next call's or is not told.
  [[nodiscard]] ssize_t give_up(ssize_t error) const { return done_ > 0 ? result() : error; }
  [[nodiscard]] ssize_t result() const { return static_cast<ssize_t>(done_); }

  Process& process_;
  Guard& guard_;
  Socket& s_;
  std::size_t done_ = 0;  // bytes
};

}  // namespace mtcp::intercept

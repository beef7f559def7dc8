// Signals that are counted.
#pragma once

#include <signal.h>

#include <atomic>

#include "tests/parity/net.hh"

namespace parity {

// Counts a signal while it lives.
class SignalCounter {
 public:
  explicit SignalCounter(int signal) : signal_(signal) {
    counts_[signal_] = 0;
    struct sigaction action {};
    action.sa_handler = [](int s) { ++counts_[s]; };
    REQUIRE(::sigaction(signal_, &action, &old_) == 0);
  }
  SignalCounter(const SignalCounter&) = delete;
  SignalCounter& operator=(const SignalCounter&) = delete;
  ~SignalCounter() { ::sigaction(signal_, &old_, nullptr); }
  [[nodiscard]] int count() const { return counts_[signal_]; }

 private:
  static inline std::atomic<int> counts_[NSIG];
  const int signal_;
  struct sigaction old_ {};
};

}  // namespace parity

// How the servers of the benchmarks end: at SIGTERM or SIGINT, after what they are at.
#pragma once

#include <csignal>

namespace mtcp::perf {

inline volatile std::sig_atomic_t g_stop = 0;

// From now on g_stop is 1 once such a signal has come, and interrupts the call that waits. A peer that has gone is an error of write.
inline void stop_at_signals() {
  struct sigaction stop {};
  stop.sa_handler = [](int) { g_stop = 1; };
  sigaction(SIGTERM, &stop, nullptr);
  sigaction(SIGINT, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace mtcp::perf

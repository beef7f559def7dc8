// What the shim knows of the calling thread. Zero-initialised and without constructor, so that it is there
// for threads that the shim never saw being created, and before any constructor has run.
#pragma once

#include <signal.h>
#include <time.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

namespace mtcp::preload {

// The application's handler of a signal, as it gave it to sigaction().
struct Action {
  union {
    void (*plain)(int);
    void (*detailed)(int, siginfo_t*, void*);
  };
  int flags;
  std::uint64_t mask;
};

// A handler that arrived inside the engine and runs when the thread leaves it. One is enough: until it has
// run, the thread has its signals blocked, and the kernel keeps those that follow.
struct Deferred {
  int signal;
  Action action;
  siginfo_t info;
  ucontext_t context;              // registers of the interruption; changes to them have no effect
  std::uint64_t interrupted_mask;  // the thread's mask at the interruption
};

struct Thread {
  unsigned depth;  // calls into the engine under way: handlers wait, and libc names lead to libc
  bool internal;   // a thread of the engine's own: always as if inside
  bool resolving;  // dlsym is running: calls that it makes go to the kernel raw
  bool sleeping;   // inside the engine, but in a kernel wait: handlers run at once
  bool has_deferred;
  bool last_restarts;              // the last handler had SA_RESTART
  volatile std::uint32_t signals;  // handlers run or deferred on this thread
  std::uint32_t signals_before_sleep;
  timespec
      sleep;  // the timeout of the kernel wait; a handler makes it zero, so none can come too early to end it
  Deferred deferred;

  [[nodiscard]] bool inside() const { return depth != 0 || internal; }
};

extern constinit thread_local Thread thread;

// Orders memory against a signal handler on the same thread.
inline void signal_fence() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace mtcp::preload

// Handlers that note what they see, and ways to send signals into the engine.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include <functional>
#include <vector>

#include "tests/preload/under_shim.hh"

namespace mtcp::preload {

// What the handlers below saw.
struct Seen {
  std::vector<int> signals;
  std::vector<int> values;
  siginfo_t info{};
  sigset_t mask{};
  bool engine_again = false;
};
inline Seen seen;  // NOLINT: handlers have nothing else

inline void plain(int sig) {
  seen.signals.push_back(sig);
  pthread_sigmask(SIG_SETMASK, nullptr, &seen.mask);
}
inline void detailed(int sig, siginfo_t* info, void* context) {
  plain(sig);
  seen.info = *info;
  seen.values.push_back(info->si_value.sival_int);
  if (context == nullptr) abort();
}

// Installs a handler for as long as this lives, and starts a new record.
class Handler {
 public:
  Handler(int sig, void (*handler)(int), int flags = 0) : sig_(sig) {
    seen = {};
    struct sigaction a {};
    a.sa_handler = handler;
    a.sa_flags = flags;
    REQUIRE(sigaction(sig, &a, &before_) == 0);
  }
  Handler(int sig, void (*handler)(int, siginfo_t*, void*), int flags = SA_SIGINFO, int also_masked = 0)
      : sig_(sig) {
    seen = {};
    struct sigaction a {};
    a.sa_sigaction = handler;
    a.sa_flags = flags;
    if (also_masked != 0) sigaddset(&a.sa_mask, also_masked);
    REQUIRE(sigaction(sig, &a, &before_) == 0);
  }
  ~Handler() { sigaction(sig_, &before_, nullptr); }
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;

 private:
  int sig_;
  struct sigaction before_ {};
};

// Sends a signal to the calling thread, with a value.
inline void send_self(int sig, int value = 0) {
  siginfo_t info{};
  info.si_signo = sig;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_value.sival_int = value;
  if (syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, &info) != 0) abort();
}

inline bool has(const sigset_t& s, int sig) { return sigismember(&s, sig) == 1; }

inline sigset_t mask_now() {
  sigset_t s;
  pthread_sigmask(SIG_SETMASK, nullptr, &s);
  return s;
}

// Runs f inside the engine, in a read of a socket that returns 1.
inline long inside(const Connected& pair, std::function<void()> f) {
  FakeControl& c = control();
  c.during = std::move(f);
  c.results = {1};
  char p;
  return read(pair.a, &p, 1);
}

}  // namespace mtcp::preload

// Signal handlers: the trampoline around them, and how they wait for the thread to leave the engine.
#include "preload/signals.hh"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "preload/actions.hh"
#include "preload/edge.hh"
#include "preload/next.hh"

namespace mtcp::preload {

constinit thread_local Thread thread{};

namespace {

constexpr std::uint64_t bit(int sig) { return std::uint64_t{1} << (sig - 1); }

// What a fault of the running instruction raises: it cannot wait, and blocked it would kill.
constexpr std::uint64_t kFaults =
    bit(SIGSEGV) | bit(SIGBUS) | bit(SIGFPE) | bit(SIGILL) | bit(SIGTRAP) | bit(SIGABRT) | bit(SIGSYS);
// Nor libc's own (cancellation, setuid of all threads: 32 and 33), nor those that the kernel never blocks: so
// that what it reports can be compared with this.
constexpr std::uint64_t kHeldBack = ~(kFaults | bit(32) | bit(33) | bit(SIGKILL) | bit(SIGSTOP));

std::uint64_t set_mask(std::uint64_t mask) {
  std::uint64_t old = 0;
  raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&mask), reinterpret_cast<long>(&old),
              sizeof mask);
  return old;
}

// The kernel's part of a sigset_t.
std::uint64_t first_word(const sigset_t& s) {
  std::uint64_t mask = 0;
  memcpy(&mask, &s, sizeof mask);
  return mask;
}
void set_first_word(sigset_t& s, std::uint64_t mask) { memcpy(&s, &mask, sizeof mask); }

// Raised by what this thread just did, not sent by anybody.
bool is_fault(int sig, const siginfo_t& info) {
  if ((kFaults & bit(sig)) == 0) return false;
  return info.si_code > 0 || info.si_pid == getpid();
}

// What SIG_DFL does, once the peers know.
void die(int sig) {
  if (intercept::Engine* e = engine(); e != nullptr) {
    const int before = errno;
    ++thread.depth;
    e->dying();
    --thread.depth;
    errno = before;
  }
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  next.sigaction(sig, &standard, nullptr);
  std::uint64_t mine = bit(sig);
  raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, reinterpret_cast<long>(&mine), 0, sizeof mine);
  raw_syscall(SYS_tgkill, getpid(), gettid(), sig);
}

void invoke(const Action& action, int sig, siginfo_t* info, void* context) {
  if (action.plain == SIG_DFL) return die(sig);
  if ((action.flags & SA_SIGINFO) != 0) {
    action.detailed(sig, info, context);
  } else {
    action.plain(sig);
  }
}

// Runs `f` as code of the application: calls on descriptors of ours enter the engine anew, and a handler that
// leaves by longjmp leaves the thread outside the engine.
template <class F>
void as_application(F f) {
  Thread& t = thread;
  const unsigned depth = t.depth;
  const bool sleeping = t.sleeping;
  t.depth = 0;
  t.sleeping = false;
  signal_fence();
  f();
  signal_fence();
  t.depth = depth;
  t.sleeping = sleeping;
}

void defer(const Action& action, int sig, const siginfo_t& info, ucontext_t& context) {
  Deferred& d = thread.deferred;
  d.signal = sig;
  d.action = action;
  d.info = info;
  d.interrupted_mask = first_word(context.uc_sigmask);
  d.context.uc_flags = context.uc_flags;
  d.context.uc_link = nullptr;
  d.context.uc_stack = context.uc_stack;
  d.context.uc_mcontext = context.uc_mcontext;
#ifdef __x86_64__
  d.context.uc_mcontext.fpregs = nullptr;  // lies on the stack that is about to go
#endif
  // From the return of this handler until the thread leaves the engine, further signals stay with the kernel.
  set_first_word(context.uc_sigmask, kHeldBack | d.interrupted_mask);
  thread.has_deferred = true;
}

}  // namespace

void trampoline(int sig, siginfo_t* info, void* context) {
  const Action action = current_action(sig);
  Thread& t = thread;
  t.signals = t.signals + 1;
  t.last_restarts = (action.flags & SA_RESTART) != 0;
  if (t.depth == 0) [[likely]] {
    invoke(action, sig, info, context);
  } else if (is_fault(sig, *info)) {
    invoke(action, sig, info, context);
  } else if (t.sleeping) {
    as_application([&] { invoke(action, sig, info, context); });
    t.sleep = {};  // last: the handler may have slept itself
  } else {
    defer(action, sig, *info, *static_cast<ucontext_t*>(context));
  }
}

void run_deferred() {
  while (thread.has_deferred) {
    as_application([] {
      Deferred d = thread.deferred;
      thread.has_deferred = false;
      set_first_word(d.context.uc_sigmask, d.interrupted_mask);
      std::uint64_t during = d.interrupted_mask | d.action.mask;
      if ((d.action.flags & SA_NODEFER) == 0) during |= bit(d.signal);
      set_mask(during);
      invoke(d.action, d.signal, &d.info, &d.context);
      set_mask(first_word(
          d.context.uc_sigmask));  // the handler may have changed it, as it may in the kernel's frame
    });
  }
}

void forget_deferred() {
  if (!thread.has_deferred) return;
  thread.has_deferred = false;
  set_mask(thread.deferred.interrupted_mask);
}

void raise_sigpipe() { raw_syscall(SYS_tgkill, getpid(), gettid(), SIGPIPE); }

const volatile std::uint32_t* signal_count() { return &thread.signals; }
bool last_signal_restarts() { return thread.last_restarts; }

void begin_sleep() {
  thread.sleeping =
      true;  // first: what comes from now on runs at once, what came before is deferred and runs here
  signal_fence();
  if (thread.has_deferred) run_deferred();
  thread.signals_before_sleep = thread.signals;
}

void end_sleep() {
  signal_fence();
  thread.sleeping = false;
}

void internal_thread() { thread.internal = true; }

int change_mask(int how, const sigset_t* set, sigset_t* old) {
  std::uint64_t was = 0;
  const long result = raw_syscall(SYS_rt_sigprocmask, how, reinterpret_cast<long>(set),
                                  reinterpret_cast<long>(&was), sizeof was);
  if (result < 0) return static_cast<int>(result);
  Deferred& d = thread.deferred;
  // A handler was deferred before: the kernel's mask was deferral's, and the thread's own is the one that it
  // set aside.
  if (thread.has_deferred && was == (kHeldBack | d.interrupted_mask)) {
    was = d.interrupted_mask;
    if (set != nullptr) {
      const std::uint64_t given = first_word(*set);
      d.interrupted_mask = how == SIG_BLOCK ? was | given : how == SIG_UNBLOCK ? was & ~given : given;
      set_mask(kHeldBack | d.interrupted_mask);
    }
  }
  if (old != nullptr) {
    sigemptyset(old);
    set_first_word(*old, was);
  }
  return 0;
}

}  // namespace mtcp::preload

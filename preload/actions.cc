// sigaction() and its older kin. Until the engine is loaded they are libc's; then every handler gets the
// trampoline, and nobody can tell: sigaction() reports what was given to it.
#include "preload/actions.hh"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "preload/calls.hh"
#include "preload/edge.hh"

namespace mtcp::preload {
namespace {

// Written under process.lock with signals blocked, read by handlers at any time: the version is odd while it
// is written.
struct Slot {
  std::atomic<std::uint32_t> version;
  std::atomic<void*> handler;
  std::atomic<int> flags;
  std::atomic<std::uint64_t> mask;
};
constinit Slot slots[_NSIG + 1]{};

void store(int sig, const struct sigaction& act) {
  Slot& s = slots[sig];
  std::uint64_t mask = 0;
  memcpy(&mask, &act.sa_mask, sizeof mask);
  const std::uint32_t version = s.version.load(std::memory_order_relaxed);
  s.version.store(version + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  s.handler.store(reinterpret_cast<void*>(act.sa_sigaction), std::memory_order_relaxed);
  s.flags.store(act.sa_flags, std::memory_order_relaxed);
  s.mask.store(mask, std::memory_order_relaxed);
  s.version.store(version + 2, std::memory_order_release);
}

// What kills a process that has no handler: it has something to say to its peers before. Not so for the first process of
// a system or container, which the kernel spares instead.
bool kills(int sig) {
  switch (sig) {
    case SIGHUP:
    case SIGINT:
    case SIGQUIT:
    case SIGPIPE:
    case SIGALRM:
    case SIGTERM:
    case SIGUSR1:
    case SIGUSR2:
      return getpid() != 1;
    default:
      return false;
  }
}

bool is_handler(const struct sigaction& a) { return a.sa_handler != SIG_DFL && a.sa_handler != SIG_IGN; }
// Whether the trampoline goes around it.
bool is_wanted(int sig, const struct sigaction& a) {
  return is_handler(a) || (a.sa_handler == SIG_DFL && kills(sig));
}
bool is_wrapped(const struct sigaction& a) { return a.sa_sigaction == &trampoline; }

// The kernel's view of an action to the application's.
void unwrap(int sig, struct sigaction& a) {
  if (!is_wrapped(a)) return;
  const Action mine = current_action(sig);
  a.sa_sigaction = mine.detailed;
  if ((mine.flags & SA_SIGINFO) == 0) a.sa_flags &= ~SA_SIGINFO;
}

struct sigaction wrapped(const struct sigaction& a) {
  struct sigaction w = a;
  w.sa_sigaction = &trampoline;
  w.sa_flags |= SA_SIGINFO;
  return w;
}

// Holds the lock, with the thread's signals blocked: a handler may itself call sigaction().
class Locked {
 public:
  Locked() {
    sigset_t all;
    sigfillset(&all);
    change_mask(SIG_BLOCK, &all, &before_);
    pthread_mutex_lock(&process.lock);
  }
  ~Locked() {
    pthread_mutex_unlock(&process.lock);
    change_mask(SIG_SETMASK, &before_, nullptr);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  sigset_t before_;
};

// Puts the trampoline around whatever handler the kernel has. Under the lock.
void wrap_present(int sig) {
  struct sigaction now {};
  if (next.sigaction(sig, nullptr, &now) != 0 || !is_wanted(sig, now) || is_wrapped(now)) return;
  store(sig, now);
  const struct sigaction w = wrapped(now);
  next.sigaction(sig, &w, nullptr);
}

bool wrapping() { return process.wrapping.load(std::memory_order_acquire) && !thread.inside(); }

// After a call of libc's that may have installed a handler of the application: the trampoline goes around it.
void adopt(int sig) {
  if (!wrapping() || sig < 1 || sig >= _NSIG) return;
  const int before = errno;
  {
    Locked lock;
    wrap_present(sig);
  }
  errno = before;
}

// One of the older calls: libc's own knows best what it installs. What it returns may be the trampoline.
template <class F>
sighandler_t older(int sig, F real) {
  const bool mine = wrapping() && sig >= 1 && sig < _NSIG;
  const Action before = mine ? current_action(sig) : Action{};
  const sighandler_t old = real();
  adopt(sig);
  if (mine && reinterpret_cast<void*>(old) == reinterpret_cast<void*>(&trampoline)) return before.plain;
  return old;
}

}  // namespace

Action current_action(int sig) {
  const Slot& s = slots[sig];
  for (;;) {
    const std::uint32_t version = s.version.load(std::memory_order_acquire);
    Action a{};
    a.detailed =
        reinterpret_cast<void (*)(int, siginfo_t*, void*)>(s.handler.load(std::memory_order_relaxed));
    a.flags = s.flags.load(std::memory_order_relaxed);
    a.mask = s.mask.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((version & 1) == 0 && s.version.load(std::memory_order_relaxed) == version) return a;
  }
}

void start_wrapping() {
  process.wrapping.store(true, std::memory_order_release);
  const int before = errno;
  for (int sig = 1; sig < _NSIG; ++sig) wrap_present(sig);
  errno = before;
}

namespace always {

int sigaction(int sig, const struct sigaction* act, struct sigaction* old) {
  if (!wrapping() || sig < 1 || sig >= _NSIG) {
    const int result = next.sigaction(sig, act, old);
    if (result == 0 && act != nullptr) adopt(sig);  // the engine may have been loaded in between
    return result;
  }
  struct sigaction wanted {};
  if (act != nullptr) wanted = *act;
  const bool wrap = act != nullptr && is_wanted(sig, wanted);
  struct sigaction was {};
  int result = 0;
  {
    Locked lock;
    result = next.sigaction(sig, nullptr, &was);
    if (result == 0) {
      const bool had = is_wrapped(was);
      unwrap(sig, was);
      if (wrap) store(sig, wanted);
      const struct sigaction w = wrap ? wrapped(wanted) : wanted;
      if (act != nullptr) result = next.sigaction(sig, &w, nullptr);
      if (result != 0 && wrap && had) store(sig, was);
    }
  }
  if (result == 0 && old != nullptr) *old = was;
  return result;
}

sighandler_t signal(int sig, sighandler_t h) {
  return older(sig, [=] { return next.signal(sig, h); });
}
sighandler_t __sysv_signal(int sig, sighandler_t h) {
  return older(sig, [=] { return next.__sysv_signal(sig, h); });
}
sighandler_t sigset(int sig, sighandler_t h) {
  return older(sig, [=] { return next.sigset(sig, h); });
}

// libc's changes the flags of the action that is installed, whosever it is.
int siginterrupt(int sig, int interrupt) {
  const int result = next.siginterrupt(sig, interrupt);
  if (result != 0 || !wrapping()) return result;
  Locked lock;
  struct sigaction now {};
  if (next.sigaction(sig, nullptr, &now) == 0 && is_wrapped(now)) {
    unwrap(sig, now);
    store(sig, now);
  }
  return result;
}

}  // namespace always
}  // namespace mtcp::preload

// Waiting: every call that may block goes through a WaitLoop. It spins while driving the stack, or where there are more
// stacks than CPUs gives its CPU away once (yielding.hh), then sleeps in one ppoll on the device, the application's kernel
// descriptors, a wake-up descriptor and the next timer.
#pragma once

#include <poll.h>
#include <signal.h>
#include <time.h>

#include <mutex>
#include <span>
#include <vector>

#include "intercept/shards/guard.hh"
#include "intercept/descriptors/socket.hh"
#include "intercept/waiting/watch.hh"
#include "stack/base/time.hh"

namespace mtcp::intercept {

class Process;

// When a call with this timeout (null: never) gives up; a timeout of 0 is a time that has passed.
[[nodiscard]] stack::Time deadline_of(const timespec* timeout, stack::Time now);

// One waiting call. Use:
//   WaitLoop wait(process, lock, deadline, mask);
//   for (;;) { wait.turn(); if (something is ready) return it; if (int e = wait.idle(fds, attach)) return e;
//   }
// The lock is held on entry and exit of every function and released while the thread spins or sleeps.
class WaitLoop {
 public:
  // `mask` non-null: the thread's signal mask while the loop lives, as ppoll(2) has it.
  WaitLoop(Process& process, Guard& lock, stack::Time deadline, const sigset_t* mask);
  ~WaitLoop();
  WaitLoop(const WaitLoop&) = delete;
  WaitLoop& operator=(const WaitLoop&) = delete;

  // This wait is for something on the stack: turn() starts one, again and again while another process has the queue.
  void require_stack() { needs_stack_ = true; }
  // Runs the stack once, if there is one.
  void turn();
  // The time of the last turn().
  [[nodiscard]] stack::Time now() const { return now_; }
  [[nodiscard]] bool expired() const { return now_ >= deadline_; }
  // Whether kernel descriptors, last looked at at `checked`, should be looked at in this turn.
  [[nodiscard]] bool kernel_due(stack::Time checked) const;
  // If nothing is ready, the next thing to be done is a sleep, for which the kernel is asked about its descriptors anyhow.
  [[nodiscard]] bool will_sleep() const;
  // Nothing was ready. 0: look again; -EAGAIN: the deadline has passed; -EINTR: a signal handler ran. `fds`:
  // kernel descriptors that may end the sleep (revents are filled in after one). attach(Sleeper&) is called,
  // with the lock held, before a sleep: it registers whatever wakes the sleeper; what it registered is the
  // caller's to undo.
  template <typename Attach>
  int idle(std::span<pollfd> fds, Attach&& attach) {
    int result = 0;
    asked_ = false;
    if (!must_sleep(result)) return result;
    Sleeper& sleeper = borrow();
    attach(sleeper);
    result = sleep(sleeper, fds);
    give_back(sleeper);
    return result;
  }
  // The last idle() has asked the kernel about its `fds`: what has no revents was not ready just before now().
  [[nodiscard]] bool asked() const { return asked_; }
  // For calls that restart after a handler with SA_RESTART (signal(7)).
  void set_restart(bool restart) { restart_ = restart; }

 private:
  [[nodiscard]] bool spins() const;
  void note_spun(stack::Time before);
  bool must_sleep(int& result);
  bool yields();
  Sleeper& borrow();
  void give_back(Sleeper& s);
  int sleep(Sleeper& sleeper, std::span<pollfd> fds);
  bool prepare_sleep(stack::Time& until);
  void finish_sleep(bool goes_on);
  int interrupted();

  Process& process_;
  Guard& lock_;
  stack::Time deadline_;
  stack::Time now_{};
  stack::Time spin_until_{};
  bool slept_ = false;  // and has not yet looked what woke it
  bool spun_ = false;   // since the last turn()
  bool went_on_ = false;  // the last sleep was to be followed by another: nobody has been told that it is over
  bool asked_ = false;
  std::uint32_t signals_;
  bool restart_ = false;
  bool needs_stack_ = false;
  bool masked_ = false;
  sigset_t old_mask_{};
  std::vector<pollfd> sleep_fds_;
  std::vector<Instance*> asleep_;  // the stacks on whose behalf this thread sleeps
};

// Waits until poll_events(s) has one of `events` (EPOLLERR and EPOLLHUP always count). The caller holds the
// socket (Socket::holds) and looks at it afresh afterwards. 0; -EAGAIN when `deadline` has passed; -EINTR
// when a handler ran (unless it restarts and `restart` is true). For a listener that also listens in the
// kernel, a connection there counts.
int wait_for(Process& process, Guard& lock, Socket& s, std::uint32_t events,
             stack::Time deadline, bool restart);

}  // namespace mtcp::intercept

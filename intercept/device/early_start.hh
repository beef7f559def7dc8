// A program that listens and then does something else for a while (loads data, waits for a pipe) is to be found and
// answered meanwhile, as in the kernel. A short time after listen(), unless it has forked or ended by then, a thread gives it
// its stack; from then on the service thread serves it.
#pragma once

#include <pthread.h>

#include "stack/base/time.hh"

namespace mtcp::intercept {

class Process;

// All but end() with the process's lock held.
class EarlyStart {
 public:
  explicit EarlyStart(Process& process) : process_(process) {}
  // There is a new listener.
  void arm();
  // Not any more: it forks, or ends.
  void cancel() { due_ = stack::kNever; }
  // The process's end, with no lock held: waits for the thread, which may be in the middle of a start.
  void end();
  // In the child of a fork: there is no such thread.
  void abandon() { running_ = false; }

 private:
  static void* main(void* self);
  void wait();

  Process& process_;
  stack::Time due_ = stack::kNever;
  pthread_t thread_{};  // while running_
  bool running_ = false;
  bool awaited_ = false;  // its end is; else it leaves nothing to be collected
};

}  // namespace mtcp::intercept

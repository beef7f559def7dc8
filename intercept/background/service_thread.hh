// The service thread: one thread per stack that keeps it alive while the application does not call. It
// looks about once a millisecond; if nobody has run the stack since, and nobody sleeps on its behalf, it runs
// it itself, and when there is nothing to do sleeps on the device. While a thread of the application sleeps on the
// stack's behalf it is standby: that thread wakes it when it goes back to work, and the looking begins again. So packets
// wait no longer than two looks whatever the application does, other stacks' packets on a shared device included.
// That of the first stack also answers mtcp-stat and mtcp-dump, serves the relays, and lets other processes in.
#pragma once

#include <poll.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "intercept/background/dump_server.hh"
#include "intercept/waiting/watch.hh"
#include "stack/base/time.hh"

namespace mtcp::intercept {

class Process;
struct Shard;

class ServiceThread {
 public:
  // Starts the thread, with all signals blocked. With all locks held.
  ServiceThread(Process& process, Shard& shard);
  // Ends it. Without the lock.
  ~ServiceThread();
  ServiceThread(const ServiceThread&) = delete;
  ServiceThread& operator=(const ServiceThread&) = delete;
  // There is something new to wait for. Async-signal-safe.
  void wake();
  // The process is about to be killed: the thread ends all connections. Returns when it has, or after a quarter
  // of a second. Async-signal-safe; without the lock.
  void farewell();
  // In the child of a fork: there is no thread, and its descriptors are the parent's, who would seem to live as long as we do.
  void abandon();

 private:
  enum class Farewell : std::uint8_t { no, asked, said };
  void say_farewell();
  static void* main(void* self);
  void loop();
  // Runs the stack if the lock is free. True if it may sleep on the device until `until`: then finish_sleep()
  // is due.
  bool run_stack(stack::Time& until);
  // A thread of the application sleeps: it wakes for packets and for the timers that there were when it went
  // to sleep, not for those that other threads' calls have made since.
  void run_what_is_due();
  void run_relay();
  // The same: asks to be woken when it does no longer; unless it works and sleeps in turn (`application_active`), for then that is
  // looked at now and then. True if there may be a wake-up to be taken note of.
  // `until`: not longer than then.
  bool stand_by(bool application_active, stack::Time& until);
  void end_standby();
  // Sleeps until then at most, without a lock; `on_device`: until packets come, too, after run_stack().
  void wait(stack::Time until, bool on_device);
  // What has come meanwhile for the process: wake-ups, relays, processes at the door, its end. True if relays
  // have moved bytes.
  bool serve_process();
  // What comes now and then, and mtcp-stat and mtcp-dump.
  void serve_tools();

  Process& process_;
  Shard& shard_;
  pthread_t thread_{};
  std::atomic<bool> stop_{false};
  std::atomic<Farewell> farewell_{Farewell::no};
  bool running_ = false;
  int wake_fd_ = -1;
  Sleeper standby_;
  stack::Time woken_{};  // from standby, last
  stack::Duration tick_ = stack::milliseconds(1);  // how soon it is noticed that the application has gone off to compute
  unsigned unneeded_ = 0;  // looks in a row that found it at work in its calls
  int stat_fd_ = -1;
  DumpServer dump_;
  stack::Time next_notices_{};
  std::vector<int> pollable_;
  std::vector<pollfd> fds_;
};

}  // namespace mtcp::intercept

// This process's stack: a Worker with its port. Private memory of the process that polls it; after a
// fork the child has none until it needs one.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "intercept/options.hh"
#include "intercept/sockets/mapped_files.hh"
#include "intercept/support/clock.hh"
#include "intercept/waiting/watch.hh"
#include "intercept/waiting/yielding.hh"
#include "stack/port/device.hh"
#include "stack/worker.hh"

namespace mtcp::intercept {

class Kernel;
class KernelFollower;
class Relay;

class Instance {
 public:
  // Starts a stack on `device` (no port: loopback only) with packets from `pool`. `follower`: whose networking it has part in, or
  // null; outlives it.
  Instance(const Options& options, stack::OwnedAttachment device, std::unique_ptr<stack::PacketPool> own_pool, const stack::Secrets& secrets, KernelFollower* follower = nullptr);
  ~Instance();

  [[nodiscard]] stack::Worker& worker() { return *worker_; }
  [[nodiscard]] stack::Port* port() { return port_; }
  [[nodiscard]] const stack::OwnedAttachment& device() const { return device_; }
  // This stack's on a device that it shares with others.
  [[nodiscard]] std::uint32_t slot() const { return slot_; }
  [[nodiscard]] const stack::Stats& stats() const { return stats_; }
  [[nodiscard]] stack::Stats& stats() { return stats_; }
  [[nodiscard]] const stack::PacketPool& pool() const { return port_ ? port_->pool() : *own_pool_; }

  // --- with the process's lock held
  // Sends what waits, receives, processes, and tells the watchers of sockets whose readiness changed. Returns
  // what Worker::poll does. Calls port service when its time has come.
  std::size_t turn(stack::Time now);
  // A call has moved so many bytes. Now and then that takes a turn(): an application that moves megabytes
  // between two waits would keep all of them in memory until their ACKs are looked at, far more than the
  // CPU's caches hold.
  void moved(std::size_t bytes) {
    moved_ += std::max<std::size_t>(bytes, kLeastMoved);
    if (moved_ >= kMovedPerTurn) (void)turn(intercept::now());
  }
  // A call has queued something. Threads that sleep in a call of ours are woken by packets and timers only,
  // and the caller may go on to something that is not ours (the next job of a pool): what it queued goes out
  // now.
  void hand_over() {
    if (sleeping.load(std::memory_order_relaxed) == 0) return;
    if (worker_->pending()) hand_over_now();
    // A timer that the call has armed runs out before anybody wakes up.
    if (standby != nullptr && worker_->next_deadline() < std::min(asleep_until_, standby_until)) [[unlikely]]
      std::exchange(standby, nullptr)->wake();
  }
  // What is on the loopback wire arrives: for a call that looks at one of its sockets.
  void settle_loopback() {
    if (worker_->network().loopback_waiting()) settle_loopback_now();
  }
  // Tells the watchers of sockets whose readiness a call (not a packet) has changed.
  void dispatch();
  // What the port has to tell whoever runs the program goes to the log. Part of prepare_sleep(); for programs that never
  // sleep the service thread calls it.
  void log_notices();
  // Before a sleep: sends everything, arms the port. False: there is work, do not sleep. On true `latest` is
  // how long to sleep at most, and finish_sleep() must follow.
  bool prepare_sleep(stack::Time now, stack::Time& latest);
  // `goes_on`: the thread is about to sleep again, so that whoever is `standby` need not wake up for it.
  void finish_sleep(bool goes_on = false);
  // After that, the thread does not sleep again.
  void wake_standby();
  [[nodiscard]] std::span<const int> pollable();
  // Whoever has nothing to do may poll for a while: not if that takes a CPU from another stack of the device, ...
  [[nodiscard]] bool may_spin() const { return device_.steering == nullptr || !device_.steering->crowded(); }
  [[nodiscard]] bool may_spin(stack::Time now) const { return now >= spins_again_ && may_spin(); }
  // ... and not for a while after another program took it from a thread that polled: it may be the peer.
  void was_preempted(stack::Time now) { spins_again_ = now + kNoSpin; }
  // The last turn() found something that concerned one of our connections or listeners, as far as that can be told cheaply:
  // not only segments that were refused.
  [[nodiscard]] bool moved_on() const { return moved_on_; }

  // Before a sleep: whether to give the CPU away first. Only where there are more stacks than CPUs.
  [[nodiscard]] bool should_yield(stack::Time now) { return !may_spin() && yielding_.due(now); }
  void yielded(stack::Time before, stack::Time now) { yielding_.yielded(before, now); }

  MappedFiles mapped_files;  // that packets of this stack refer to
  Kernel* kernel = nullptr;  // sends SIGURG; may be null
  Relay* relay = nullptr;  // moves bytes when its connections become ready; may be null
  // Who wants to be woken by a call that arms an earlier timer and, if it `standby_follows`, when the last of the sleepers is
  // back. Lock held.
  Sleeper* standby = nullptr;
  bool standby_follows = true;
  stack::Time standby_until{};  // when that one wakes up by itself
  // Whether each timer that there is wakes one of the sleepers in time: not known once one of several has gone.
  [[nodiscard]] bool sleepers_know_timers() const { return asleep_until_ != stack::kNever; }

  // How often turn() has been called, and how many threads sleep on its behalf: what the service thread looks at
  // without the lock.
  std::atomic<std::uint64_t> turns{0};
  std::atomic<std::uint32_t> sleeping{0};
  std::uint64_t useful_turns = 0;  // of those, how many found something to handle. Lock held.

 private:
  void hand_over_now();
  void settle_loopback_now();
  // No sleep is longer than this while there is a device: a lost wake-up costs a tenth of a second, not a hang. It doubles with every sleep
  // in which nothing came: idle is idle.
  static constexpr stack::Duration kLongestSleep = stack::milliseconds(100), kLongestIdle = stack::seconds(1);
  static constexpr stack::Duration kNoSpin = stack::milliseconds(10);
  static constexpr std::size_t kMovedPerTurn = 262144;  // bytes
  static constexpr std::size_t kLeastMoved = 512;       // what a call counts for that moves less

  const std::string device_name_;
  const stack::OwnedAttachment device_;
  stack::Port* const port_;  // the device's
  const std::uint32_t slot_;
  std::unique_ptr<stack::PacketPool> own_pool_;
  KernelFollower* follower_;
  std::vector<int> pollable_;  // what pollable() has returned last, with `follower_`
  stack::Stats stats_;
  std::unique_ptr<stack::Worker> worker_;
  stack::Time last_now_{};
  stack::Duration longest_sleep_ = kLongestSleep;
  stack::Time spins_again_{};
  Yielding yielding_;
  std::size_t moved_ = 0;  // since the last turn
  bool moved_on_ = false;
  stack::Time asleep_until_{};  // when the first of those who sleep wakes up by himself; kNever: not known
};

}  // namespace mtcp::intercept

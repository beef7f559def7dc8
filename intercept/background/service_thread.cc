#include "intercept/background/service_thread.hh"

#include <errno.h>
#include <signal.h>

#include <algorithm>

#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/log.hh"
#include "intercept/background/stat_server.hh"

namespace mtcp::intercept {
namespace {

// While the application runs the stack: how soon its going off to compute is noticed.
constexpr stack::Duration kTick = stack::milliseconds(1);
// The same where there are more stacks than CPUs, and each of them waits longer than that for its turn anyway: at first, and after some looks
// that found the application at work in its calls.
constexpr stack::Duration kCrowdedTick = stack::milliseconds(4), kLongestCrowdedTick = stack::milliseconds(32);
constexpr unsigned kLooksUntilLongest = 3;
// While a thread of the application sleeps in a call of ours, packets and timers wake that thread, and that wakes us; so
// does a call that arms an earlier timer (Instance::hand_over). Only what is left is looked after: where one of several
// sleepers has gone, the others may not know of all timers.
constexpr stack::Duration kStandbyTick = stack::seconds(1);
constexpr stack::Duration kSleeperTick = stack::milliseconds(10);
// An application that works and sleeps in turn, hundreds of times a second, does not wake us: it is looked at so often.
constexpr stack::Duration kAlternatingTick = stack::milliseconds(10);
constexpr stack::Duration kBetweenNotices = stack::milliseconds(250);
// Nothing is open: nobody can need the stack sooner than it takes to open something.
constexpr stack::Duration kIdleTick = stack::milliseconds(10);
constexpr stack::Duration kLongest = stack::seconds(1);
// A process that is killed: what the peers get of this time, and how long the killed thread waits for it.
constexpr stack::Duration kFarewell = stack::milliseconds(100);
constexpr int kFarewellTicks = 250;
// How often the service thread runs the stack before it looks whether the application has come back.
constexpr int kTurns = 16;

// What it waits for, in this order; then what the dump server and the device have.
enum : std::size_t { kWake, kStat, kRelay, kDoor };

}  // namespace

ServiceThread::ServiceThread(Process& process, Shard& shard) : process_(process), shard_(shard), dump_(process) {
  if (shard.index == 0) stat_fd_ = open_stat_socket(process);
  wake_fd_ = process.internal_eventfd();
  standby_.wake_fd = wake_fd_;
  standby_.kernel = &process.kernel;
  sigset_t all, old;
  sigfillset(&all);
  process_.kernel.set_signal_mask(SIG_SETMASK, &all, &old);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  constexpr std::size_t kStack = 256UL << 10;
  pthread_attr_setstacksize(&attributes, kStack);
  const int error = pthread_create(&thread_, &attributes, &ServiceThread::main, this);
  pthread_attr_destroy(&attributes);
  process_.kernel.set_signal_mask(SIG_SETMASK, &old, nullptr);
  running_ = error == 0;
  if (error != 0)
    log(LogLevel::error, "no service thread (error %d): ACKs wait for the application's calls", error);
}

ServiceThread::~ServiceThread() {
  if (running_) {
    stop_.store(true, std::memory_order_relaxed);
    wake();
    pthread_join(thread_, nullptr);
  }
  for (const int fd : {wake_fd_, stat_fd_}) {
    if (fd < 0) continue;
    process_.files.clear(fd);
    process_.kernel.close(fd);
  }
}

void ServiceThread::abandon() {
  running_ = false;
  dump_.abandon();
  for (const int fd : {wake_fd_, stat_fd_}) {
    if (fd < 0) continue;
    process_.files.clear(fd);
    process_.kernel.close(fd);
  }
}

void ServiceThread::wake() {
  const std::uint64_t one = 1;
  (void)process_.kernel.write(wake_fd_, &one, sizeof one);
}

void ServiceThread::farewell() {
  if (!running_) return;
  Farewell expected = Farewell::no;
  if (farewell_.compare_exchange_strong(expected, Farewell::asked)) wake();
  for (int i = 0; i < kFarewellTicks && farewell_.load(std::memory_order_acquire) != Farewell::said; ++i)
    sleep_for(process_.kernel, kTick);
}

void ServiceThread::say_farewell() {
  const Guard guard(process_, Guard::Everything{});
  process_.end_connections(kFarewell, false);
  farewell_.store(Farewell::said, std::memory_order_release);
}

void* ServiceThread::main(void* self) {
  static_cast<ServiceThread*>(self)->loop();
  return nullptr;
}

bool ServiceThread::run_stack(stack::Time& until) {
  const Guard guard(shard_, std::try_to_lock);
  until = now() + kTick;
  if (!guard.owns_lock() || shard_.instance == nullptr) return false;
  Instance& instance = *shard_.instance;
  if (!shard_.attended.empty()) process_.review_attention(shard_);
  bool may_sleep = false;
  for (int i = 0; i < kTurns && !may_sleep; ++i) {
    instance.turn(now());
    may_sleep = instance.prepare_sleep(now(), until);
  }
  // A busy stretch is followed by the next tick, not by a sleep.
  if (!may_sleep) {
    until = now() + kTick;
    return false;
  }
  if (!shard_.attended.empty()) until = std::min(until, now() + kTick);
  const auto pollable = instance.pollable();  // which another thread may change
  pollable_.assign(pollable.begin(), pollable.end());
  const bool quiet = instance.worker().connections() == 0 && process_.options.device.port.empty();
  if (quiet) until = std::min(until, now() + kIdleTick);
  return true;
}

void ServiceThread::run_what_is_due() {
  const Guard guard(shard_, std::try_to_lock);
  if (!guard.owns_lock() || shard_.instance == nullptr) return;
  Instance& instance = *shard_.instance;
  const stack::Time t = now();
  if (instance.worker().pending() || instance.worker().next_deadline() <= t) (void)instance.turn(t);
}

// Serves the relays, and sends what they have moved.
void ServiceThread::run_relay() {
  const Guard guard(process_, Guard::Everything{});
  process_.relay.serve();
  const stack::Time t = now();
  process_.for_each_stack([t](Instance& i) { i.turn(t); });
}

bool ServiceThread::stand_by(bool application_active, stack::Time& until) {
  const Guard guard(shard_, std::try_to_lock);
  if (!guard.owns_lock() || shard_.instance == nullptr) return false;
  if (!shard_.attended.empty()) process_.review_attention(shard_);
  Instance& instance = *shard_.instance;
  const bool paced = instance.worker().pacing_deadline() != stack::kNever;
  tick_ = instance.may_spin() || !shard_.attended.empty() ? kTick
          : paced                                         ? kCrowdedTick
                                                          : std::min<stack::Duration>(kCrowdedTick * (1 << unneeded_), kLongestCrowdedTick);
  if (!shard_.attended.empty() || wake_fd_ < 0 || instance.sleeping.load(std::memory_order_relaxed) == 0) return false;
  // To be woken costs the application a system call, and a CPU for a moment: where it works and sleeps in turn, thousands of times
  // a second, once a tick is enough.
  if (now() - woken_ < tick_) {
    until = std::min(until, instance.worker().pacing_deadline());
    return false;
  }
  instance.standby = &standby_;
  const bool alternates = application_active && !paced;
  instance.standby_follows = !alternates;
  const stack::Duration tick = alternates ? std::max(tick_, kAlternatingTick) : instance.sleepers_know_timers() ? kStandbyTick : kSleeperTick;
  // Those who sleep may not know of the next burst of what is paced.
  until = std::min(now() + tick, instance.worker().pacing_deadline());
  instance.standby_until = until;
  return true;
}

void ServiceThread::end_standby() {
  const Guard guard(shard_);
  if (shard_.instance != nullptr) shard_.instance->standby = nullptr;
  if (!standby_.woken.load(std::memory_order_relaxed)) return;
  std::uint64_t count = 0;
  (void)process_.kernel.read(wake_fd_, &count, sizeof count);
  standby_.woken.store(false, std::memory_order_relaxed);
  woken_ = now();
}

void ServiceThread::wait(stack::Time until, bool on_device) {
  const bool first = shard_.index == 0;
  fds_.clear();
  fds_.push_back({wake_fd_, POLLIN, 0});
  fds_.push_back({stat_fd_, POLLIN, 0});
  fds_.push_back({first ? process_.relay.watch_fd() : -1, POLLIN, 0});
  fds_.push_back({first ? process_.door.fd() : -1, POLLIN, 0});
  dump_.add_descriptors(fds_);
  if (on_device) {
    for (const int fd : pollable_) fds_.push_back({fd, POLLIN, 0});
  }
  const auto rest = std::max(until - now(), stack::Duration::zero());
  const timespec timeout = to_timespec(std::min<stack::Duration>(rest, kLongest));
  process_.kernel.ppoll(fds_.data(), fds_.size(), &timeout, nullptr);
  if (!on_device) return;
  const Guard guard(shard_);
  shard_.instance->finish_sleep();
}

bool ServiceThread::serve_process() {
  const bool relays = fds_[kRelay].revents != 0;
  if (fds_[kWake].revents != 0) {
    std::uint64_t count = 0;
    (void)process_.kernel.read(wake_fd_, &count, sizeof count);
  }
  if (relays) run_relay();
  if (fds_[kDoor].revents != 0) {
    const Guard guard(process_, Guard::Everything{});
    process_.door.serve();
  }
  if (farewell_.load(std::memory_order_acquire) == Farewell::asked) say_farewell();
  return relays;
}

void ServiceThread::serve_tools() {
  if (const stack::Time t = now(); t >= next_notices_) {
    next_notices_ = t + kBetweenNotices;
    const Guard guard(shard_, std::try_to_lock);
    if (guard.owns_lock()) shard_.instance->log_notices();
  }
  if (shard_.index == 0) process_.filter_file.look(now());
  dump_.look_at(fds_);
  if (stat_fd_ >= 0 && fds_[kStat].revents != 0) serve_stat(process_, stat_fd_, dump_);
}

void ServiceThread::loop() {
  process_.services.internal_thread();  // libc names lead to libc here, whatever descriptor they are called with
  const Instance& instance = *shard_.instance;
  std::uint64_t seen = instance.turns.load(std::memory_order_relaxed);
  bool relayed = false;  // relays have moved bytes since the stack ran
  while (!stop_.load(std::memory_order_relaxed)) {
    const bool application_active = instance.turns.load(std::memory_order_relaxed) != seen;
    const bool application_sleeps = instance.sleeping.load(std::memory_order_relaxed) > 0;
    stack::Time until = now() + tick_;
    bool on_device = false;
    bool standby = false;
    // What a relay has moved may have set timers that those who sleep do not know of.
    const bool relays = process_.relay.pumping();
    unneeded_ = application_active ? std::min(unneeded_ + 1, kLooksUntilLongest) : 0;
    if (relayed || (!application_active && (!application_sleeps || relays))) {
      tick_ = kTick;
      on_device = run_stack(until);
    } else if (!application_active || application_sleeps) {
      run_what_is_due();
      standby = stand_by(application_active, until);
    }
    seen = instance.turns.load(std::memory_order_relaxed);  // a turn of our own is not the application's
    wait(until, on_device);
    relayed = serve_process();
    if (standby) end_standby();
    serve_tools();
  }
}

}  // namespace mtcp::intercept

#include "intercept/waiting/wait.hh"

#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>

#include "intercept/call.hh"

namespace mtcp::intercept {
namespace {

// Between two turns of a thread that spins. Each takes a microsecond or two when there is nothing to do.
constexpr stack::Duration kPreempted = stack::microseconds(50);

}  // namespace

stack::Time deadline_of(const timespec* timeout, stack::Time now) {
  if (timeout == nullptr) return stack::kNever;
  // A timeout too large for the clock is for ever.
  constexpr std::int64_t kLongest = 1'000'000'000;
  if (timeout->tv_sec > kLongest) return stack::kNever;
  return now + std::chrono::seconds(timeout->tv_sec) + std::chrono::nanoseconds(timeout->tv_nsec);
}

WaitLoop::WaitLoop(Process& process, Guard& lock, stack::Time deadline, const sigset_t* mask)
    : process_(process), lock_(lock), deadline_(deadline), signals_(*process.services.signal_count()) {
  process_.need_stack();
  if (mask == nullptr) return;
  // A handler that the new mask lets through runs at once, before the wait, and ends it: so without the lock.
  masked_ = true;
  lock_.unlock();
  process_.services.begin_sleep();
  process_.kernel.set_signal_mask(SIG_SETMASK, mask, &old_mask_);
  process_.services.end_sleep();
  lock_.lock();
}

WaitLoop::~WaitLoop() {
  if (went_on_) lock_.for_each([](Shard& s) {
    if (s.instance != nullptr) s.instance->wake_standby();
  });
  if (masked_) process_.kernel.set_signal_mask(SIG_SETMASK, &old_mask_, nullptr);
}

// After a turn of polling, which began at `before`.
[[gnu::noinline]] void WaitLoop::note_spun(stack::Time before) {
  spun_ = false;
  if (now_ - before <= kPreempted) return;
  if (Instance* instance = lock_.shard().instance.get(); instance != nullptr) instance->was_preempted(now_);
}

void WaitLoop::turn() {
  const stack::Time before = std::exchange(now_, intercept::now());
  if (spun_) note_spun(before);
  if (spin_until_ == stack::Time{}) spin_until_ = now_ + process_.options.poll.spin;
  if (needs_stack_) (void)process_.ensure_started(lock_);  // it logs why it fails
  const bool slept = std::exchange(slept_, false);
  lock_.for_each([this, slept](Shard& s) {
    if (s.instance == nullptr) return;
    s.instance->turn(now_);
    // What woke us was for a connection: more may follow at once. For a stranger's segment, or another stack's, nobody need poll.
    if (slept && s.instance->moved_on()) spin_until_ = now_ + process_.options.poll.spin;
  });
}

bool WaitLoop::kernel_due(stack::Time checked) const {
  return lock_.shard().instance == nullptr || expired() || now_ - checked >= process_.options.poll.kernel_interval;
}

int WaitLoop::interrupted() {
  if (*process_.services.signal_count() == signals_) return 0;
  if (!restart_ || !process_.services.last_signal_restarts()) return -EINTR;
  signals_ = *process_.services.signal_count();
  return 0;
}

bool WaitLoop::spins() const {
  const Instance* instance = lock_.shard().instance.get();
  if (instance == nullptr || process_.options.poll.busy) return instance != nullptr;
  // One of several processes that serve for another: its peers, its siblings and its parent want the CPUs as well.
  return now_ < spin_until_ && instance->may_spin(now_) && process_.heritage.empty();
}

bool WaitLoop::will_sleep() const {
  return lock_.shard().instance != nullptr && !spins() && !expired() && *process_.services.signal_count() == signals_;
}

// Before a sleep. True: others have had the CPU instead, so look again.
bool WaitLoop::yields() {
  Instance* instance = lock_.shard().instance.get();
  if (instance == nullptr || !instance->should_yield(now_)) return false;
  const stack::Time before = intercept::now();
  lock_.unlock();
  sched_yield();
  lock_.lock();
  instance = lock_.shard().instance.get();  // which another thread may have ended
  if (instance != nullptr) instance->yielded(before, intercept::now());
  return true;
}

bool WaitLoop::must_sleep(int& result) {
  result = interrupted();
  if (result == 0 && expired()) result = -EAGAIN;
  if (result != 0) return false;
  if (!spins()) return !yields();
  spun_ = true;
  lock_.unlock();  // others have their turn
  __builtin_ia32_pause();
  lock_.lock();
  return false;
}

Sleeper& WaitLoop::borrow() {
  Shard& shard = lock_.shard();
  auto& free = shard.free_sleepers;
  if (free.empty()) {
    shard.sleepers.push_back(std::make_unique<Sleeper>());
    Sleeper& s = *shard.sleepers.back();
    s.kernel = &process_.kernel;
    s.wake_fd = process_.internal_eventfd();
    return s;
  }
  Sleeper& s = *free.back();
  free.pop_back();
  return s;
}

void WaitLoop::give_back(Sleeper& s) {
  if (s.woken.load(std::memory_order_relaxed)) {
    std::uint64_t count = 0;
    (void)process_.kernel.read(s.wake_fd, &count,
                               sizeof count);  // non-blocking; nothing to do if it was read already
    s.woken.store(false, std::memory_order_relaxed);
  }
  lock_.shard().free_sleepers.push_back(&s);
}

// For each stack that this wait runs. False: one has something to do.
bool WaitLoop::prepare_sleep(stack::Time& until) {
  asleep_.clear();
  bool ready = true;
  lock_.for_each([&](Shard& s) {
    Instance* instance = s.instance.get();
    if (needs_stack_ && instance == nullptr) until = std::min(until, process_.next_attempt);
    if (instance == nullptr || !ready) return;
    stack::Time latest{};
    ready = instance->prepare_sleep(intercept::now(), latest);
    if (!ready) return;
    until = std::min(until, latest);
    asleep_.push_back(instance);
  });
  if (!ready) finish_sleep(false);
  return ready;
}

void WaitLoop::finish_sleep(bool goes_on) {
  for (Instance* instance : asleep_) {
    // Another thread may have ended it: at exit, or before a fork.
    const bool there = process_.any_stack([&](const Instance& i) { return &i == instance; });
    if (there) instance->finish_sleep(goes_on);
  }
  asleep_.clear();
}

int WaitLoop::sleep(Sleeper& sleeper, std::span<pollfd> fds) {
  stack::Time until = deadline_;
  if (!prepare_sleep(until)) return 0;
  sleep_fds_.assign(fds.begin(), fds.end());
  if (sleeper.wake_fd >= 0) sleep_fds_.push_back({sleeper.wake_fd, POLLIN, 0});
  for (Instance* instance : asleep_) {
    for (const int fd : instance->pollable()) sleep_fds_.push_back({fd, POLLIN, 0});
  }
  // Else the service thread serves the relays.
  const int relays = process_.first().service_thread == nullptr ? process_.relay.watch_fd() : -1;
  if (relays >= 0) sleep_fds_.push_back({relays, POLLIN, 0});
  // Without a wake-up descriptor (EMFILE) the sleep is short instead.
  if (sleeper.wake_fd < 0) until = std::min(until, intercept::now() + stack::milliseconds(1));

  lock_.unlock();
  process_.services.begin_sleep();
  // A handler that runs between the look at the counter and the sleep ends the sleep (Kernel::ppoll).
  int result = 0;
  if (*process_.services.signal_count() == signals_) {
    timespec t{};
    if (until != stack::kNever) t = to_timespec(std::max(until - intercept::now(), stack::Duration::zero()));
    result = process_.kernel.ppoll(sleep_fds_.data(), sleep_fds_.size(), until == stack::kNever ? nullptr : &t, nullptr);
    asked_ = result >= 0;
  }
  process_.services.end_sleep();
  lock_.lock();

  // Nothing came, and only because no sleep is longer than that: it will look once and sleep again.
  const bool goes_on = result == 0 && until != deadline_;
  finish_sleep(goes_on);
  went_on_ = goes_on;
  if (relays >= 0 && sleep_fds_.back().revents != 0) process_.relay.serve();
  std::copy_n(sleep_fds_.begin(), fds.size(), fds.begin());
  now_ = intercept::now();
  spin_until_ = now_;
  slept_ = !goes_on;
  // A handler that the shim does not know of (installed by other means) shows as EINTR alone.
  if (result == -EINTR && *process_.services.signal_count() == signals_) return -EINTR;
  return 0;  // the counter, the deadline and the descriptors are looked at again by the caller's next round
}

namespace {

// While a call waits for a socket.
class Follow {
 public:
  Follow(Guard& guard, const Socket& s) : guard_(guard) { guard.follow(s); }
  ~Follow() { guard_.stop_following(); }
  Follow(const Follow&) = delete;
  Follow& operator=(const Follow&) = delete;

 private:
  Guard& guard_;
};

}  // namespace

int wait_for(Process& process, Guard& lock, Socket& s, std::uint32_t events,
             stack::Time deadline, bool restart) {
  WaitLoop wait(process, lock, deadline, nullptr);
  wait.set_restart(restart);
  const ListenerWait attention(process, s);
  const Follow follow(lock, s);
  if (s.state == Socket::State::listening) wait.require_stack();
  events |= EPOLLERR | EPOLLHUP;
  std::array<pollfd, 2> kernel_fds{};
  stack::Time checked{};
  for (;;) {
    wait.turn();
    if ((stream_events(s) & events) != 0) return 0;
    // A listener that the kernel has, too, or a relayed connection, which it may have become while this waits.
    const bool relayed = s.state == Socket::State::relayed;
    if (relayed && s.fd < 0) return 0;  // closed by another thread
    std::size_t sides = 0;
    if (relayed) kernel_fds[sides++] = {s.fd, static_cast<short>(events & (POLLIN | POLLOUT | POLLRDHUP)), 0};
    if (s.kernel_listens) kernel_fds[sides++] = {s.fd, POLLIN, 0};
    if (s.local_fd >= 0) kernel_fds[sides++] = {s.local_fd, POLLIN, 0};
    if (sides > 0 && wait.kernel_due(checked)) {
      checked = wait.now();
      const timespec zero{};
      if (process.kernel.ppoll(kernel_fds.data(), sides, &zero, nullptr) > 0) return 0;
    }
    PollWaiter waiter;
    const int result = wait.idle({kernel_fds.data(), sides}, [&](Sleeper& sleeper) {
      waiter.sleeper = &sleeper;
      waiter.events = events;
      s.watchers.push_back(waiter);
    });
    if (result != 0) return result;
  }
}

}  // namespace mtcp::intercept

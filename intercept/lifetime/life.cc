// fork, the loss of privileges, exit.
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/local_listener.hh"
#include "intercept/support/log.hh"
#include "intercept/background/service_thread.hh"
#include "stack/delivery.hh"

namespace mtcp::intercept {
namespace {

// Calls `visit` once for every open socket, also for those that only a call in another thread keeps open.
template <typename Visit>
void for_each_socket(Process& process, Visit visit) {
  for (int fd = 0; fd < process.files.end(); ++fd) {
    Socket* s = process.files.socket(fd);
    if (s != nullptr && s->fd == fd) visit(*s);
  }
  process.shards.for_each([&](Shard& shard) {
    for (Socket* s : shard.closed_in_use) visit(*s);
  });
}

// In the child: the threads that wait are not here, and their stacks, where their watchers are, get other
// uses.
void forget_waiters(Watchable& w) {
  Watcher* next = nullptr;
  for (Watcher* i = w.watchers.front(); i != nullptr; i = next) {
    next = w.watchers.next(*i);
    if (i->kind == Watcher::Kind::poll_waiter) i->watch_hook.unlink();
  }
}

// In the child: connections stay the parent's (`channel` leads there), listeners wait for a stack of this process.
void disown(Socket& s, std::int16_t channel) {
  if (s.state == Socket::State::stream) {
    s.state = Socket::State::foreign;
    s.channel = channel;
  } else if (s.state == Socket::State::relayed) {
    if (s.channel < 0) s.channel = channel;  // for its options
    s.scattered = true;
  }
  s.connection = nullptr;
  s.listener = nullptr;
  s.shared = s.state == Socket::State::listening;
  s.wanted = s.watched = s.attention = false;
  s.holds = s.callers = 0;  // the threads that were inside a call are not here
}

void turn_all(Process& process) {
  process.for_each_stack([](Instance& i) { (void)i.turn(now()); });
}

// What still waits for the device, or for a peer to fetch it from memory that it shares with this process:
// the last of it are the resets and FINs that tell the peers of our end.
void flush_all(Process& process) {
  constexpr stack::Duration kAtMost = stack::milliseconds(300);
  const stack::Time end = now() + kAtMost;
  const auto flush = [](Instance& i) { i.worker().flush(now()); };
  const auto undelivered = [](Instance& i) { return i.worker().pending() || (i.port() != nullptr && !i.port()->tx_state().delivered); };
  process.for_each_stack(flush);
  while (process.any_stack(undelivered)) {
    if (now() >= end) return;
    sleep_for(process.kernel, stack::microseconds(100));
    turn_all(process);
    process.for_each_stack(flush);
  }
}

// The kernel would go on sending after the process's end; this stack ends with it. So exit waits until the
// peers have everything, as long as there is progress; who has not got everything then is told so by a reset.
void deliver(Process& process, stack::Duration at_most) {
  std::vector<stack::Delivery> deliveries;
  process.for_each_stack([&](Instance& i) { deliveries.emplace_back(i.worker(), i.device().get(), at_most, now()); });
  for (;;) {
    const stack::Time t = now();
    turn_all(process);
    bool over = true;
    stack::Time until = t + stack::milliseconds(5);
    for (stack::Delivery& d : deliveries) {
      if (d.is_over(t)) continue;
      over = false;
      until = std::min(until, d.until());
    }
    if (over) break;
    process.sleep_on_stacks(until, {});
  }
  // Those who take them over may be slow to make room.
  constexpr stack::Duration kForRoom = stack::milliseconds(300);
  const stack::Time last = now() + kForRoom;
  while (process.any_stack([](Instance& i) { return i.worker().migrate_all(now()) != 0; }) && now() < last) {
    sleep_for(process.kernel, stack::microseconds(500));
    turn_all(process);
  }
  process.for_each_stack([](Instance& i) { i.worker().abort_orphans(now()); });
  flush_all(process);
}

}  // namespace

// One that forks before it has waited for its listeners leaves them to its children: it is no server itself.
void Process::retire(Guard& guard) {
  provisional = false;
  for (Socket* s : listeners)
    if (s->listener != nullptr) end_listening(*s, true);
  deliver(*this, stack::milliseconds(100));
  exiting = true;  // nobody starts another one meanwhile
  guard.unlock();
  shards.for_each([](Shard& s) { s.service_thread.reset(); });
  guard.lock();
  exiting = false;
  bool used = false;  // by another thread, just now
  for_each_socket(*this, [&used](const Socket& s) { used = used || s.connection != nullptr; });
  if (!used) return shards.for_each([](Shard& s) { s.instance.reset(); });
  start_listeners();
  shards.for_each([this](Shard& s) {
    if (s.instance != nullptr && options.service_thread) s.service_thread = std::make_unique<ServiceThread>(*this, s);
  });
}

// With all locks held: sleeps until a stack has something to do or one of `others` is ready, at the latest at `until`.
void Process::sleep_on_stacks(stack::Time until, std::span<const pollfd> others) {
  std::vector<pollfd> fds(others.begin(), others.end());
  std::vector<Instance*> asleep;
  bool ready = true;
  for_each_stack([&](Instance& i) {
    stack::Time latest{};
    ready = ready && i.prepare_sleep(now(), latest);
    if (!ready) return;
    asleep.push_back(&i);
    until = std::min(until, latest);
    for (const int fd : i.pollable()) fds.push_back({fd, POLLIN, 0});
  });
  const auto rest = std::clamp<stack::Duration>(until - now(), stack::Duration::zero(), stack::milliseconds(100));
  const timespec timeout = to_timespec(rest);
  if (ready) (void)kernel.ppoll(fds.data(), fds.size(), &timeout, nullptr);
  for (Instance* i : asleep) i->finish_sleep();
}

void Process::before_fork() {
  Guard guard(*this, Guard::Everything{});
  open_device_early(guard);
  early_start.cancel();
  if (provisional) retire(guard);
  for (Socket* s : listeners) open_local_listener(*this, *s);
  relay.before_fork();
  heritage.before_fork();
  guard.release();  // until after_fork()
}

void Process::after_fork(bool child) {
  if (!child) {
    const Guard guard(*this, std::adopt_lock);
    // The child has these kernel sockets, too: they must not come back from the pool as fresh ones.
    for_each_socket(*this, [this](Socket& s) {
      s.kernel_dirty = true;
      s.forked = s.state == Socket::State::listening;
      if (s.state == Socket::State::relayed) relay.scatter(s);
      watch_changed(s);
    });
    heritage.after_fork_in_parent();
    relay.after_fork_in_parent();
    return;
  }
  first().lock.reset_after_fork();
  pid = ::getpid();
  // Abandoned, not destroyed: their packets, queues and threads are the parent's.
  shards.for_each([](Shard& s) {
    if (s.instance != nullptr && s.instance->device().kernel_share != nullptr) s.instance->device().kernel_share->leave_to_parent();
    (void)s.instance.release();
    if (s.service_thread != nullptr) s.service_thread->abandon();
    (void)s.service_thread.release();
  });
  if (options.device.is_private() && device != nullptr) {
    device->abandon();
    (void)device.release();
  }
  forget_followers();
  release_worker_number();  // the parent's: it is to be free when the parent dies
  early_start.abandon();
  door.stop_knocking();
  asked_since = {};
  const std::int16_t channel = heritage.after_fork_in_child(relay.after_fork_in_child());
  for_each_socket(*this, [channel](Socket& s) {
    disown(s, channel);
    s.kernel_dirty = true;
  });
  for (int fd = 0; fd < files.end(); ++fd) {
    if (Watchable* w = files.watchable(fd); w != nullptr) forget_waiters(*w);
    if (EpollSet* set = files.set(fd); set != nullptr) set->inherited = true;
  }
  shards.for_each([this](Shard& shard) {
    for (Socket* s : shard.closed_in_use) {
      forget_waiters(*s);
      forget_target(*s);
    }
    shard.closed_in_use.clear();
    shard.attended.clear();
    shard.pool.clear();
  });
  interest_version.fetch_add(1, std::memory_order_relaxed);
  forget_waits();
  starts = 0;
  successor = false;  // only one waits for the device
  gather_in_first();
}

// In the child: there is one stack again, and everything belongs to it.
void Process::gather_in_first() {
  if (!shards.several()) return;
  for_each_socket(*this, [this](Socket& s) { s.shard = &first(); });
  for (int fd = 0; fd < files.end(); ++fd) {
    if (EpollSet* set = files.set(fd); set != nullptr) set->shard = set->home = &first();
    if (const Watchable* w = files.watchable(fd); w != nullptr) files.change_owner(fd, *w);
  }
  shards.forget_others();
}

void Process::before_privileges() {
  Guard guard(*this, Guard::Everything{});
  // Some programs give up root before they listen: the configuration can say so of them.
  open_device_early(guard, router.names_as_listener());
}

void Process::at_exit() {
  if (::getpid() != pid) return;  // the child of a vfork: nothing here is its own
  Guard guard(*this, Guard::Everything{});
  early_start.cancel();
  last_of_device = device != nullptr && device->end_of_family();
  if (last_of_device && device->any_unclaimed() && ensure_started() == 0) {
    // Nobody will serve these any more: their peers are told.
    first().instance->worker().part();
    first().instance->device().steering->take_all_unclaimed();
    (void)first().instance->turn(now());
  }
  end_connections(stack::seconds(10), true);
  if (!started() || !options.device.has_many_stacks()) return;
  // The stack leaves its device, so that the others have its queues at once. There is none any more in this process.
  exiting = true;
  guard.unlock();
  shards.for_each([](Shard& s) { s.service_thread.reset(); });
  guard.lock();
  shards.for_each([](Shard& s) { s.instance.reset(); });
}

// The interrupted thread may hold locks of libc's: the service thread does it.
void Process::dying() {
  if (::getpid() == pid && first().service_thread != nullptr) first().service_thread->farewell();
}

void Process::end_connections(stack::Duration at_most, bool others_go_on) {
  if (!started()) return;
  for (int fd = 0; fd < files.end() && others_go_on; ++fd) {
    const Socket* s = files.socket(fd);
    if (s != nullptr && s->state == Socket::State::relayed) (void)kernel.close(fd);  // a relay ends with its last user
  }
  for (int fd = 0; fd < files.end(); ++fd) {
    const Socket* s = files.socket(fd);
    if (s != nullptr && s->listener != nullptr) (void)kernel.close(fd);  // so that it shows whether others have it
  }
  for_each_socket(*this, [this, others_go_on](Socket& s) {
    if (s.connection != nullptr && others_go_on && relay.held(s.serial)) {
      relay.keep(s);
    } else if (s.connection != nullptr) {
      s.connection->user = nullptr;
      s.shard->instance->worker().close(*s.connection, now());
    } else if (s.listener != nullptr) {
      end_listening(s, s.shared || s.forked);
    } else {
      return;
    }
    if (s.state == Socket::State::listening) forget_listener(s);
    s.connection = nullptr;
    s.listener = nullptr;
    s.state = Socket::State::dead;
  });
  others_go_on ? relay.finish() : relay.drop_all();
  deliver(*this, at_most);
}

}  // namespace mtcp::intercept

// Who wants to know when the readiness of something changes. All under the lock of the shard that it belongs to.
#pragma once

#include <atomic>
#include <cstdint>

#include "stack/base/intrusive_list.hh"

namespace mtcp::intercept {

class Kernel;
struct Shard;

// What wakes a thread that sleeps in the kernel (or is about to): an eventfd in its ppoll. Kept by the
// process and lent to a thread for a wait.
struct Sleeper {
  int wake_fd = -1;
  std::atomic<bool> woken{false};  // a wake-up has been written and not been read; those who write it may have different locks
  Kernel* kernel = nullptr;
  void wake();
};

// Membership of an epoll set (EpollItem), a thread that waits (PollWaiter), or a relay (Relayed).
struct Watcher {
  enum class Kind : std::uint8_t { epoll_item, poll_waiter, relay };
  explicit Watcher(Kind k) : kind(k) {}
  stack::ListHook watch_hook;
  Kind kind;
};

// A thread that sleeps until any of `events` may be true.
struct PollWaiter : Watcher {
  PollWaiter() : Watcher(Kind::poll_waiter) {}
  Sleeper* sleeper = nullptr;
  std::uint32_t events = 0;  // EPOLL* bits
};

// Something whose readiness can change: a socket or an epoll set.
struct Watchable {
  enum class Type : std::uint8_t { socket, epoll_set };
  explicit Watchable(Type t) : watchable_type(t) {}
  stack::IntrusiveList<Watcher, &Watcher::watch_hook> watchers;
  Shard* shard = nullptr;  // whose lock covers it; null: an epoll set with members in several. Changed with all locks held
  Type watchable_type;
};

// Tells all watchers that `events` (EPOLL* bits) may have become true.
void notify(Watchable& w, std::uint32_t events);

}  // namespace mtcp::intercept

// The stack's part of an epoll set. The kernel's part is the kernel's own set of the same descriptor.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "intercept/support/lock.hh"
#include "intercept/waiting/watch.hh"
#include "stack/base/time.hh"

namespace mtcp::intercept {

struct EpollSet;
struct EpollItem;

// What the kernel has of a registration with EPOLLONESHOT, in place of the application's data. It stays while the kernel may tell of
// it, which it may do after a close if another process has the descriptor, too.
struct OneShot {
  EpollItem* item = nullptr;  // null: it is gone
};

// One registration: keyed by (set, descriptor, what it referred to), as in Linux.
struct EpollItem : Watcher {
  EpollItem() : Watcher(Kind::epoll_item) {}
  EpollItem(const EpollItem&) = delete;
  EpollItem& operator=(const EpollItem&) = delete;
  ~EpollItem();
  EpollSet* set = nullptr;
  Watchable* target = nullptr;
  int fd = -1;
  std::uint32_t events =
      0;  // interest and EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE; only those flags after a one-shot
  epoll_data_t data{};
  bool local_in_kernel = false;  // and a listener's Unix socket (Socket::local_fd)
  OneShot* one_shot = nullptr; // of `set`, if the kernel's set has that
  bool in_kernel = false;      // the kernel's set has the descriptor too (dual listener, nested set)
  stack::ListHook ready_hook;  // in set->ready
  stack::ListHook set_hook;    // in set->items
};

struct EpollSet : Watchable {
  EpollSet() : Watchable(Type::epoll_set) {}
  stack::IntrusiveList<EpollItem, &EpollItem::ready_hook> ready;
  stack::IntrusiveList<EpollItem, &EpollItem::set_hook> items;
  std::vector<std::unique_ptr<OneShot>> one_shots;
  Lock ready_lock;  // of a set with members in several shards: covers `ready` and `watchers` against their events
  std::uint32_t descriptors = 0;  // dup'ed epoll descriptors
  std::uint32_t holds = 0;        // waits in progress
  std::uint32_t kernel_members = 0;  // registrations in the kernel's set, at least
  std::uint32_t local_members = 0;   // and of listeners' Unix sockets: what comes there is looked for by time only
  std::uint32_t interest_seen = 0;  // Process::interest_version when its listeners were last put on the stack
  stack::Time kernel_checked{};   // when the kernel's part was last looked at
  bool calls_back = false;        // the process's bell is in the kernel's set: see callback.cc
  stack::Time calls_back_until{};
  bool inherited = false;         // came over a fork, and has not been used in this process
  bool lost_members = false;      // since somebody last looked whether those that are left are of one shard
  Shard* home = nullptr;          // that of the thread which fills it: where its connections are brought (dispatch.cc), if they can be
  std::uint32_t waits = 0;        // that have begun while it had members in several shards
  bool turn = false;              // maxevents 1: whose turn it is, the stack's or the kernel's
};

// What may be in epoll_event::events besides interest.
inline constexpr std::uint32_t kEpollFlags = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;

// What `w` would report now (EPOLL* bits).
[[nodiscard]] std::uint32_t events_of(Watchable& w);
// True if the stack's part of the set has something to report; drops registrations that turn out not to be
// ready.
[[nodiscard]] bool has_ready(EpollSet& set);
// Fills `out` with up to n events in Linux's order of service; returns how many.
int collect(EpollSet& set, epoll_event* out, int n);
// What the kernel's set gets of a registration. A one-shot is reported once, by the stack or by one of its sides in the kernel:
// so the kernel has, in place of the application's data, which registration it is.
[[nodiscard]] epoll_event kernel_event(EpollItem& item);
// Takes out of what the kernel has reported the one-shots that have been reported already, and puts the application's data into
// the others; how many are left.
int settle_one_shots(EpollSet& set, epoll_event* events, int n);
// The kernel's set has it no longer.
void forget_one_shot(EpollItem& item);
// What the kernel's own set `ep` holds (proc_pid_fdinfo(5)): how many descriptors ...
[[nodiscard]] std::uint32_t kernel_members_of(int ep);
struct KernelMembership {
  int ep = -1;
  epoll_event event{};
};
// ... and which of this process's sets hold `fd`. Slow: reads /proc; once in the life of a set.
[[nodiscard]] std::vector<KernelMembership> memberships_of(int fd);
// Puts the item in its set's ready list and tells who waits for the set.
void make_ready(EpollItem& item);

}  // namespace mtcp::intercept

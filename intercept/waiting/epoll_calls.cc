// epoll_ctl and epoll_wait. The application's set is a kernel set; sockets of the stack are registered here,
// all others there, and a wait serves both.
#include <errno.h>

#include <algorithm>
#include <mutex>

#include "intercept/process.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/memory.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

constexpr std::uint32_t kExclusiveAllowed =
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
constexpr int kDeepestNesting = 5;  // as fs/eventpoll.c

EpollItem* find(EpollSet& set, Watchable& target, int fd) {
  for (Watcher* w = target.watchers.front(); w != nullptr; w = target.watchers.next(*w)) {
    if (w->kind != Watcher::Kind::epoll_item) continue;
    auto& item = static_cast<EpollItem&>(*w);
    if (item.set == &set && item.fd == fd) return &item;
  }
  return nullptr;
}

// How deep sets are nested below `set`, itself included; more than kDeepestNesting also if `sought` is among
// them.
int depth(EpollSet& set, const EpollSet* sought, int level = 1) {
  if (&set == sought || level > kDeepestNesting) return kDeepestNesting + 1;
  int deepest = level;
  for (EpollItem* i = set.items.front(); i != nullptr; i = set.items.next(*i)) {
    if (i->target->watchable_type != Watchable::Type::epoll_set) continue;
    deepest = std::max(deepest, depth(static_cast<EpollSet&>(*i->target), sought, level + 1));
  }
  return deepest;
}

bool has_kernel_side(const Watchable& w) {
  return w.watchable_type == Watchable::Type::epoll_set || static_cast<const Socket&>(w).kernel_listens;
}

// Takes the bell's event out; how many are left.
int without_bell(epoll_event* events, int n, const void* mark) {
  return static_cast<int>(
      std::remove_if(events, events + n, [mark](const epoll_event& e) { return e.data.ptr == mark; }) -
      events);
}

}  // namespace

// The set behind an epoll descriptor, made when the first socket of ours is put into it. -errno if `ep` is no
// epoll descriptor: the kernel says so by its answer to a removal of something that is not there.
int Process::set_of(int ep, int fd, Shard* shard, EpollSet*& set) {
  set = files.set(ep);
  if (set != nullptr) return 0;
  if (files.kind(ep) != FdKind::kernel) return -EINVAL;
  if (fd >= 0) {
    const int probe = kernel.epoll_ctl(ep, EPOLL_CTL_DEL, fd, nullptr);
    if (probe != -ENOENT) return probe == 0 ? -EINVAL : probe;
  }
  set = new EpollSet;
  set->shard = set->home = shard;
  set->descriptors = 1;
  set->kernel_members = kernel_members_of(ep);
  files.put_set(ep, *set);
  call_back(*set, ep);
  join_outer_sets(*set, ep);
  return 0;
}

// A descriptor of the kernel's in a set of ours: the kernel's business, but counted. A close takes it out of
// the set without our knowing, so the count may be too high, which only costs a look.
int Process::kernel_member(int ep, int op, int fd, epoll_event* e) {
  EpollSet* set = files.set(ep);
  const int result = kernel.epoll_ctl(ep, op, fd, e);
  if (set != nullptr && result == 0 && op == EPOLL_CTL_ADD) ++set->kernel_members;
  if (set != nullptr && result == 0 && op == EPOLL_CTL_DEL && set->kernel_members > 0) --set->kernel_members;
  return result;
}

// A set that has just become ours may be in sets that are the kernel's so far: they become ours, too.
void Process::join_outer_sets(EpollSet& inner, int ep) {
  for (const KernelMembership& m : memberships_of(ep)) {
    EpollSet* outer = files.set(m.ep);
    if (outer == nullptr && set_of(m.ep, -1, inner.shard, outer) != 0) continue;
    if (find(*outer, inner, ep) != nullptr) continue;
    auto* item = new EpollItem;
    item->set = outer;
    item->target = &inner;
    item->fd = ep;
    item->events = m.event.events;
    item->data = m.event.data;
    item->in_kernel = true;
    settle_in(*outer, inner);
    inner.watchers.push_back(*item);
    outer->items.push_back(*item);
    if ((item->events & EPOLLONESHOT) == 0) continue;
    epoll_event e = kernel_event(*item);
    (void)kernel.epoll_ctl(m.ep, EPOLL_CTL_MOD, ep, &e);
  }
}

int Process::epoll_ctl(int ep, int op, int fd, epoll_event* e) {
  Guard guard(*this, files.kind(fd) == FdKind::kernel ? ep : fd);
  // One lock is enough where both are of one shard; a set becomes ours with all of them.
  if (shards.several() && !guard.all()) [[unlikely]] {
    const Watchable* set = guard.covered(ep);
    const bool away = set != nullptr && set->watchable_type == Watchable::Type::epoll_set && static_cast<const EpollSet*>(set)->home != set->shard;
    if (set == nullptr || away || (files.kind(fd) != FdKind::kernel && guard.covered(fd) == nullptr)) guard.widen();
  }
  if (listeners_move && op == EPOLL_CTL_ADD) [[unlikely]] bring_to_thread(guard, fd);
  // What is reserved is closed, as far as the application knows.
  if (files.kind(fd) == FdKind::reserved || files.kind(ep) == FdKind::reserved) return -EBADF;
  Watchable* target = guard.covered(fd);
  Socket* s = target != nullptr && target->watchable_type == Watchable::Type::socket ? static_cast<Socket*>(target) : nullptr;
  if (EpollSet* set = files.set(ep); set != nullptr && set->inherited) claim_members(*this, *set);
  if (s != nullptr) claim_if_foreign(*this, *s);
  if (s != nullptr && s->state == Socket::State::relayed) return kernel_member(ep, op, fd, e);
  if (target == nullptr) return kernel_member(ep, op, fd, e);
  if (ep == fd) return -EINVAL;
  if (op != EPOLL_CTL_DEL && e == nullptr) return -EFAULT;
  EpollSet* set = files.set(ep);
  if (set == nullptr) {
    Shard* shard = op == EPOLL_CTL_ADD ? shard_of_new_set(guard, *target) : target->shard;
    if (const int error = set_of(ep, fd, shard, set); error != 0) return error;
  }
  EpollItem* item = find(*set, *target, fd);
  switch (op) {
    case EPOLL_CTL_ADD:
      return item != nullptr ? -EEXIST : epoll_add(guard, *set, ep, *target, fd, *e);
    case EPOLL_CTL_MOD:
      return item == nullptr ? -ENOENT : epoll_modify(*item, ep, *e);
    case EPOLL_CTL_DEL:
      if (item == nullptr) return -ENOENT;
      if (item->in_kernel) (void)kernel_member(ep, EPOLL_CTL_DEL, fd, nullptr);
      if (item->local_in_kernel && kernel.epoll_ctl(ep, EPOLL_CTL_DEL, s->local_fd, nullptr) == 0) --set->local_members;
      if (item->one_shot != nullptr) forget_one_shot(*item);
      delete item;
      interest_changed(*target);
      return 0;
    default:
      return -EINVAL;
  }
}

int Process::epoll_add(Guard& guard, EpollSet& set, int ep, Watchable& target, int fd, const epoll_event& e) {
  const bool nested = target.watchable_type == Watchable::Type::epoll_set;
  if ((e.events & EPOLLEXCLUSIVE) != 0 && (nested || (e.events & ~kExclusiveAllowed) != 0)) return -EINVAL;
  if (nested && depth(static_cast<EpollSet&>(target), &set) >= kDeepestNesting) return -ELOOP;
  if (!memory_to_spare()) return -ENOMEM;
  auto* item = new EpollItem;
  item->set = &set;
  item->target = &target;
  item->fd = fd;
  item->events = e.events | EPOLLERR | EPOLLHUP;  // always of interest (epoll_ctl(2))
  item->data = e.data;
  if (has_kernel_side(target)) {
    epoll_event copy = kernel_event(*item);
    if (const int error = kernel.epoll_ctl(ep, EPOLL_CTL_ADD, fd, &copy); error != 0) {
      delete item;
      return error;
    }
    item->in_kernel = true;
    ++set.kernel_members;
  }
  if (!nested && target.shard != set.home) [[unlikely]] gather_in(guard, set, static_cast<Socket&>(target));
  settle_in(set, target);
  target.watchers.push_back(*item);
  set.items.push_back(*item);
  add_local_side(*item, ep);
  interest_changed(target);
  // A thread that waits in this set has shown interest in all that comes into it.
  const bool wanted = set.holds > 0 && want_members(set);
  rearm(*item);
  if (wanted) (void)ensure_started(guard);
  return 0;
}

// Behind a listener's registration its Unix socket, too. Under another number of the same listener it is there already.
void Process::add_local_side(EpollItem& item, int ep) {
  if (item.target->watchable_type != Watchable::Type::socket || item.local_in_kernel || ep < 0) return;
  const int fd = static_cast<const Socket&>(*item.target).local_fd;
  if (fd < 0) return;
  epoll_event e = kernel_event(item);
  if (kernel.epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) != 0) return;
  item.local_in_kernel = true;
  ++item.set->local_members;
}

// A registration of `target` has come, changed or gone.
void Process::interest_changed(Watchable& target) {
  if (target.watchable_type == Watchable::Type::epoll_set) {
    interest_version.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  auto& s = static_cast<Socket&>(target);
  if (s.state != Socket::State::listening) return;
  if (s.listener == nullptr) interest_version.fetch_add(1, std::memory_order_relaxed);
  if (s.callers == 0) stop_attending(s);
  watch_changed(s);
}

int Process::epoll_modify(EpollItem& item, int ep, const epoll_event& e) {
  if (((item.events | e.events) & EPOLLEXCLUSIVE) != 0) return -EINVAL;
  const std::uint32_t events_before = item.events;
  const epoll_data_t data_before = item.data;
  item.events = e.events | EPOLLERR | EPOLLHUP;
  item.data = e.data;
  epoll_event copy = item.in_kernel || item.local_in_kernel ? kernel_event(item) : epoll_event{};
  if (item.in_kernel) {
    if (const int error = kernel.epoll_ctl(ep, EPOLL_CTL_MOD, item.fd, &copy); error != 0) {
      item.events = events_before;
      item.data = data_before;
      return error;
    }
  }
  if (item.local_in_kernel) (void)kernel.epoll_ctl(ep, EPOLL_CTL_MOD, static_cast<const Socket&>(*item.target).local_fd, &copy);
  interest_changed(*item.target);
  rearm(item);
  return 0;
}

// A registration that is new or changed reports what is ready already, edge-triggered or not.
void Process::rearm(EpollItem& item) {
  const std::uint32_t interest = item.events & ~kEpollFlags;
  if (interest != 0 && (events_of(*item.target) & (interest | EPOLLERR | EPOLLHUP)) != 0)
    make_ready(item);
}

int Process::epoll_wait(int ep, epoll_event* out, int n, const timespec* timeout, const sigset_t* mask) {
  if (n <= 0) return -EINVAL;
  Guard guard(*this, ep);
  EpollSet* set = files.set(ep);
  if (set == nullptr) {
    guard.unlock();
    return kernel.epoll_pwait2(ep, out, n, timeout, mask);
  }
  if (set->inherited) claim_members(*this, *set);
  if (set->shard != set->home) [[unlikely]] tend_set(guard, *set);
  ++set->holds;
  guard.follow(*set);
  if (set->interest_seen != interest_version.load(std::memory_order_relaxed) || guard.shard().instance == nullptr) [[unlikely]] {
    if (want_members(*set)) (void)ensure_started(guard);  // it has said why; the kernel's part goes on
  }
  const int result = epoll_wait_loop(guard, *set, ep, {out, static_cast<std::size_t>(n)}, timeout, mask);
  release(*set);
  return result;
}

int Process::epoll_wait_loop(Guard& guard, EpollSet& set, int ep, std::span<epoll_event> out,
                             const timespec* timeout, const sigset_t* mask) {
  const bool forever = timeout == nullptr;
  const bool at_once = !forever && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
  const timespec zero{};
  // A wait that does not wait needs no clock for its deadline.
  WaitLoop wait(*this, guard,
                forever   ? stack::kNever
                : at_once ? stack::Time{}
                          : deadline_of(timeout, now()),
                mask);
  const auto n = static_cast<int>(out.size());
  if (guard.shard().instance == nullptr && want_members(set)) wait.require_stack();
  // The kernel's part is looked at once in a call that has something to return, and by time while it spins.
  for (bool first = true;; first = false) {
    wait.turn();
    // Closed by another thread, and perhaps something else's number by now: then the kernel's part is gone.
    const bool open = files.set(ep) == &set;
    const bool bell_rings = open && still_calls_back(set, ep);
    const bool stack_ready = has_ready(set);
    int count = 0;
    const bool looks = set.kernel_members > 0 && first && stack_ready;
    // Once: if the stack keeps it from sleeping, it is to look.
    const auto asks_soon = [&] { return first && !stack_ready && wait.will_sleep(); };
    if (open && set.kernel_members + set.local_members > 0 && (looks || (wait.kernel_due(set.kernel_checked) && !asks_soon()))) {
      // The kernel's part comes first, but never takes all the room while the stack has something: neither
      // starves.
      set.kernel_checked = wait.now();
      const bool skip = n == 1 && stack_ready && (set.turn ^= true);
      const int room = stack_ready ? (n + 1) / 2 : n;
      if (!skip) count = kernel.epoll_pwait2(ep, out.data(), room, &zero, nullptr);
      if (count < 0) return count;
      if (bell_rings) count = without_bell(out.data(), count, files.table().callback_mark());
      count = settle_one_shots(set, out.data(), count);
    }
    count += collect(set, out.data() + count, n - count);
    if (count > 0) return count;
    PollWaiter waiter;
    pollfd kernel_set{open ? ep : -1, POLLIN, 0};
    const int result = wait.idle({&kernel_set, 1}, [&](Sleeper& sleeper) {
      waiter.sleeper = &sleeper;
      waiter.events = EPOLLIN;
      set.watchers.push_back(waiter);
    });
    if (kernel_set.revents != 0) {
      set.kernel_checked = {};
      // Another process that has this set may have added to it.
      set.kernel_members = std::max(set.kernel_members, 1U);
    } else if (wait.asked()) {
      set.kernel_checked = wait.now();  // what woke us is the stack's
    }
    if (result == -EAGAIN) return 0;
    if (result != 0) return result;
  }
}

void Process::forget_target(Watchable& w) {
  Watcher* next = nullptr;
  for (Watcher* i = w.watchers.front(); i != nullptr; i = next) {
    next = w.watchers.next(*i);
    if (i->kind == Watcher::Kind::epoll_item) {
      delete static_cast<EpollItem*>(i);
    } else if (i->kind == Watcher::Kind::poll_waiter) {
      static_cast<PollWaiter&>(*i).sleeper->wake();  // its call looks again and finds the descriptor gone
    }
  }
}

void Process::move_to_kernel(Socket& s, bool inherited_too) {
  Watcher* next = nullptr;
  for (Watcher* i = s.watchers.front(); i != nullptr; i = next) {
    next = s.watchers.next(*i);
    if (i->kind != Watcher::Kind::epoll_item) continue;
    auto* item = static_cast<EpollItem*>(i);
    if (item->set->inherited && !inherited_too) continue;
    epoll_event e{.events = item->events, .data = item->data};
    const int ep = descriptor_of(*item->set);
    if (ep >= 0 && !item->in_kernel) {
      (void)kernel.epoll_ctl(ep, EPOLL_CTL_ADD, item->fd, &e);
      ++item->set->kernel_members;
    } else if (ep >= 0 && item->one_shot != nullptr) {
      (void)kernel.epoll_ctl(ep, EPOLL_CTL_MOD, item->fd, &e);
    }
    delete item;
  }
}

void Process::sync_kernel_listening(Socket& s) {
  for (Watcher* i = s.watchers.front(); i != nullptr; i = s.watchers.next(*i)) {
    if (i->kind != Watcher::Kind::epoll_item) continue;
    auto& item = static_cast<EpollItem&>(*i);
    if (item.in_kernel) continue;
    epoll_event e = kernel_event(item);
    const int ep = descriptor_of(*item.set);
    item.in_kernel = ep >= 0 && kernel.epoll_ctl(ep, EPOLL_CTL_ADD, item.fd, &e) == 0;
    item.set->kernel_members += item.in_kernel ? 1 : 0;
  }
}

void Process::sync_local_listener(Socket& s) {
  for (Watcher* i = s.watchers.front(); i != nullptr; i = s.watchers.next(*i)) {
    if (i->kind != Watcher::Kind::epoll_item) continue;
    auto& item = static_cast<EpollItem&>(*i);
    add_local_side(item, descriptor_of(*item.set));
  }
}

int Process::descriptor_of(const EpollSet& set) const {
  for (int fd = 0; fd < files.end(); ++fd) {
    if (files.set(fd) == &set) return fd;
  }
  return -1;
}

// As with sockets: who waits in it goes on until his call is over.
void Process::drop_set_descriptor(EpollSet& set) {
  if (--set.descriptors > 0) return;
  if (set.holds == 0) return finish(set);
  if (shards.several()) forget_target(set);  // as Process::drop_descriptor
}

void Process::release(EpollSet& set) {
  if (--set.holds == 0 && set.descriptors == 0) finish(set);
}

void Process::finish(EpollSet& set) {
  while (EpollItem* item = set.items.front()) {
    Watchable& target = *item->target;
    delete item;
    interest_changed(target);
  }
  forget_target(set);
  delete &set;
}

}  // namespace mtcp::intercept

#include "intercept/waiting/epoll.hh"

#include <algorithm>
#include <mutex>

#include "intercept/descriptors/socket.hh"

namespace mtcp::intercept {

std::uint32_t events_of(Watchable& w) {
  if (w.watchable_type == Watchable::Type::socket) return poll_events(static_cast<Socket&>(w));
  return has_ready(static_cast<EpollSet&>(w)) ? EPOLLIN | EPOLLRDNORM : 0U;
}

namespace {

std::uint32_t item_events(EpollItem& item) {
  const std::uint32_t interest = item.events & ~kEpollFlags;
  if (interest == 0) return 0;  // a one-shot that has been reported, waiting for EPOLL_CTL_MOD
  return events_of(*item.target) & (interest | EPOLLERR | EPOLLHUP);
}

}  // namespace

bool has_ready(EpollSet& set) {
  while (EpollItem* item = set.ready.front()) {
    if (item_events(*item) != 0) return true;
    item->ready_hook.unlink();
  }
  return false;
}

int collect(EpollSet& set, epoll_event* out, int n) {
  stack::IntrusiveList<EpollItem, &EpollItem::ready_hook>
      again;  // level-triggered: looked at again next time
  int count = 0;
  while (count < n) {
    EpollItem* item = set.ready.pop_front();
    if (item == nullptr) break;
    const std::uint32_t events = item_events(*item);
    if (events == 0) continue;
    out[count].events = events;
    out[count].data = item->data;
    ++count;
    if ((item->events & EPOLLONESHOT) != 0) {
      item->events &= kEpollFlags;
    } else if ((item->events & EPOLLET) == 0) {
      again.push_back(*item);
    }
  }
  set.ready.splice_back(again);  // behind those that did not fit: everybody has his turn when n is small
  return count;
}

EpollItem::~EpollItem() {
  set->lost_members = true;
  if (one_shot != nullptr) one_shot->item = nullptr;
}

epoll_event kernel_event(EpollItem& item) {
  epoll_event e{.events = item.events, .data = item.data};
  if ((item.events & EPOLLONESHOT) == 0) return e;
  if (item.one_shot == nullptr) item.one_shot = item.set->one_shots.emplace_back(new OneShot{&item}).get();
  e.data.ptr = item.one_shot;
  return e;
}

void forget_one_shot(EpollItem& item) {
  std::erase_if(item.set->one_shots, [&](const auto& o) { return o.get() == item.one_shot; });
  item.one_shot = nullptr;
}

int settle_one_shots(EpollSet& set, epoll_event* events, int n) {
  if (set.one_shots.empty()) [[likely]] return n;
  int left = 0;
  for (int i = 0; i < n; ++i) {
    epoll_event e = events[i];
    const auto found = std::ranges::find(set.one_shots, e.data.ptr, &std::unique_ptr<OneShot>::get);
    if (found != set.one_shots.end()) {
      EpollItem* item = (*found)->item;
      if (item == nullptr || (item->events & ~kEpollFlags) == 0) continue;
      item->events &= kEpollFlags;
      item->ready_hook.unlink();
      e.data = item->data;
    }
    events[left++] = e;
  }
  return left;
}

namespace {

void put_in_ready(EpollItem& item, EpollSet& set) {
  if (item.ready_hook.linked()) return;
  set.ready.push_back(item);
  if (!set.watchers.empty()) notify(set, EPOLLIN | EPOLLRDNORM);
}

}  // namespace

void make_ready(EpollItem& item) {
  EpollSet& set = *item.set;
  if (set.shard != nullptr) [[likely]] return put_in_ready(item, set);
  // An event of one shard; at the same time there may be others of others. Whoever looks at the set holds all locks.
  const std::lock_guard guard(set.ready_lock);
  put_in_ready(item, set);
}

}  // namespace mtcp::intercept

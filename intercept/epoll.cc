#include "intercept/epoll.hh"

#include "intercept/socket.hh"

namespace mtcp::intercept {

std::uint32_t events_of(Watchable& w, const stack::Worker* worker) {
  if (w.watchable_type == Watchable::Type::socket) return poll_events(static_cast<Socket&>(w), worker);
  return has_ready(static_cast<EpollSet&>(w), worker) ? EPOLLIN | EPOLLRDNORM : 0U;
}

namespace {

std::uint32_t item_events(EpollItem& item, const stack::Worker* worker) {
  const std::uint32_t interest = item.events & ~kEpollFlags;
  if (interest == 0) return 0;  // a one-shot that has been reported, waiting for EPOLL_CTL_MOD
  return events_of(*item.target, worker) & (interest | EPOLLERR | EPOLLHUP);
}

}  // namespace

bool has_ready(EpollSet& set, const stack::Worker* worker) {
  while (EpollItem* item = set.ready.front()) {
    if (item_events(*item, worker) != 0) return true;
    item->ready_hook.unlink();
  }
  return false;
}

int collect(EpollSet& set, epoll_event* out, int n, const stack::Worker* worker) {
  stack::IntrusiveList<EpollItem, &EpollItem::ready_hook>
      again;  // level-triggered: looked at again next time
  int count = 0;
  while (count < n) {
    EpollItem* item = set.ready.pop_front();
    if (item == nullptr) break;
    const std::uint32_t events = item_events(*item, worker);
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

void make_ready(EpollItem& item) {
  if (item.ready_hook.linked()) return;
  EpollSet& set = *item.set;
  set.ready.push_back(item);
  if (!set.watchers.empty()) notify(set, EPOLLIN | EPOLLRDNORM);
}

}  // namespace mtcp::intercept

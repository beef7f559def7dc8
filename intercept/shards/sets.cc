// Which shard an epoll set belongs to.
#include <vector>

#include "intercept/process.hh"

namespace mtcp::intercept {
namespace {

bool is_closed(const Watchable& w) {
  const bool socket = w.watchable_type == Watchable::Type::socket;
  return (socket ? static_cast<const Socket&>(w).descriptors : static_cast<const EpollSet&>(w).descriptors) == 0;
}

}  // namespace

// `target` comes into the set. All locks are held if it is another shard's.
void Process::settle_in(EpollSet& set, const Watchable& target) {
  if (set.shard == target.shard) return;
  if (target.shard != nullptr && set.items.empty() && set.holds == 0 && set.watchers.empty()) {
    set.shard = target.shard;
    files.change_owner(set);
  } else {
    share_set(set);
  }
}

// It has members in several shards, and so have the sets that it is in. All locks are held.
void Process::share_set(EpollSet& set) {
  if (set.shard == nullptr) return;
  set.shard = nullptr;
  set.lost_members = false;
  files.change_owner(set);
  // What is closed but held by a call will be freed with its own shard's lock alone.
  EpollItem* next = nullptr;
  for (EpollItem* i = set.items.front(); i != nullptr; i = next) {
    next = set.items.next(*i);
    if (is_closed(*i->target)) delete i;
  }
  std::vector<EpollSet*> outer;
  for (Watcher* w = set.watchers.front(); w != nullptr; w = set.watchers.next(*w)) {
    if (w->kind == Watcher::Kind::epoll_item) outer.push_back(static_cast<EpollItem*>(w)->set);
  }
  for (EpollSet* o : outer) share_set(*o);
}

// Some member has gone. If those that are left are of one shard, so is the set from now on, and who waits in it needs that one's lock
// only. All locks are held.
void Process::return_set(Guard& guard, EpollSet& set) {
  set.lost_members = false;
  EpollItem* const first = set.items.front();
  Shard* const shard = first != nullptr ? first->target->shard : set.home;
  if (shard == nullptr) return;
  for (EpollItem* i = first; i != nullptr; i = set.items.next(*i)) {
    if (i->target->shard == shard) continue;
    i->set_hook.unlink();  // the next look finds it at once
    set.items.push_front(*i);
    return;
  }
  set.shard = shard;
  set.waits = 0;
  files.change_owner(set);
  for (Watcher* w = set.watchers.front(); w != nullptr; w = set.watchers.next(*w)) {
    if (w->kind == Watcher::Kind::epoll_item) static_cast<EpollItem*>(w)->set->lost_members = true;
  }
  guard.narrow(*shard);
}

}  // namespace mtcp::intercept

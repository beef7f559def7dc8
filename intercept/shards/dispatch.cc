// Connections that one thread accepts and another serves (memcached, Netty): they go to the stack of the thread that puts them into its
// epoll set. It has one of its own once there are two threads that do so, where the device can tell flows apart, so that the packets of each
// come to the stack that it has gone to; elsewhere all of them would be copied once more, and the threads go on with one stack.
//
// It is worth it only for connections that last. The first are brought in any case; if it turns out that few packets came for each, what
// is accepted elsewhere stays there from then on, and the sets with it.
#include <netinet/in.h>
#include <sys/epoll.h>

#include <bit>

#include "intercept/call.hh"
#include "intercept/descriptors/arrival.hh"

namespace mtcp::intercept {
namespace {

// To go to another stack costs a connection some 30 us; what a request gains by a stack that is its thread's alone is some 2 us.
constexpr unsigned kJudged = 64;          // connections at a time
constexpr std::uint64_t kWorthIt = 24;  // packets for each

bool is_accepted(const Socket& s) { return s.state == Socket::State::stream && s.connection->was_passive && !s.connection->path->local; }

// Nobody but `set` watches it.
bool is_of(Socket& s, const EpollSet& set) {
  for (Watcher* w = s.watchers.front(); w != nullptr; w = s.watchers.next(*w))
    if (w->kind != Watcher::Kind::epoll_item || static_cast<EpollItem*>(w)->set != &set) return false;
  return true;
}

// The home of connections that have been brought there: `packets` have come to it.
void judge(Shard::Brought& brought, std::uint64_t packets) {
  if (++brought.count < kJudged) return;
  brought.too_short = packets - brought.packets < kJudged * kWorthIt;
  brought.count = 0;
  brought.packets = packets;
}

}  // namespace

// Whose a set is that is about to get its first socket, in the calling thread. All locks are held, or are all that there is.
Shard* Process::shard_of_new_set(Guard& guard, Watchable& first_member) {
  Shard* const there = first_member.shard;
  const bool socket = first_member.watchable_type == Watchable::Type::socket;
  if (!socket || most_stacks() <= 1 || device == nullptr || !device->points_flows() || needs_one_at_a_time()) return there;
  if (!is_accepted(static_cast<const Socket&>(first_member))) return there;
  Shard* own = shards.of_thread();
  if (own == nullptr) {
    if (shards.count() < most_stacks() && !device->has_room()) return there;
    guard.widen();
    own = &guard.claim_shard(most_stacks());
  }
  if (own == there || own->brought.too_short) return there;
  if (ensure_started(*own) == 0) return own;
  shards.assign(*there);  // no slot, or no memory: it goes on without
  return there;
}

// A connection comes into the set that is on another stack than the set's home.
void Process::gather_in(Guard& guard, EpollSet& set, Socket& s) {
  if (!guard.all()) return;
  Shard* own = set.items.empty() ? shards.of_thread() : nullptr;
  if (own != nullptr && own->instance != nullptr) set.home = own;
  Shard* const home = set.home;
  if (home == nullptr || home == s.shard || !is_accepted(s) || !s.watchers.empty()) return;
  if (home->brought.too_short) {
    set.home = s.shard;
    if (!set.items.empty()) move_members(set, *s.shard);
  } else if (bring_connection(s, *home)) {
    judge(home->brought, home->instance->stats().get(stack::Counter::rx_packets));
  }
}

// Those that can. All locks are held.
void Process::move_members(EpollSet& set, Shard& to) {
  share_set(set);
  for (EpollItem* i = set.items.front(); i != nullptr; i = set.items.next(*i)) {
    if (i->target->watchable_type != Watchable::Type::socket || i->target->shard == &to) continue;
    if (auto& s = static_cast<Socket&>(*i->target); is_of(s, set)) (void)bring_connection(s, to);
  }
  set.lost_members = true;  // as seen from the other shards
}

// A wait in a set that is not where its connections are to be: some could not be brought. It tries again, ever less often.
void Process::tend_set(Guard& guard, EpollSet& set) {
  if (set.shard != nullptr) return;
  ++set.waits;
  if (set.home != nullptr && std::has_single_bit(set.waits)) move_members(set, *set.home);
  if (set.lost_members) return_set(guard, set);
}

// What has come and was not read goes along. False: it stays, because a call is at work on it, or its peer has not acknowledged
// something. All locks are held.
bool Process::bring_connection(Socket& s, Shard& to) {
  if (!is_accepted(s) || s.holds != 0 || s.timestamping != nullptr || device == nullptr || !device->points_flows()) return false;
  if (to.instance == nullptr || needs_one_at_a_time()) return false;
  s.shard->instance->dispatch();
  stack::Worker& from = s.shard->instance->worker();
  stack::Worker& worker = to.instance->worker();
  const stack::FlowKey key = s.connection->key;
  const std::size_t unread = from.readable_bytes(*s.connection);
  const std::uint32_t events = poll_events(s);
  worker.expect(key);
  if (!from.pass(*s.connection, to.instance->slot(), now())) {
    worker.stop_expecting(key, now());
    return false;
  }
  s.shard->pool.take_stock(to.pool, s.v6 ? AF_INET6 : AF_INET);
  s.connection = nullptr;
  s.state = Socket::State::dead;
  change_shard(s, to);
  await_brought(s, key, unread);
  // Who watches it hears of what came meanwhile, and of nothing twice.
  const bool more = s.state == Socket::State::stream && worker.readable_bytes(*s.connection) > unread;
  if (const std::uint32_t news = (poll_events(s) & ~events) | (more ? EPOLLIN | EPOLLRDNORM : 0U); news != 0) notify(s, news);
  to.instance->hand_over();
  return true;
}

// Its connection, with so many bytes, lies in a message ring of its new stack.
void Process::await_brought(Socket& s, const stack::FlowKey& key, std::size_t unread) {
  take_arrived(s, await_arrival(*s.shard->instance, key));
  if (s.connection != nullptr) await_bytes(s, unread);
}

}  // namespace mtcp::intercept

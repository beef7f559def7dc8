#include "intercept/waiting/watch.hh"

#include <sys/epoll.h>

#include "intercept/descriptors/socket.hh"
#include "intercept/kernel.hh"
#include "intercept/relay/relay.hh"
#include "intercept/shards/shard.hh"
#include "intercept/waiting/epoll.hh"

namespace mtcp::intercept {

void Sleeper::wake() {
  if (woken.load(std::memory_order_relaxed) || woken.exchange(true, std::memory_order_relaxed)) return;
  const std::uint64_t one = 1;
  // Can't fail: the counter of an eventfd that is read after every wake-up never overflows.
  (void)kernel->write(wake_fd, &one, sizeof one);
}

void notify(Watchable& w, std::uint32_t events) {
  Watcher* next = nullptr;
  for (Watcher* i = w.watchers.front(); i != nullptr; i = next) {
    next = w.watchers.next(*i);
    if (i->kind == Watcher::Kind::poll_waiter) {
      auto& waiter = static_cast<PollWaiter&>(*i);
      if ((waiter.events & events) != 0) waiter.sleeper->wake();
      continue;
    }
    if (i->kind == Watcher::Kind::relay) {
      auto& relayed = static_cast<Relayed&>(*i);
      relayed.relay->note_ready(relayed);
      continue;
    }
    auto& item = static_cast<EpollItem&>(*i);
    const std::uint32_t interest = item.events & ~kEpollFlags;
    if (interest != 0 && ((interest | EPOLLERR | EPOLLHUP) & events) != 0) make_ready(item);
  }
}

std::uint32_t poll_events(const Socket& s) {
  if (s.completions.empty() && s.timestamping == nullptr) [[likely]] return stream_events(s);
  return stream_events(s) | (!s.completions.empty() || has_stamps(s) ? EPOLLERR : 0U);
}

std::uint32_t stream_events(const Socket& s) {
  stack::Readiness r;
  switch (s.state) {
    case Socket::State::undecided:
      if (s.deferred) return EPOLLOUT | EPOLLWRNORM;
      // As tcp_poll() has it in CLOSE.
      return EPOLLOUT | EPOLLWRNORM | EPOLLHUP | (s.error != stack::Errc::ok ? EPOLLERR : 0U);
    case Socket::State::foreign:
    case Socket::State::dead:
      return EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM | EPOLLERR | EPOLLHUP | EPOLLRDHUP;
    case Socket::State::relayed:
      return 0;  // the kernel is asked
    case Socket::State::listening:
      if (s.listener == nullptr) return 0;
      r = s.shard->instance->worker().readiness(*s.listener);
      break;
    case Socket::State::stream:
      r = s.shard->instance->worker().readiness(*s.connection);
      break;
  }
  std::uint32_t rare = 0;
  if (r.error || r.urgent) [[unlikely]] rare = (r.error ? EPOLLERR : 0U) | (r.urgent ? EPOLLPRI : 0U);
  return (r.readable ? EPOLLIN | EPOLLRDNORM : 0U) | (r.writable ? EPOLLOUT | EPOLLWRNORM : 0U) |
         (r.peer_closed ? EPOLLRDHUP : 0U) | (r.hung_up ? EPOLLHUP : 0U) | rare;
}

}  // namespace mtcp::intercept

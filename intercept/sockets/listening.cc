// Which listeners are on this process's stack, and whether anybody waits for their connections.
//
// A listener that this process has made is on its stack at once: in the kernel, too, a handshake needs no accept.
// One that it has inherited goes there when somebody here shows interest in it, by accept, poll, select or a wait on
// an epoll set that has it: nginx's `reuseport` makes a listener for each worker, all of them have all, and each
// polls its own. And of a listener that several processes have, the stack and the device's other users want to know
// whether anybody waits for it just now (nginx's `accept_mutex`): if not, its connections go to who does.
#include <errno.h>
#include <sys/epoll.h>

#include <algorithm>

#include "intercept/call.hh"
#include "intercept/sockets/local_listener.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {
namespace {

// How long a call that waited for a listener, or accepted from it, counts as waiting for it: a program that serves
// what it has accepted and is back soon keeps what comes meanwhile, and one that polls by calling is one that waits.
constexpr stack::Duration kAttention = stack::milliseconds(10);

bool is_epoll_interest(const Watcher& w) {
  // One-shot: between its event and its EPOLL_CTL_MOD the program is at work on the event.
  return w.kind == Watcher::Kind::epoll_item &&
         (static_cast<const EpollItem&>(w).events & (EPOLLIN | EPOLLRDNORM | EPOLLONESHOT)) != 0;
}

bool in_a_set(Socket& s) {
  for (Watcher* w = s.watchers.front(); w != nullptr; w = s.watchers.next(*w)) {
    if (is_epoll_interest(*w)) return true;
  }
  return false;
}

bool is_watched(Socket& s) {
  if (!s.shared && !s.forked) return true;
  return s.callers > 0 || s.attention || in_a_set(s);
}

}  // namespace

int Process::start_listener(Socket& s) {
  if (s.shard->instance == nullptr || s.listener != nullptr) return 0;
  s.listen_options.socket = s.options;
  s.listen_options.v6_only = s.v6_only;
  s.listen_options.reuse_port = s.reuse_port;
  auto listener = s.shard->instance->worker().listen(s.local, s.listen_options);
  if (!listener) return listener.error() == stack::Errc::address_in_use ? -EADDRINUSE : -EADDRNOTAVAIL;
  s.listener = *listener;
  s.listener->user = &s;
  s.watched = false;
  if (!is_watched(s)) s.shard->instance->worker().set_watched(*s.listener, false);  // the stack takes it for watched
  watch_changed(s);
  return 0;
}

// Where the device is open already, here or in a process that was forked from the same, other stacks would refuse what comes
// for a listener that they do not know of.
void Process::start_soon() {
  if (!options.device.has_many_stacks()) return;
  device != nullptr || has_relatives() ? start_for_listeners() : early_start.arm();
}

void Process::start_for_listeners() {
  const bool own = std::any_of(listeners.begin(), listeners.end(), [](const Socket* s) { return !s->shared && !s->forked; });
  if (started() || exiting || successor || !own) return;
  const int error = open_device_now();
  if (error == -EBUSY) early_start.arm();  // until another process has answered
  if (error != 0) return;
  provisional = ensure_started() == 0;
}

void Process::start_listeners() {
  for (int fd = 0; fd < files.end(); ++fd) {
    Socket* s = files.socket(fd);
    if (s == nullptr || s->state != Socket::State::listening || s->listener != nullptr) continue;
    if (s->shared && !s->wanted) continue;
    if (const int e = start_listener(*s); e != 0)
      log(LogLevel::error, "descriptor %d can't listen on the stack: error %d", fd, -e);
  }
}

void Process::want(Socket& s) {
  if (s.state != Socket::State::listening || s.listener != nullptr || s.wanted) return;
  s.wanted = true;
  if (s.shard->instance == nullptr) return;
  if (const int e = start_listener(s); e != 0)
    log(LogLevel::error, "descriptor %d can't listen on the stack: error %d", s.fd, -e);
}

void Process::forget_listener(Socket& s) {
  std::erase(listeners, &s);
  close_local_listener(*this, s);
}

Socket* Process::listener_for(const stack::Endpoint& remote, const Shard* near) const {
  Socket* found = nullptr;
  bool exact = false;
  for (Socket* s : listeners) {
    if (s->local.port != remote.port) continue;
    if (s->local.address == remote.address) {
      if (near == nullptr || s->shard == near) return s;
      if (!exact) found = s;
      exact = true;
    }
    if (exact) continue;
    const bool any = s->local.address.is_any() && (s->v6 ? !remote.address.is_v4() || !s->v6_only : remote.address.is_v4());
    if (any && (found == nullptr || near == nullptr || s->shard == near)) found = s;
  }
  return found;
}

bool Process::want_members(EpollSet& set) {
  bool listens = false;
  for (EpollItem* i = set.items.front(); i != nullptr; i = set.items.next(*i)) {
    if (i->target->watchable_type == Watchable::Type::epoll_set) {
      listens = want_members(static_cast<EpollSet&>(*i->target)) || listens;
      continue;
    }
    auto& s = static_cast<Socket&>(*i->target);
    if (s.state != Socket::State::listening) continue;
    listens = true;
    want(s);
  }
  set.interest_seen = interest_version.load(std::memory_order_relaxed);
  return listens;
}

void Process::watch_changed(Socket& s) {
  if (s.listener == nullptr) return;
  const bool watched = is_watched(s);
  if (watched == s.watched) return;
  s.watched = watched;
  s.shard->instance->worker().set_watched(*s.listener, watched);
}

void Process::begin_wait_for(Socket& s) {
  want(s);
  ++s.callers;
  watch_changed(s);
}

void Process::end_wait_for(Socket& s) {
  --s.callers;
  attend(s);
}

void Process::attend(Socket& s) {
  if (s.listener == nullptr || (!s.shared && !s.forked) || in_a_set(s)) return;
  s.attention_until = now() + kAttention;
  if (!s.attention) s.shard->attended.push_back(&s);
  s.attention = true;
  watch_changed(s);
}

void Process::stop_attending(Socket& s) {
  if (s.attention) std::erase(s.shard->attended, &s);
  s.attention = false;
}

void Process::review_attention(Shard& shard) {
  const stack::Time t = now();
  for (std::size_t i = shard.attended.size(); i-- > 0;) {
    Socket& s = *shard.attended[i];
    if (s.attention_until > t) continue;
    stop_attending(s);
    watch_changed(s);
  }
}

bool Process::is_for_unclaimed(const Socket& s) const {
  return s.state == Socket::State::listening && s.listener == nullptr && !s.shared && device != nullptr &&
         device->unclaimed(s.local);
}

void Process::take_unclaimed(Socket& s) {
  if (ensure_started(*s.shard) == 0 && start_listener(s) == 0) (void)s.shard->instance->turn(now());
}

void Process::end_listening(Socket& s, bool others_go_on) {
  stop_attending(s);
  s.watched = false;
  s.listener->user = nullptr;
  stack::Worker& worker = s.shard->instance->worker();
  others_go_on ? worker.leave(*s.listener, now()) : worker.close(*s.listener, now());
  s.shard->instance->hand_over();  // resets of what was not accepted
  s.listener = nullptr;
}

}  // namespace mtcp::intercept

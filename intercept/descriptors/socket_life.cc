// What becomes of a socket: given to the kernel, let go of, freed.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include <vector>

#include "intercept/call.hh"

namespace mtcp::intercept {

void attach(Socket& s, stack::Connection& c) {
  c.user = &s;
  s.connection = &c;
  s.state = Socket::State::stream;
  s.local = {c.key.local, c.key.local_port};
  s.remote = {c.key.remote, c.key.remote_port};
  if (s.timestamping != nullptr) [[unlikely]] ask_for_stamps(s);
}

int Process::hand_to_kernel(Socket& s) {
  const int error = replay_options(*this, s);
  if (s.nonblocking || s.async) {
    (void)kernel.fcntl(s.fd, F_SETFL, O_RDWR | (s.nonblocking ? O_NONBLOCK : 0) | (s.async ? O_ASYNC : 0));
  }
  move_to_kernel(s, true);
  for (int fd = s.descriptors == 1 ? s.fd : 0; s.descriptors > 0; ++fd) {
    if (files.socket(fd) != &s) continue;
    if (!files[fd].close_on_exec) (void)kernel.fcntl(fd, F_SETFD, 0);
    files.clear(fd);
    --s.descriptors;
  }
  s.state = Socket::State::dead;
  forget_target(s);
  if (s.holds == 0) s.shard->free_socket(s);
  return error;
}

void Process::drop_descriptor(Socket& s) {
  if (--s.descriptors > 0) return;
  if (s.holds == 0) {
    finish(s);
    return;
  }
  // A call in progress in another thread keeps it open until it is over (close(2)). The numbers are gone,
  // though, and the kernel socket with them.
  s.kernel_listens = false;
  s.fd = -1;
  s.shard->closed_in_use.push_back(&s);
  if (!shards.several()) return;
  // The call that holds it may end with its shard's lock alone, and its epoll sets may have members elsewhere by then.
  forget_target(s);
}

void Process::change_shard(Socket& s, Shard& shard) {
  if (s.shard == &shard) return;
  s.shard = &shard;
  s.descriptors == 1 ? files.change_owner(s.fd, s) : files.change_owner(s);
  for (Watcher* w = s.watchers.front(); w != nullptr; w = s.watchers.next(*w)) {
    if (w->kind != Watcher::Kind::epoll_item) continue;
    if (EpollSet& set = *static_cast<EpollItem*>(w)->set; set.shard != &shard) share_set(set);
  }
}

void Process::widen_for_close(Guard& guard, int fd) {
  if (guard.all()) return;
  Watchable* w = files.watchable(fd);
  if (w == nullptr) return guard.widen();  // another thread's by now
  const bool socket = w->watchable_type == Watchable::Type::socket;
  bool needed = socket && static_cast<Socket*>(w)->state == Socket::State::listening;
  for (Watcher* i = w->watchers.front(); i != nullptr; i = w->watchers.next(*i))
    needed = needed || (i->kind == Watcher::Kind::epoll_item && static_cast<EpollItem*>(i)->set->shard == nullptr);
  if (needed) guard.widen();
}

void Process::finish(Socket& s) {
  if (s.connection != nullptr && relay.held(s.serial)) [[unlikely]] {
    relay.keep(s);
  } else if (s.connection != nullptr) {
    s.connection->user = nullptr;
    s.shard->instance->worker().close(*s.connection, now());
    s.shard->instance->hand_over();
  } else if (s.listener != nullptr) {
    end_listening(s, s.shared);
  } else if (is_for_unclaimed(s)) {
    take_unclaimed(s);
    if (s.listener != nullptr) end_listening(s, true);
  } else if (s.state == Socket::State::foreign) {
    heritage.closed(s);
  }
  if (s.state == Socket::State::listening) forget_listener(s);
  s.connection = nullptr;
  s.listener = nullptr;
  s.state = Socket::State::dead;
  forget_target(s);
  s.shard->free_socket(s);
}

void Process::release(Socket& s) {
  if (--s.holds > 0 || s.descriptors > 0) return;
  std::erase(s.shard->closed_in_use, &s);
  finish(s);
}

int Process::close_now(int fd) {
  Socket* s = files.socket(fd);
  if (s == nullptr) {
    EpollSet* set = files.set(fd);
    if (set == nullptr) return -EBADF;
    files.clear(fd);
    drop_set_descriptor(*set);
    return kernel.close(fd);
  }
  const bool last = s->descriptors == 1;
  const bool pooled = last && !s->kernel_dirty && starts == 0;  // else FD_CLOEXEC may be off
  const int family = s->v6 ? AF_INET6 : AF_INET;
  if (!last && s->fd == fd) {
    // The other descriptors share the kernel socket: any of them can stand for it.
    for (int other = 0; other < files.end(); ++other) {
      if (other != fd && files.socket(other) == s) s->fd = other;
    }
  }
  DescriptorPool& pool = s->shard->pool;
  drop_descriptor(*s);
  if (pooled) {
    pool.give(fd, family);
    return 0;
  }
  files.clear(fd);
  return kernel.close(fd);
}

}  // namespace mtcp::intercept

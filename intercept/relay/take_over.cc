// A connection that its owner relays for one child alone becomes the child's: it migrates to a stack there, and nothing is
// carried any more. That costs the child a stack, so it asks only when it has read often. It asks after a read, when a server has
// all of a request and its peer has all that was answered before: then nothing is on its way between the processes, and what the
// stacks have of the connection is short. If it is not so just now, it asks again later.
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <vector>

#include "intercept/call.hh"
#include "intercept/descriptors/arrival.hh"
#include "intercept/process.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/log.hh"
#include "intercept/waiting/epoll.hh"

namespace mtcp::intercept {
namespace {

constexpr std::uint32_t kNoMore = UINT32_MAX;

}  // namespace

// --- the owner

bool Relay::is_used_here(std::uint64_t serial) const {
  for (int fd = 0; fd < process_.files.end(); ++fd) {
    const Socket* s = process_.files.socket(fd);
    if (s != nullptr && s->state == Socket::State::relayed && s->serial == serial) return true;
  }
  return false;
}

void Relay::scatter(Socket& s) {
  s.scattered = true;
  if (const auto r = relayed_.find(s.serial); r != relayed_.end()) r->second->scattered = true;
}

// As Request::Kind::take says.
int Relay::give(const Request& request) {
  const auto found = relayed_.find(request.serial);
  if (found == relayed_.end()) return -EPERM;
  Relayed& r = *found->second;
  if (r.pump < 0 || r.scattered || r.users != 1 || r.users_ended || r.peer_ended || r.users_deaf) return -EPERM;
  if (r.user >= 0 || is_used_here(r.serial)) return -EAGAIN;
  if (request.level < 0) return 0;
  int written = 0, unread = 0;
  (void)process_.kernel.ioctl(r.pump, FIONREAD, &written);
  (void)process_.kernel.ioctl(r.pump, SIOCOUTQ, &unread);
  if (written > (r.byte_left ? 1 : 0) || unread > 0) return -EAGAIN;
  stack::Worker& worker = r.socket->shard->instance->worker();
  if (!worker.pass(*r.socket->connection, static_cast<std::uint32_t>(request.level), now())) return -EAGAIN;
  r.socket->connection = nullptr;
  drop(r);
  return 0;
}

// --- the child

bool Heritage::may_take_over(const Socket& s) const {
  const bool alone = s.state == Socket::State::relayed && s.descriptors == 1 && !s.scattered && s.timestamping == nullptr;
  const bool has_owner = s.channel >= 0 && channels_[static_cast<std::size_t>(s.channel)] >= 0;
  return alone && has_owner && process_.device != nullptr && process_.device->points_flows();
}

void Heritage::take_over(Guard& guard, Socket& s) {
  const Hold hold_it(process_, s);
  s.take_over_at = s.take_over_at < kNoMore / 2 ? s.take_over_at * 2 : kNoMore;
  const int error = try_to_take_over(guard, s);
  if (error != 0 && error != -EAGAIN) s.take_over_at = kNoMore;
}

int Heritage::try_to_take_over(Guard& guard, Socket& s) {
  if (!may_take_over(s)) return -EPERM;
  tell_closed();
  const int channel = channels_[static_cast<std::size_t>(s.channel)];
  Request request{.kind = Request::Kind::take, .fd = s.fd, .serial = s.serial, .level = -1};
  int none = -1;
  if (s.shard->instance == nullptr) {
    if (!process_.device->has_room()) return -EAGAIN;
    if (const int error = ask(channel, request, none); error != 0) return error;
    if (process_.ensure_started(guard) != 0) return -EAGAIN;
    if (!may_take_over(s)) return -EPERM;  // other threads may have had the locks meanwhile
  }
  Instance& instance = *s.shard->instance;
  const int placeholder = process_.kernel.socket(s.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
  if (placeholder < 0) return -EAGAIN;
  const stack::FlowKey key{s.local.address, s.remote.address, s.local.port, s.remote.port};
  instance.worker().expect(key);
  request.level = static_cast<std::int32_t>(instance.slot());
  const int error = ask(channel, request, none);
  stack::Connection* c = nullptr;
  if (error == 0) c = await_arrival(instance, key);
  // An owner that is gone may have sent the connection and not have come to say so; one that refuses has not.
  else if (error == -ECONNRESET) c = await_arrival(instance, key, stack::Duration::zero());
  else instance.worker().stop_expecting(key, now());
  if (c == nullptr && error != 0) {
    process_.kernel.close(placeholder);
    return error;
  }
  process_.become_own(guard, s, c, placeholder);
  return 0;
}

void Process::become_own(Guard& guard, Socket& s, stack::Connection* c, int placeholder) {
  s.nonblocking = is_nonblocking(*this, s);
  const std::vector<KernelMembership> memberships = memberships_of(s.fd);
  for (const KernelMembership& m : memberships) {
    EpollSet* set = files.set(m.ep);
    if (kernel.epoll_ctl(m.ep, EPOLL_CTL_DEL, s.fd, nullptr) == 0 && set != nullptr && set->kernel_members > 0) --set->kernel_members;
  }
  (void)put_behind(*this, s, placeholder);  // else a closed pair is behind the number, which nobody asks
  kernel.close(placeholder);
  s.channel = -1;
  take_arrived(s, c);
  s.serial = s.shard->next_serial();  // no longer the one that the owner knows it by
  for (const KernelMembership& m : memberships) move_from_kernel(guard, s, m);
  for (Watcher* w = s.watchers.front(); w != nullptr; w = s.watchers.next(*w)) {
    if (w->kind == Watcher::Kind::poll_waiter) static_cast<PollWaiter*>(w)->sleeper->wake();
  }
  ++conversions;
}

void Process::move_from_kernel(Guard& guard, Socket& s, const KernelMembership& m) {
  EpollSet* set = nullptr;
  int error = set_of(m.ep, -1, s.shard, set);
  if (error == 0) error = epoll_add(guard, *set, m.ep, s, s.fd, m.event);
  if (error != 0) return log(LogLevel::warning, "descriptor %d: an epoll set has it no longer: error %d", s.fd, -error);
  if ((m.event.events & ~kEpollFlags) != 0) return;
  // A one-shot that has been reported waits for EPOLL_CTL_MOD.
  for (Watcher* w = s.watchers.front(); w != nullptr; w = s.watchers.next(*w)) {
    if (w->kind == Watcher::Kind::epoll_item && static_cast<EpollItem*>(w)->set == set) static_cast<EpollItem*>(w)->events = m.event.events;
  }
}

}  // namespace mtcp::intercept

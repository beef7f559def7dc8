#include "intercept/device/kernel_follower.hh"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <cstring>
#include <utility>

#include "intercept/kernel.hh"
#include "intercept/sockets/address.hh"
#include "intercept/support/clock.hh"
#include "stack/kernel_net/messages.hh"

namespace mtcp::intercept {

using stack::KernelNeighbour;
using stack::netlink::Message;

namespace {

constexpr int kDumpTries = 4;  // of one that the kernel's changes interrupt

// A datagram of the kernel's own, not another process's. `n`: bytes.
bool is_kernels(const msghdr& m, const sockaddr_nl& from) {
  return m.msg_namelen == sizeof from && from.nl_family == AF_NETLINK && from.nl_pid == 0;
}

ssize_t receive(Kernel& kernel, int fd, std::vector<std::byte>& buffer, sockaddr_nl& from, msghdr& m) {
  iovec part{buffer.data(), buffer.size()};
  m = {};
  m.msg_name = &from;
  m.msg_namelen = sizeof from;
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  const ssize_t n = kernel.recvmsg(fd, &m, MSG_DONTWAIT);
  m.msg_iov = nullptr;
  return n;
}

int send_all(Kernel& kernel, int fd, const std::vector<std::byte>& message) {
  iovec part{const_cast<std::byte*>(message.data()), message.size()};
  sockaddr_nl to{};
  to.nl_family = AF_NETLINK;
  msghdr m{};
  m.msg_name = &to;
  m.msg_namelen = sizeof to;
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  return static_cast<int>(kernel.sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
}

}  // namespace

std::unique_ptr<KernelFollower> KernelFollower::open(Kernel& kernel, int fd, const std::string& interface,
                                                     std::string& message) {
  ifreq request{};
  if (interface.empty() || interface.size() >= sizeof request.ifr_name) {
    message = "there is no network interface \"" + interface + "\"";
    return nullptr;
  }
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  if (kernel.ioctl(fd, SIOCGIFINDEX, &request) < 0) {
    message = "there is no network interface " + interface + " here; list them with: ip -br link";
    return nullptr;
  }
  std::unique_ptr<KernelFollower> made(
      new KernelFollower(kernel, fd, interface, static_cast<std::uint32_t>(request.ifr_ifindex)));
  // First the notifications, so that nothing changes in between unnoticed.
  if (made->subscribe() && made->read_view() && made->read_neighbours()) return made;
  message = "the kernel does not tell the addresses and routes of " + interface + " (rtnetlink)";
  return nullptr;
}

bool KernelFollower::subscribe() {
  sockaddr_nl self{};
  self.nl_family = AF_NETLINK;
  self.nl_groups = RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE |
                   RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE | 1U << (RTNLGRP_IPV6_RULE - 1);
  const int room = 1 << 20;
  (void)kernel_.setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  return kernel_.bind(fd_, reinterpret_cast<const sockaddr*>(&self), sizeof self) == 0;
}

void KernelFollower::update_now(stack::Time now) {
  last_look_ = now;
  read_all();
  if (view_stale_ && now >= next_view_) {
    // Whoever changes routes all the time (a routing daemon) does not keep this process busy with reading them.
    constexpr int kShare = 20;
    const stack::Time began = intercept::now();
    view_stale_ = !read_view();
    const stack::Duration pause = kShare * (intercept::now() - began);
    next_view_ = pause < kLeastRest ? now : now + pause;
  }
  if (neighbours_stale_) neighbours_stale_ = !read_neighbours();
  next_look_ = now + (now < expects_until_ ? kLeastInterval : kInterval);
}

// What the kernel had to drop (ENOBUFS), and what did not fit, may have been anything: all is read anew.
void KernelFollower::read_all() {
  constexpr int kMostAtOnce = 1024;
  for (int i = 0; i < kMostAtOnce; ++i) {
    sockaddr_nl from{};
    msghdr m;
    const ssize_t n = receive(kernel_, fd_, buffer_, from, m);
    if (n == -EINTR) continue;
    if (n == -ENOBUFS || (n >= 0 && (m.msg_flags & MSG_TRUNC) != 0)) {
      view_stale_ = neighbours_stale_ = true;
      continue;
    }
    if (n <= 0) return;
    if (!is_kernels(m, from)) continue;
    std::span<const std::byte> rest(buffer_.data(), static_cast<std::size_t>(n));
    for (Message message; stack::netlink::next_message(rest, message);) take(message);
  }
}

void KernelFollower::take(const Message& m) {
  if (KernelNeighbour n; stack::netlink::read_neighbour(m, index_, n)) return note(neighbours_, n);
  if (m.type == NLMSG_ERROR) return take_error(m);
  view_stale_ = view_stale_ || stack::netlink::changes_view(m, index_);
}

// A question that was refused: it is asked in a way that needs no privilege, as all from now on.
void KernelFollower::take_error(const Message& m) {
  const Question& q = questions_[m.sequence % questions_.size()];
  if (stack::netlink::read_error(m) != EPERM || q.sequence != m.sequence) return;
  may_use_ = false;
  send_datagram(q.address);
}

void KernelFollower::note(Neighbours& into, const KernelNeighbour& n) {
  if (n.state == KernelNeighbour::State::unknown) {
    if (into.erase(n.address) == 0) return;
  } else if (into.size() >= kMostNeighbours && !into.contains(n.address)) {
    return;
  } else {
    into.insert_or_assign(n.address, n);
  }
  changed(n.address);
}

void KernelFollower::changed(const stack::IpAddress& a) {
  if (consumed_ && in_changes_.insert(a).second) changes_.push_back(a);
}

KernelNeighbour KernelFollower::neighbour(const stack::IpAddress& a) const {
  const auto at = neighbours_.find(a);
  if (at != neighbours_.end()) return at->second;
  KernelNeighbour none;
  none.address = a;
  return none;
}

bool KernelFollower::next_change(KernelNeighbour& out) {
  consumed_ = true;
  if (changes_.empty()) return false;
  out = neighbour(changes_.front());
  in_changes_.erase(changes_.front());
  changes_.pop_front();
  return true;
}

// On a socket of its own: the kernel allows one such question at a time, and answers as fast as it is read.
template <class Take>
bool KernelFollower::ask(const std::vector<std::byte>& question, Take take) {
  const int fd = kernel_.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return false;
  bool done = false, good = send_all(kernel_, fd, question) >= 0;
  while (good && !done) {
    sockaddr_nl from{};
    msghdr received;
    const ssize_t n = receive(kernel_, fd, buffer_, from, received);
    if (n == -EINTR) continue;
    good = n > 0 && (received.msg_flags & MSG_TRUNC) == 0;
    if (!good || !is_kernels(received, from)) continue;
    std::span<const std::byte> rest(buffer_.data(), static_cast<std::size_t>(n));
    for (Message m; stack::netlink::next_message(rest, m);) {
      good = good && (m.flags & NLM_F_DUMP_INTR) == 0;
      // An error: no such interface. One message alone is a whole answer.
      done = done || m.type == NLMSG_DONE || m.type == NLMSG_ERROR || (m.flags & NLM_F_MULTI) == 0;
      take(m);
    }
  }
  (void)kernel_.close(fd);
  return good;
}

bool KernelFollower::read_view() {
  for (int i = 0; i < kDumpTries; ++i) {
    stack::netlink::ViewBuilder builder(index_);
    const auto take = [&](const Message& m) { builder.take(m); };
    if (!ask(stack::netlink::link_request(index_, 1), take) || !ask(stack::netlink::dump_request(RTM_GETADDR, 1), take) ||
        !ask(stack::netlink::dump_request(RTM_GETRULE, 1), take) || !ask(stack::netlink::dump_request(RTM_GETROUTE, 1), take))
      continue;
    stack::KernelView fresh = builder.finish();
    fresh.generation = view_.generation + 1;
    // Often only a lifetime was extended, or something about another interface.
    if (!fresh.says_the_same_as(view_)) view_ = std::move(fresh);
    return true;
  }
  return false;
}

bool KernelFollower::read_neighbours() {
  for (int i = 0; i < kDumpTries; ++i) {
    Neighbours fresh;
    const auto take = [&](const Message& m) {
      if (KernelNeighbour n; stack::netlink::read_neighbour(m, index_, n)) note(fresh, n);
    };
    if (!ask(stack::netlink::dump_request(RTM_GETNEIGH, 1), take)) continue;
    for (const auto& [address, n] : neighbours_)
      if (!fresh.contains(address)) changed(address);
    neighbours_ = std::move(fresh);
    return true;
  }
  return false;
}

void KernelFollower::use(const stack::IpAddress& neighbour, stack::Time now) {
  consumed_ = true;  // what comes of it must not be missed: it may come before anybody has looked for changes
  expects_until_ = now + kExpects;
  next_look_ = std::min(next_look_, now + kLeastInterval);
  if (!may_use_) return send_datagram(neighbour);
  const std::uint32_t sequence = ++sequence_;
  questions_[sequence % questions_.size()] = {sequence, neighbour};
  (void)send_all(kernel_, fd_, stack::netlink::use_request(neighbour, index_, sequence));
}

// An empty datagram to the discard service (RFC 863): the kernel has to find the neighbour to send it.
void KernelFollower::send_datagram(const stack::IpAddress& to) {
  constexpr std::uint16_t kDiscard = 9;
  const bool v4 = to.is_v4();
  const int fd = kernel_.socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  (void)kernel_.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface_.c_str(), static_cast<socklen_t>(interface_.size()));
  sockaddr_in6 address{};  // or a sockaddr_in, which is smaller
  socklen_t size = sizeof address;
  (void)write_address({to, kDiscard}, !v4, reinterpret_cast<sockaddr*>(&address), &size);
  if (!v4 && stack::is_link_local(to)) address.sin6_scope_id = index_;
  msghdr m{};
  m.msg_name = &address;
  m.msg_namelen = size;
  (void)kernel_.sendmsg(fd, &m, MSG_DONTWAIT | MSG_DONTROUTE | MSG_NOSIGNAL);
  (void)kernel_.close(fd);
}

}  // namespace mtcp::intercept

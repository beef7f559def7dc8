// socket, bind, listen, getsockname, getpeername.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include <algorithm>

#include "intercept/call.hh"
#include "intercept/descriptors/holders.hh"
#include "intercept/sockets/address.hh"
#include "intercept/sockets/freebind.hh"
#include "intercept/sockets/local_listener.hh"
#include "intercept/sockopt/sockopt_kept.hh"
#include "intercept/support/memory.hh"

namespace mtcp::intercept {

// The kernel's choice of port and address, after bind or an automatic one.
int record_local(Process& process, Socket& s) {
  sockaddr_storage a{};
  socklen_t n = sizeof a;
  if (const int error = process.kernel.getsockname(s.fd, reinterpret_cast<sockaddr*>(&a), &n); error != 0)
    return error;
  if (const int error = read_address(reinterpret_cast<sockaddr*>(&a), n, s.v6, s.local); error != 0)
    return error;
  s.bound = true;
  // Of an address of IPv6 the kernel switches it on.
  int only = 0;
  n = sizeof only;
  if (s.v6 && process.kernel.getsockopt(s.fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &n) == 0) s.v6_only = only != 0;
  return 0;
}

namespace {

// An address of the stack that is no address of the kernel: the kernel keeps the port for us all the same.
bool is_stacks_alone(Process& process, const Socket& s, const sockaddr* a, socklen_t n) {
  stack::Endpoint e;
  return !process.options.stack.interface.from_kernel && read_address(a, n, s.v6, e) == 0 &&
         !e.address.is_any() && process.router.owns(e.address, s.shard->kernel_view());
}

// listen(2) on a socket without a name gives it one.
int bind_automatically(Process& process, Socket& s) {
  sockaddr_storage a{};
  a.ss_family = s.v6 ? AF_INET6 : AF_INET;
  const socklen_t n = s.v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  s.kernel_dirty = true;
  if (const int error = process.kernel.bind(s.fd, reinterpret_cast<sockaddr*>(&a), n); error != 0)
    return error;
  return record_local(process, s);
}

int listen_in_kernel(Process& process, Guard& guard, Socket& s, int fd, int backlog) {
  if (const int error = process.hand_to_kernel(s); error != 0) return error;
  guard.unlock();
  return process.kernel.listen(fd, backlog);
}

}  // namespace

int Process::socket(int domain, int type, int protocol) {
  const int base = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
  const bool tcp = (domain == AF_INET || domain == AF_INET6) && base == SOCK_STREAM &&
                   (protocol == 0 || protocol == IPPROTO_TCP);
  if (!tcp) return -ENOTSUP;
  Shard* own = shards.several() ? shards.of_thread() : nullptr;
  const Guard guard(own != nullptr ? *own : first());
  if (!router.may_use_stack()) return -ENOTSUP;
  if (!memory_to_spare()) return -ENOMEM;
  const int fd = guard.shard().pool.take(domain);
  if (fd < 0) return fd;
  Socket& s = *guard.shard().make_socket();
  s.v6 = domain == AF_INET6;
  s.nonblocking = (type & SOCK_NONBLOCK) != 0;
  s.fd = fd;
  s.local.address = s.remote.address = s.v6 ? stack::IpAddress::any_v6() : stack::IpAddress::any_v4();
  files.put_socket(fd, s, (type & SOCK_CLOEXEC) != 0);
  return fd;
}

int Process::bind(int fd, const sockaddr* a, socklen_t n) {
  const Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  if (s->state != Socket::State::undecided) return -EINVAL;
  // What decides about the port (SO_REUSEADDR, SO_REUSEPORT, IPV6_V6ONLY) must be there before.
  if (const int error = replay_options(*this, *s); error != 0) return error;
  s->kernel_dirty = true;
  const int error =
      is_stacks_alone(*this, *s, a, n) ? bind_freely(kernel, fd, s->v6, a, n) : kernel.bind(fd, a, n);
  if (error != 0) return error;
  return record_local(*this, *s);
}

int Process::listen(int fd, int backlog) {
  Guard guard(*this, Guard::Everything{});
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  // As in Linux a negative backlog is a very large one, and somaxconn is the kernel's business.
  const auto wanted = static_cast<std::uint32_t>(backlog < 0 ? 4096 : std::clamp(backlog, 0, 65535));
  if (s->state == Socket::State::listening) {
    s->listen_options.backlog = wanted;
    if (s->listener != nullptr) s->listener->backlog = wanted;
    return kernel.listen(s->fd, backlog);
  }
  if (s->state != Socket::State::undecided) return -EINVAL;
  if (!s->bound) {
    if (const int error = replay_options(*this, *s); error != 0) return error;
    if (const int error = bind_automatically(*this, *s); error != 0) return error;
  }
  follow_kernel(*s->shard);
  miss_interface(s->local.address);
  const Router::Verdict verdict = s->kernel_only ? kKernelOnly : on_kernel ? kWithoutDevice : router.judge_listen(s->local, s->shard->kernel_view());
  const Router::Owner owner = verdict.owner;
  decisions.listens(s->local, verdict);
  if (owner == Router::Owner::kernel) return listen_in_kernel(*this, guard, *s, fd, backlog);

  // The kernel listens in every case: on an address of the stack nothing reaches it there, but it knows who
  // else has the port, in this process or another.
  if (const int error = replay_options(*this, *s); error != 0) return error;
  s->kernel_dirty = true;
  s->marked = s->local.address.is_any() && options.awaits_joining_listeners();
  if (s->marked) mark_listener(kernel, s->fd, s->v6);
  if (const int error = kernel.listen(s->fd, backlog); error != 0) {
    unmark_listener(*this, *s);
    return error;
  }
  s->listen_options.backlog = wanted;
  s->listen_options.socket = s->options;
  s->listen_options.v6_only = s->v6_only;
  s->listen_options.reuse_port = s->reuse_port;
  if (const unsigned most = most_stacks(); most > 1 && options.device.port.empty()) {
    change_shard(*s, guard.claim_shard(most));
    guard.be_about(*s->shard);
  }
  s->state = Socket::State::listening;
  listeners.push_back(s);
  if (const int error = start_listener(*s); error != 0) {
    (void)stop_listening(*this, *s);
    return error;
  }
  if (owner == Router::Owner::both) {
    // accept asks the kernel too, and must not block there.
    (void)kernel.fcntl(s->fd, F_SETFL, O_RDWR | O_NONBLOCK);
    s->kernel_listens = true;
    sync_kernel_listening(*s);
  }
  if (has_relatives()) open_local_listener(*this, *s);
  if (s->shard->instance == nullptr) start_soon();
  if (may_come_to_thread(*s)) {
    listeners_move = true;
    bring_to_thread(guard, *s);
  }
  return 0;
}

int Process::getsockname(int fd, sockaddr* a, socklen_t* n) {
  const Guard guard(*this, fd);
  const Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  return write_address(s->local, s->v6, a, n);
}

int Process::getpeername(int fd, sockaddr* a, socklen_t* n) {
  const Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  settle(*this, *s);
  if (s->state == Socket::State::stream && is_opening(*s->connection)) (void)retry_after_turn(*this, *s);
  if (s->state == Socket::State::foreign || s->state == Socket::State::relayed)
    return write_address(s->remote, s->v6, a, n);
  if (s->state != Socket::State::stream) return -ENOTCONN;
  switch (s->connection->hot.state) {
    case stack::State::closed:
    case stack::State::syn_sent:
    case stack::State::time_wait:
      return -ENOTCONN;
    default:
      return write_address(s->remote, s->v6, a, n);
  }
}

}  // namespace mtcp::intercept

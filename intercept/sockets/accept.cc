// accept4: from the stack's queue, and from the kernel's for a listener that listens there, too.
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include <memory>

#include "intercept/call.hh"
#include "intercept/sockets/address.hh"
#include "intercept/sockets/freebind.hh"
#include "intercept/sockets/local_listener.hh"
#include "intercept/sockopt/sockopt_kept.hh"
#include "intercept/support/memory.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

constexpr int kPoolBatch = 16;              // descriptors to make at once when the pool is empty
constexpr stack::Duration kSlotPatience = stack::seconds(1);  // who has one may be about to leave
constexpr unsigned kOutsideFirstEvery = 64;  // accepts after which the kernel's queues come first for once

// The socket of an accepted connection, with what it inherits from its listener (inet_csk_clone_lock).
Socket& make_accepted(Process& process, const Socket& listener, int fd, int flags) {
  Socket& s = *listener.shard->make_socket();
  s.v6 = listener.v6;
  s.v6_only = listener.v6_only;
  s.reuse_port = listener.reuse_port;
  s.inq = listener.inq;
  s.zerocopy = listener.zerocopy;
  s.nonblocking = (flags & SOCK_NONBLOCK) != 0;
  s.options = listener.options;
  if (listener.kept != nullptr) [[unlikely]]
    s.kept = inherited(listener.kept);
  if (listener.timestamping != nullptr) [[unlikely]]
    s.timestamping = std::make_unique<Timestamping>(*listener.timestamping);
  s.receive_timeout = listener.receive_timeout;
  s.send_timeout = listener.send_timeout;
  s.fd = fd;
  s.serial = listener.shard->next_serial();
  process.files.put_socket(fd, s, (flags & SOCK_CLOEXEC) != 0);
  return s;
}

// A descriptor, or -errno. -EMFILE leaves the connection in the queue.
int accept_from_stack(Process& process, Socket& listener, sockaddr* a, socklen_t* n, int flags) {
  if (listener.listener == nullptr || listener.listener->accept_queue.empty()) return -EAGAIN;
  if (!memory_to_spare()) return -ENOMEM;
  const int family = listener.v6 ? AF_INET6 : AF_INET;
  const int fd = listener.shard->pool.take(family, kPoolBatch);
  if (fd < 0) return fd;
  stack::Connection* c = listener.shard->instance->worker().accept(*listener.listener);
  if (c == nullptr) {
    listener.shard->pool.give(fd, family);
    return -EAGAIN;
  }
  Socket& s = make_accepted(process, listener, fd, flags);
  attach(s, *c);
  listener.shard->instance->moved(0);  // thousands in a row: what their peers send has no room on the device for so long
  if (a != nullptr) {
    if (const int error = write_address(s.remote, s.v6, a, n); error != 0) {
      (void)process.close_now(fd);
      return error;
    }
  }
  return fd;
}

// The same of another process of this program.
int accept_from_relative(Process& process, Socket& listener, sockaddr* a, socklen_t* n, int flags) {
  LocalConnection c;
  if (const int error = accept_locally(process, listener, flags & SOCK_NONBLOCK, c); error < 0) return error;
  Socket& s = make_accepted(process, listener, c.fd, flags);
  s.state = Socket::State::relayed;
  s.kernel_dirty = true;
  s.local = c.local;
  s.remote = c.remote;
  if (a == nullptr) return c.fd;
  const int error = write_address(s.remote, s.v6, a, n);
  if (error == 0) return c.fd;
  (void)process.close_now(c.fd);
  return error;
}

// From where the stack has no part: the kernel's loopback, other processes.
int accept_outside(Process& process, Socket& s, sockaddr* a, socklen_t* n, int flags) {
  const int fd = s.kernel_listens ? process.kernel.accept4(s.fd, a, n, flags) : -EAGAIN;
  if (fd >= 0 && s.marked)
    set_freebind(process.kernel, fd, s.v6, wants_freebind(s));  // not the listener's, which is our mark
  if (fd != -EAGAIN || s.local_fd < 0) return fd;
  return accept_from_relative(process, s, a, n, flags);
}

int accept_once(Process& process, Socket& s, sockaddr* a, socklen_t* n, int flags) {
  const bool outside = s.kernel_listens || s.local_fd >= 0;
  const bool outside_first = outside && ++s.accepts % kOutsideFirstEvery == 0;
  if (outside_first) {
    const int fd = accept_outside(process, s, a, n, flags);
    if (fd != -EAGAIN) return fd;
  }
  const int fd = accept_from_stack(process, s, a, n, flags);
  if (fd != -EAGAIN || outside_first || !outside) return fd;
  return accept_outside(process, s, a, n, flags);
}

// Every slot on the device is taken, and nobody else has the listener, the kernel included: to a client it is
// not there.
bool lacks_slot(const Process& process, const Socket& s) {
  if (s.listener != nullptr || s.shared || s.forked || s.kernel_listens) return false;
  return process.device != nullptr && !process.successor && !process.door.waiting() &&
         process.options.device.has_many_stacks();
}

// Blocks until there is something to accept.
int wait_and_accept(Process& process, Guard& guard, Socket& s, sockaddr* a, socklen_t* n, int flags) {
  const Hold hold_it(process, s);
  const stack::Time deadline = deadline_after(s.receive_timeout), patience = now() + kSlotPatience;
  for (;;) {
    const bool lacks = lacks_slot(process, s) && patience < deadline;
    const int error =
        wait_for(process, guard, s, EPOLLIN, lacks ? patience : deadline, deadline == stack::kNever);
    const bool over = lacks && error == -EAGAIN;          // that patience, and not the caller's
    if (over && lacks_slot(process, s)) return -ENOBUFS;  // Process::wait_for_slot() has said it
    if (error != 0 && !over) return error;
    if (s.state != Socket::State::listening) return -EINVAL;  // shutdown() in another thread
    const int result = accept_once(process, s, a, n, flags);
    if (result != -EAGAIN) return result;
  }
}

}  // namespace

int Process::accept4(int fd, sockaddr* a, socklen_t* n, int flags) {
  if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return -EINVAL;
  Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  if (s->state != Socket::State::listening) return -EINVAL;
  if (s->listener == nullptr) {
    want(*s);
    // Without a stack the kernel's side still serves a wildcard listener; and who waits for a slot on the
    // device waits here for connections.
    const int error = ensure_started(guard);
    s = files.socket(fd);  // the lock may have been given up
    if (s == nullptr) return -EBADF;
    if (s->state != Socket::State::listening) return -EINVAL;
    if (error != 0 && error != -EBUSY && !s->kernel_listens && s->local_fd < 0) return error;
  }
  need_stack();
  attend(*s);
  int result = accept_once(*this, *s, a, n, flags);
  if (result != -EAGAIN) return result;
  if (retry_after_turn(*this, *s)) {
    result = accept_once(*this, *s, a, n, flags);
    if (result != -EAGAIN) return result;
  }
  return s->nonblocking ? -EAGAIN : wait_and_accept(*this, guard, *s, a, n, flags);
}

}  // namespace mtcp::intercept

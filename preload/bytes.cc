// Reading from and writing to sockets of ours.
#include <fcntl.h>
#include <limits.h>

#include "preload/calls.hh"
#include "preload/clock.hh"
#include "preload/edge.hh"
#include "preload/inherited.hh"

namespace mtcp::preload::ours {
namespace {

using intercept::Engine;

// The kernel's limit of one vectored call.
bool valid_count(int n) { return n >= 0 && n <= IOV_MAX; }

bool is_empty(const iovec* v, int n) {
  while (n > 0 && v[n - 1].iov_len == 0) --n;
  return n == 0;
}

msghdr message(const iovec* v, int n) {
  msghdr m{};
  m.msg_iov = const_cast<iovec*>(v);
  m.msg_iovlen = static_cast<size_t>(n);
  return m;
}

}  // namespace

// read and readv of nothing are 0 whatever the socket's state, where recv of nothing waits.
ssize_t read(int fd, void* p, size_t n) {
  if (n == 0) return 0;
  return enter([=](Engine& e) { return e.recv(fd, p, n, 0); });
}

ssize_t recv(int fd, void* p, size_t n, int flags) {
  return enter([=](Engine& e) { return e.recv(fd, p, n, flags); });
}

ssize_t recvfrom(int fd, void* p, size_t n, int flags, sockaddr* a, socklen_t* al) {
  const ssize_t got = recv(fd, p, n, flags);
  if (got >= 0 && a != nullptr && al != nullptr) *al = 0;  // TCP never fills in an address
  return got;
}

ssize_t readv(int fd, const iovec* v, int n) {
  if (!valid_count(n)) return translate(-EINVAL);
  if (n == 1) return read(fd, v->iov_base, v->iov_len);
  if (is_empty(v, n)) return 0;
  msghdr m = message(v, n);
  return enter([&](Engine& e) { return e.recvmsg(fd, &m, 0); });
}

namespace {
ssize_t receive_ours(int fd, msghdr* m, int flags) {
  return enter([=](Engine& e) { return e.recvmsg(fd, m, flags); });
}
}  // namespace

int recvmmsg(int fd, mmsghdr* m, unsigned n, int flags, timespec* timeout) {
  timespec end{};
  if (timeout != nullptr) {
    if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
      return translate(-EINVAL);
    end = deadline(*timeout);
  }
  unsigned done = 0;
  int each = flags & ~MSG_WAITFORONE;
  while (done < n) {
    const int before = errno;
    const ssize_t got = receive_ours(fd, &m[done].msg_hdr, each);
    if (got < 0) {
      if (done == 0) return -1;
      errno = before;
      break;
    }
    m[done++].msg_len = static_cast<unsigned>(got);
    if ((flags & MSG_WAITFORONE) != 0) each |= MSG_DONTWAIT;
    if (timeout != nullptr) {  // looked at between messages only, as the kernel does
      *timeout = remaining(end);
      if (timeout->tv_sec == 0 && timeout->tv_nsec == 0) break;
    }
  }
  return static_cast<int>(done);
}

ssize_t write(int fd, const void* p, size_t n) {
  return enter_sending(0, [=](Engine& e) { return e.send(fd, p, n, 0); });
}

ssize_t send(int fd, const void* p, size_t n, int flags) {
  return enter_sending(flags, [=](Engine& e) { return e.send(fd, p, n, flags); });
}

ssize_t sendto(int fd, const void* p, size_t n, int flags, const sockaddr* a, socklen_t al) {
  if (a == nullptr) return send(fd, p, n, flags);
  iovec v{const_cast<void*>(p), n};
  msghdr m = message(&v, 1);
  m.msg_name = const_cast<sockaddr*>(a);
  m.msg_namelen = al;
  return enter_sending(flags, [&](Engine& e) { return e.sendmsg(fd, &m, flags); });
}

namespace {
ssize_t send_ours(int fd, const msghdr* m, int flags) {
  return enter_sending(flags, [=](Engine& e) { return e.sendmsg(fd, m, flags); });
}
}  // namespace

ssize_t writev(int fd, const iovec* v, int n) {
  if (!valid_count(n)) return translate(-EINVAL);
  if (n == 1) return write(fd, v->iov_base, v->iov_len);
  const msghdr m = message(v, n);
  return enter_sending(0, [&](Engine& e) { return e.sendmsg(fd, &m, 0); });
}

ssize_t sendfile(int fd, int in, off_t* offset, size_t n) {
  return enter_sending(0, [=](Engine& e) { return e.sendfile(fd, in, offset, n); });
}

// A buffer too small for what is asked: libc's own says so and ends the process.
ssize_t __read_chk(int fd, void* p, size_t n, size_t room) {
  return n > room ? next.__read_chk(fd, p, n, room) : read(fd, p, n);
}
ssize_t __recv_chk(int fd, void* p, size_t n, size_t room, int flags) {
  return n > room ? next.__recv_chk(fd, p, n, room, flags) : recv(fd, p, n, flags);
}
ssize_t __recvfrom_chk(int fd, void* p, size_t n, size_t room, int flags, sockaddr* a, socklen_t* al) {
  return n > room ? next.__recvfrom_chk(fd, p, n, room, flags, a, al)
                  : ours::recvfrom(fd, p, n, flags, a, al);
}

}  // namespace mtcp::preload::ours

namespace mtcp::preload {

namespace {

int send_many_ours(int fd, mmsghdr* m, unsigned n, int flags) {
  if (n > IOV_MAX) n = IOV_MAX;  // as the kernel does
  for (unsigned done = 0; done < n; ++done) {
    const int before = errno;
    const ssize_t sent = ours::send_ours(fd, &m[done].msg_hdr, flags);
    if (sent < 0) {
      if (done == 0) return -1;
      errno = before;
      return static_cast<int>(done);
    }
    m[done].msg_len = static_cast<unsigned>(sent);
  }
  return static_cast<int>(n);
}

// What goes to another process over a socket of the kernel.
void pass_descriptors(const msghdr* m) {
  if (m == nullptr || m->msg_controllen == 0 || engine() == nullptr) return;
  (void)enter([=](intercept::Engine& e) { return e.pass_descriptors(m), 0; });
}

}  // namespace

int always::sendmmsg(int fd, mmsghdr* m, unsigned n, int flags) {
  const intercept::FdKind kind = kind_of(fd);
  if (thread.inside() || kind == intercept::FdKind::epoll) return next.sendmmsg(fd, m, n, flags);
  if (kind == intercept::FdKind::socket) return send_many_ours(fd, m, n, flags);
  if (kind == intercept::FdKind::reserved) return translate(-EBADF);
  for (unsigned i = 0; m != nullptr && i < n && i < IOV_MAX; ++i) pass_descriptors(&m[i].msg_hdr);
  return next.sendmmsg(fd, m, n, flags);
}

// One of them is ours, or both.
ssize_t always::splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t n, unsigned flags) {
  using intercept::FdKind;
  const FdKind source = kind_of(in), target = kind_of(out);
  const bool ours = source == FdKind::socket || target == FdKind::socket;
  if (source == FdKind::reserved || target == FdKind::reserved) return translate<ssize_t>(-EBADF);
  if (!ours || thread.inside()) [[likely]]
    return next.splice(in, in_offset, out, out_offset, n, flags);
  const auto call = [=](intercept::Engine& e) { return e.splice(in, in_offset, out, out_offset, n, flags); };
  return target == FdKind::socket ? enter_sending(0, call) : enter(call);  // a pipe without readers: the kernel has raised SIGPIPE
}

// A message over a socket of the kernel may bring a listener.
ssize_t always::recvmsg(int fd, msghdr* m, int flags) {
  const intercept::FdKind kind = kind_of(fd);
  if (thread.inside() || kind == intercept::FdKind::epoll) return next.recvmsg(fd, m, flags);
  if (kind == intercept::FdKind::socket) return ours::receive_ours(fd, m, flags);
  if (kind == intercept::FdKind::reserved) return translate<ssize_t>(-EBADF);
  const ssize_t got = next.recvmsg(fd, m, flags);
  if (got >= 0 && m->msg_controllen >= CMSG_LEN(sizeof(int))) [[unlikely]] take_up_passed(m);
  return got;
}

// A socket of the kernel may carry descriptors of ours to another process.
ssize_t always::sendmsg(int fd, const msghdr* m, int flags) {
  const intercept::FdKind kind = kind_of(fd);
  if (thread.inside() || kind == intercept::FdKind::epoll) return next.sendmsg(fd, m, flags);
  if (kind == intercept::FdKind::socket) return ours::send_ours(fd, m, flags);
  if (kind == intercept::FdKind::reserved) return translate<ssize_t>(-EBADF);
  pass_descriptors(m);
  return next.sendmsg(fd, m, flags);
}

}  // namespace mtcp::preload

// The life of a socket and what can be asked of it.
#include <netinet/in.h>
#include <sys/ioctl.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/relayed_names.hh"

namespace mtcp::preload {

using intercept::Engine;

int always::socket(int domain, int type, int protocol) {
  constexpr int kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;
  const bool tcp = (domain == AF_INET || domain == AF_INET6) && (type & ~kFlags) == SOCK_STREAM &&
                   (protocol == 0 || protocol == IPPROTO_TCP);
  if (!tcp || thread.inside() || engine_for_tcp() == nullptr) return next.socket(domain, type, protocol);
  const int before = errno;
  const int fd = enter([=](Engine& e) { return e.socket(domain, type, protocol); });
  if (fd >= 0 || errno != ENOTSUP) return fd;
  errno = before;
  return next.socket(domain, type, protocol);
}

int always::getpeername(int fd, sockaddr* a, socklen_t* n) {
  const intercept::FdKind kind = kind_of(fd);
  const bool kernels = kind == intercept::FdKind::kernel || kind == intercept::FdKind::epoll || thread.inside();
  if (kernels) [[likely]]
    return kernel_getpeername(fd, a, n);
  if (kind == intercept::FdKind::reserved) return translate(-EBADF);
  return enter([=](Engine& e) { return e.getpeername(fd, a, n); });
}

// A socket of the kernel's that is to have an address which is the stack's: the kernel does not know it.
int always::bind(int fd, const sockaddr* a, socklen_t n) {
  const intercept::FdKind kind = kind_of(fd);
  if (kind == intercept::FdKind::reserved && !thread.inside()) return translate(-EBADF);
  if (kind == intercept::FdKind::socket && !thread.inside()) return enter([=](Engine& e) { return e.bind(fd, a, n); });
  const int before = errno;
  const int result = next.bind(fd, a, n);
  if (result == 0 || errno != EADDRNOTAVAIL || thread.inside() || !has_configuration()) [[likely]]
    return result;
  if (engine_for_tcp() == nullptr || enter([=](Engine& e) { return e.bind_beside(fd, a, n); }) != 0) {
    errno = EADDRNOTAVAIL;
    return -1;
  }
  errno = before;
  return 0;
}

namespace ours {

int connect(int fd, const sockaddr* a, socklen_t n) {
  return enter([=](Engine& e) { return e.connect(fd, a, n); });
}
int shutdown(int fd, int how) {
  return enter([=](Engine& e) { return e.shutdown(fd, how); });
}
int getsockopt(int fd, int level, int name, void* v, socklen_t* n) {
  return enter([=](Engine& e) { return e.getsockopt(fd, level, name, v, n); });
}
int setsockopt(int fd, int level, int name, const void* v, socklen_t n) {
  return enter([=](Engine& e) { return e.setsockopt(fd, level, name, v, n); });
}
int sockatmark(int fd) {
  int at_mark = 0;
  return ioctl(fd, SIOCATMARK, &at_mark) < 0 ? -1 : at_mark;
}

}  // namespace ours
}  // namespace mtcp::preload

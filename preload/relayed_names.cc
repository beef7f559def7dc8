#include "preload/relayed_names.hh"

#include <errno.h>
#include <string.h>

#include "intercept/relay_name.hh"
#include "preload/next.hh"

namespace mtcp::preload {
namespace {

using intercept::RelayName;

// An end of a socket pair has no name itself: who listens on a Unix socket is not told lies by a client's name.
bool is_relay(int fd, RelayName& name) {
  sockaddr_storage own;
  socklen_t size = sizeof own;
  auto* generic = reinterpret_cast<sockaddr*>(&own);
  if (next.getsockname(fd, generic, &size) != 0 || size != sizeof(sa_family_t)) return false;
  size = sizeof name;
  return next.getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 && name.is_one(size);
}

template <class Call>
int ask(Call call, sockaddr_in6 RelayName::*which, int fd, sockaddr* a, socklen_t* n) {
  const socklen_t room = n != nullptr ? *n : 0;
  const int result = call(fd, a, n);
  if (result != 0 || room < sizeof(sa_family_t) || a->sa_family != AF_UNIX) [[likely]]
    return result;
  const int before = errno;
  RelayName name;
  if (is_relay(fd, name)) {
    const sockaddr_in6& address = name.*which;
    const socklen_t size = RelayName::size_of(address);
    memcpy(a, &address, size < room ? size : room);
    *n = size;
  }
  errno = before;
  return 0;
}

}  // namespace

int kernel_getsockname(int fd, sockaddr* a, socklen_t* n) {
  return ask([](auto... arguments) { return next.getsockname(arguments...); }, &RelayName::local, fd, a, n);
}

int kernel_getpeername(int fd, sockaddr* a, socklen_t* n) {
  return ask([](auto... arguments) { return next.getpeername(arguments...); }, &RelayName::remote, fd, a, n);
}

}  // namespace mtcp::preload

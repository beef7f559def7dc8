#include "preload/relayed_names.hh"

#include <errno.h>
#include <string.h>

#include "intercept/relay/relay_name.hh"
#include "intercept/sockets/local_name.hh"
#include "preload/next.hh"

namespace mtcp::preload {
namespace {

using intercept::RelayName;

using intercept::LocalName;

template <class Name>
socklen_t ask_name(int (*call)(int, sockaddr*, socklen_t*), int fd, Name& name) {
  socklen_t size = sizeof name;
  return call(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 ? size : 0;
}

// An end of a socket pair has no name itself, or that of a listener of the stack: who listens on another Unix socket is not
// told lies by a client's name.
bool is_relay(int fd, RelayName& name) {
  RelayName own;
  const socklen_t size = ask_name(next.getsockname, fd, own);
  LocalName listener;
  if (own.is_one(size)) {  // the end that has connected to such a listener: its own name is what the other end sees
    if (!listener.is_one(ask_name(next.getpeername, fd, listener))) return false;
    name = own;
    name.local = own.remote;
    name.remote = own.local;
    return true;
  }
  if (size != sizeof(sa_family_t) && !listener.is_one(ask_name(next.getsockname, fd, listener))) return false;
  return name.is_one(ask_name(next.getpeername, fd, name));
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

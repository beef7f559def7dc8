// IP_FREEBIND of kernel sockets, as far as the engine sets it for itself: a program that asks is told what it
// has set (sockopt_kept.hh).
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "intercept/kernel.hh"

namespace mtcp::intercept {

// Of a socket of either family; a refusal shows in the bind that follows.
inline void set_freebind(Kernel& kernel, int fd, bool v6, bool on) {
  const int value = on ? 1 : 0;
  (void)kernel.setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, &value,
                          sizeof value);
}

[[nodiscard]] inline bool has_freebind(Kernel& kernel, int fd, bool v6) {
  int value = 0;
  socklen_t size = sizeof value;
  return kernel.getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, &value,
                           &size) == 0 &&
         value != 0;
}

// bind(2) to an address of the stack, which the kernel need not have. The option is as before afterwards: a
// bound socket does not need it.
inline int bind_freely(Kernel& kernel, int fd, bool v6, const sockaddr* a, socklen_t n) {
  const bool has = has_freebind(kernel, fd, v6);
  if (!has) set_freebind(kernel, fd, v6, true);
  const int error = kernel.bind(fd, a, n);
  if (!has) set_freebind(kernel, fd, v6, false);
  return error;
}

}  // namespace mtcp::intercept

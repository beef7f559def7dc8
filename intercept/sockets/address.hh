// sockaddr <-> stack::Endpoint, with the checks and the truncation of the kernel.
#pragma once

#include <sys/socket.h>

#include "stack/wire/address.hh"

namespace mtcp::intercept {

// The endpoint in a sockaddr of a socket's own family (`v6`: AF_INET6). 0, or as Linux: -EINVAL (too short),
// -EAFNOSUPPORT (another family), -EFAULT (null). Scope and flow label of IPv6 are not kept.
int read_address(const sockaddr* a, socklen_t n, bool v6, stack::Endpoint& out);

// Writes `e` as the socket's family has it (IPv4 as ::ffff:a.b.c.d in AF_INET6): at most *n bytes, and the
// full size into *n. 0, -EINVAL (negative length) or -EFAULT (null).
int write_address(const stack::Endpoint& e, bool v6, sockaddr* a, socklen_t* n);

}  // namespace mtcp::intercept

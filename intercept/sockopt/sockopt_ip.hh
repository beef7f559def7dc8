// Options of IPPROTO_IP and IPPROTO_IPV6 that say what a socket or its path is.
#pragma once

#include <sys/socket.h>

#include "intercept/process.hh"

namespace mtcp::intercept {

// Can be read, and not set.
[[nodiscard]] bool is_read_only_ip(int level, int name);
// 0 or -errno; -ENOTSUP: not one of them.
int get_ip_option(const Socket& s, int level, int name, void* v, socklen_t* n);
// IPV6_V6ONLY. 0 or -errno.
int set_v6_only(Process& process, Socket& s, const void* v, socklen_t n);

}  // namespace mtcp::intercept

// struct tcp_info, as getsockopt(TCP_INFO) gives it.
#pragma once

#include <sys/socket.h>

#include "intercept/process.hh"

namespace mtcp::intercept {

// At most *n bytes into `v`, what there is into *n. 0.
int get_tcp_info(Process& process, Socket& s, void* v, socklen_t* n);

}  // namespace mtcp::intercept

// getsockname and getpeername on descriptors of the kernel.
#pragma once

#include <sys/socket.h>

namespace mtcp::preload {

// As libc's; for the end of a relay that this program was started with, the addresses of the connection behind it.
int kernel_getsockname(int fd, sockaddr* a, socklen_t* n);
int kernel_getpeername(int fd, sockaddr* a, socklen_t* n);

}  // namespace mtcp::preload

// Several descriptors of one socket or epoll set.
#pragma once

namespace mtcp::intercept {

class Process;

// fcntl(F_DUPFD, F_DUPFD_CLOEXEC) of a descriptor of ours: the lowest free number from `least` on, or -errno.
// Lock held.
int dup_to_free(Process& process, int fd, int least, bool close_on_exec);

}  // namespace mtcp::intercept

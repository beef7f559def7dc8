// The socket layer's part of urgent data: MSG_OOB, and SIGURG for the socket's owner (fcntl(2), F_SETOWN).
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <span>

namespace mtcp::intercept {

class Kernel;
class Process;
struct Socket;

// recv and recvmsg with MSG_OOB, in the order of tcp_recv_urg(). `m`, if there is one, gets its flags. Lock held.
ssize_t receive_urgent(Process& process, Socket& s, std::span<const iovec> v, int flags, msghdr* m);

// The peer has announced urgent data. Who the owner is knows the kernel socket behind `s`.
void signal_owner(Kernel& kernel, const Socket& s);

}  // namespace mtcp::intercept

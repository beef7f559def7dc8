// Connections between processes of one program (what one exec has become by forks) on the stack's own address: no wire
// leads from one process's stack to another's, and the kernel does not have the address. So a listener that other processes
// may want to reach has a Unix socket beside it, whose name only they can compute; who connects to it is connected in the
// kernel, and both ends are sockets in State::relayed, with the addresses that they would have.
#pragma once

#include <sys/socket.h>

#include "stack/wire/address.hh"

namespace mtcp::intercept {

class Process;
struct Socket;

// All with the process's lock held.

// Gives a listener its Unix socket, Socket::local_fd, if its address is one that needs it and no other listener of the
// program has it.
void open_local_listener(Process& process, Socket& s);
void close_local_listener(Process& process, Socket& s);

// Connects `s` to the listener of another process, or of several. -ECONNREFUSED: there is none; -EAGAIN: its queue is full.
int connect_locally(Process& process, Socket& s, const stack::Endpoint& remote);

// The next connection of a listener's Unix socket: a kernel descriptor and its addresses, or -errno. `flags`: SOCK_NONBLOCK.
struct LocalConnection {
  int fd = -1;
  stack::Endpoint local, remote;
};
int accept_locally(Process& process, const Socket& listener, int flags, LocalConnection& out);

}  // namespace mtcp::intercept

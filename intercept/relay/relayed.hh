// A socket in State::relayed: its descriptors are one end of a kernel socket pair whose other end the owner
// of the connection pumps (relay.hh). The calls on it go to the kernel, never blocking there: waiting is
// WaitLoop's.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <span>

namespace mtcp::intercept {

class Process;
struct Socket;
struct EpollSet;

// All with the process's lock held.

// Puts a descriptor of the kernel behind every number of `s`, close-on-exec. 0 or -errno.
int put_behind(Process& process, Socket& s, int kernel_fd);

// Puts the pair's end `user` (which stays the caller's) behind every descriptor of `s`, moves its epoll
// registrations to the kernel and wakes who waits for it. 0 or -errno.
int become_relayed(Process& process, Socket& s, int user);

// A foreign socket is about to be used. Others are left alone.
void claim_if_foreign(Process& process, Socket& s);

// A set that came over a fork is about to be used: its foreign members are, too.
void claim_members(Process& process, EpollSet& set);

// O_NONBLOCK is the open description's, so another process may have changed it.
[[nodiscard]] bool is_nonblocking(Process& process, const Socket& s);

// One attempt, as recvmsg(2) and sendmsg(2) with MSG_DONTWAIT.
ssize_t receive_relayed(Process& process, const Socket& s, std::span<const iovec> v, int flags);
ssize_t send_relayed(Process& process, const Socket& s, std::span<const iovec> v);
// As SO_ERROR: an errno, or 0.
int take_relayed_error(Process& process, const Socket& s);
// One attempt to send from a file: at `offset` if it is given (moved on by what was sent), else from its
// position. Bytes, 0 at the end of the file, or -errno.
ssize_t send_file_relayed(Process& process, const Socket& s, int in, off_t* offset, std::size_t n);

}  // namespace mtcp::intercept

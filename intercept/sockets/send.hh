// What the sending calls share.
#pragma once

#include <sys/epoll.h>

#include "intercept/call.hh"
#include "intercept/descriptors/socket.hh"
#include "intercept/shards/guard.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {

// 0 if `s` is a stream that may be sent on with these flags (MSG_*), else -errno.
int check_sending(Socket& s, int flags);
// A connect that waits for its first data (TCP_FASTOPEN_CONNECT) goes on without any. 0 or -errno.
int start_deferred(Process& process, Guard& guard, Socket& s);

// The buffer is full: waits for room until attempt() says something else than -EAGAIN. give_up(error) is what the call returns
// when there is nothing to wait for any more.
template <typename Attempt, typename GiveUp>
ssize_t wait_for_room(Process& process, Guard& guard, Socket& s, Attempt attempt, GiveUp give_up) {
  const Hold hold_it(process, s);
  const stack::Time deadline = deadline_after(s.send_timeout);
  for (;;) {
    const int error = wait_for(process, guard, s, EPOLLOUT, deadline, deadline == stack::kNever);
    if (!connected(s)) return give_up(-EPIPE);
    if (error != 0) return give_up(error);
    if (const ssize_t result = attempt(); result != -EAGAIN) return result;
  }
}

}  // namespace mtcp::intercept

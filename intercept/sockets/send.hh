// What the sending calls share.
#pragma once

#include <mutex>

#include "intercept/descriptors/socket.hh"
#include "intercept/support/lock.hh"

namespace mtcp::intercept {

// 0 if `s` is a stream that may be sent on with these flags (MSG_*), else -errno.
int check_sending(Socket& s, int flags);
// A connect that waits for its first data (TCP_FASTOPEN_CONNECT) goes on without any. 0 or -errno.
int start_deferred(Process& process, std::unique_lock<Lock>& guard, Socket& s);

}  // namespace mtcp::intercept

// What the sending calls share.
#pragma once

#include "intercept/socket.hh"

namespace mtcp::intercept {

// 0 if `s` is a stream that may be sent on with these flags (MSG_*), else -errno.
int check_sending(Socket& s, int flags);

}  // namespace mtcp::intercept

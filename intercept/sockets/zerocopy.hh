// MSG_ZEROCOPY: what is sent is copied all the same, and the completion says so (SO_EE_CODE_ZEROCOPY_COPIED), as the kernel's does
// where a device can't do without a copy.
#pragma once

#include <sys/socket.h>

#include <cstdint>

namespace mtcp::intercept {

class Process;
struct Socket;

// A row of completed sends, by their numbers: the first send with MSG_ZEROCOPY is 0.
struct ZerocopyCompletion {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};

// A send with MSG_ZEROCOPY has taken something. Tells who waits for EPOLLERR.
void complete_zerocopy(Socket& s);
// recvmsg with MSG_ERRQUEUE: the oldest row of completions. 0 or -errno. `m` may be null: it is thrown away.
int receive_completion(Socket& s, msghdr* m);

}  // namespace mtcp::intercept

// SCM_RIGHTS: a connection that is passed to another process.
#include <cstring>

#include "intercept/call.hh"
#include "intercept/process.hh"
#include "intercept/relay/relayed.hh"

namespace mtcp::intercept {

void Process::pass_descriptors(const msghdr* m) {
  if (m == nullptr || m->msg_control == nullptr) return;
  const Guard guard(*this, Guard::Everything{});
  // The macros want a message that is not const; nothing is written.
  msghdr copy = *m;
  for (cmsghdr* c = CMSG_FIRSTHDR(&copy); c != nullptr; c = CMSG_NXTHDR(&copy, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      Socket* s = files.socket(fd);
      if (s == nullptr) continue;
      claim_if_foreign(*this, *s);
      // If there can be no relay, the receiver gets the kernel socket behind it, which says ENOTCONN.
      if (s->state == Socket::State::listening) (void)replay_options(*this, *s);  // its receiver reads them there
      if (s->state == Socket::State::stream && !is_opening(*s->connection)) (void)relay.relay(*s);
      if (s->state == Socket::State::relayed) relay.scatter(*s);
    }
  }
  relay.run_ready();
}

}  // namespace mtcp::intercept

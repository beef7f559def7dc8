#include "intercept/sockets/urgent.hh"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include <cstring>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/errors.hh"

namespace mtcp::intercept {
namespace {

// The byte, 0 at the end of the stream, or -errno.
ssize_t take_byte(Process& process, Socket& s, std::byte& byte, bool peek) {
  stack::Worker& worker = s.shard->instance->worker();
  auto got = worker.receive_urgent(*s.connection, &byte, peek);
  // Who asks again and again waits by asking.
  if (!got && retry_after_turn(process, s)) got = worker.receive_urgent(*s.connection, &byte, peek);
  if (got) return static_cast<ssize_t>(*got);
  return -to_errno(got.error());
}

}  // namespace

ssize_t receive_urgent(Process& process, Socket& s, std::span<const iovec> v, int flags, msghdr* m) {
  claim_if_foreign(process, s);
  if (s.state == Socket::State::listening) return -ENOTCONN;
  if (s.state != Socket::State::stream) return -EINVAL;  // a relay passes on no urgent data
  settle(process, s);
  if (is_opening(*s.connection)) return -EINVAL;
  std::byte byte{};
  const ssize_t got = take_byte(process, s, byte, (flags & MSG_PEEK) != 0);
  if (m != nullptr && got >= 0) {
    m->msg_flags = (flags & MSG_CMSG_CLOEXEC) | (got > 0 ? MSG_OOB : 0);
    m->msg_controllen = 0;
    if (m->msg_name != nullptr) m->msg_namelen = 0;
  }
  if (got <= 0) return got;
  for (const iovec& part : v) {
    if (part.iov_len == 0) continue;
    if ((flags & MSG_TRUNC) == 0) std::memcpy(part.iov_base, &byte, 1);
    return 1;
  }
  if (m != nullptr) m->msg_flags |= MSG_TRUNC;  // there was no room for it
  return 0;
}

void signal_owner(Kernel& kernel, const Socket& s) {
  // One that has an owner is no longer as it was in the pool.
  if (!s.kernel_dirty || s.fd < 0) return;
  f_owner_ex owner{};
  if (kernel.fcntl(s.fd, F_GETOWN_EX, reinterpret_cast<long>(&owner)) != 0 || owner.pid == 0) return;
  (void)kernel.send_signal(owner.type, owner.pid, SIGURG);
}

}  // namespace mtcp::intercept

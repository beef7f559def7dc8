// fcntl and ioctl.
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "intercept/call.hh"
#include "intercept/descriptors/dup.hh"
#include "intercept/relay/relayed.hh"

namespace mtcp::intercept {
namespace {

int set_flags(Process& process, Socket& s, unsigned long flags) {
  // O_APPEND, O_DIRECT and O_NOATIME may be given and mean nothing to a socket.
  s.nonblocking = (flags & O_NONBLOCK) != 0;
  s.async = (flags & O_ASYNC) != 0;
  if (s.state != Socket::State::relayed) return 0;
  return process.kernel.fcntl(s.fd, F_SETFL, O_RDWR | (s.nonblocking ? O_NONBLOCK : 0));
}

int set_close_on_exec(Process& process, int fd, bool on) {
  process.files[fd].close_on_exec = on;
  process.files[fd].meant_for_exec = !on;
  return 0;
}

int count_queued(const Socket& s, unsigned long request) {
  const stack::Worker& worker = s.shard->instance->worker();
  if (request == FIONREAD) return static_cast<int>(worker.readable_bytes(*s.connection));
  const stack::ConnectionInfo info = worker.info(*s.connection);
  // A FIN counts as a byte, as it does in Linux's write_seq.
  const auto& hot = s.connection->hot;
  const bool unsent = hot.fin_queued && !hot.fin_sent;
  const bool unacked = unsent || (hot.fin_sent && hot.snd_una != hot.snd_nxt);
  if (hot.state == stack::State::closed || hot.state == stack::State::time_wait) return static_cast<int>(info.tx_queued);
  return static_cast<int>(request == SIOCOUTQ ? info.tx_queued + (unacked ? 1U : 0U) : info.tx_unsent + (unsent ? 1U : 0U));
}

int queued_bytes(Process& process, Socket& s, unsigned long request) {
  if (s.state == Socket::State::listening) return -EINVAL;
  if (s.state != Socket::State::stream) return 0;
  settle(process, s);
  if (is_opening(*s.connection)) return 0;
  const int bytes = count_queued(s, request);
  // Who asks again and again for bytes to come, or to be gone, waits by asking.
  const bool waits = (bytes == 0) == (request == FIONREAD);
  return waits && retry_after_turn(process, s) ? count_queued(s, request) : bytes;
}

bool is_at_mark(Process& process, const Socket& s) {
  if (s.state != Socket::State::stream) return false;
  settle(process, s);
  return s.shard->instance->worker().at_mark(*s.connection);
}

// What lies in the pair: bytes that came, or memory of what the owner has not taken yet. It leaves a byte there
// (relay_pump.cc), in a buffer of less than two KB.
int relayed_queue(Process& process, const Socket& s, unsigned long request, void* arg) {
  constexpr int kLeft = 2048;
  const int error = process.kernel.ioctl(s.fd, request == FIONREAD ? FIONREAD : SIOCOUTQ, arg);
  auto& amount = *static_cast<int*>(arg);
  if (error == 0 && request != FIONREAD && amount <= kLeft) amount = 0;
  return error;
}

}  // namespace

int Process::fcntl(int fd, int cmd, unsigned long arg) {
  if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) {
    const Guard guard(*this, Guard::Everything{});
    return dup_to_free(*this, fd, static_cast<int>(arg), cmd == F_DUPFD_CLOEXEC);
  }
  const Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return kernel.fcntl(fd, cmd, static_cast<long>(arg));  // an epoll set
  switch (cmd) {
    case F_GETFL:
      if (s->state == Socket::State::relayed) s->nonblocking = is_nonblocking(*this, *s);
      return O_RDWR | (s->nonblocking ? O_NONBLOCK : 0) | (s->async ? O_ASYNC : 0);
    case F_SETFL:
      return set_flags(*this, *s, arg);
    case F_GETFD:
      return files[fd].close_on_exec ? FD_CLOEXEC : 0;
    case F_SETFD:
      return set_close_on_exec(*this, fd, (arg & FD_CLOEXEC) != 0);
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG:
      s->kernel_dirty = true;
      [[fallthrough]];  // must not be found on the next user of the descriptor
    default:
      return kernel.fcntl(fd, cmd, static_cast<long>(arg));
  }
}

int Process::ioctl(int fd, unsigned long request, void* arg) {
  const Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return kernel.ioctl(fd, request, arg);
  // The kernel compares 32 bits.
  switch (request & 0xffffffffUL) {
    case FIOCLEX:
      return set_close_on_exec(*this, fd, true);
    case FIONCLEX:
      return set_close_on_exec(*this, fd, false);
    case FIONBIO:
    case FIOASYNC: {
      if (arg == nullptr) return -EFAULT;
      (request == FIONBIO ? s->nonblocking : s->async) = *static_cast<const int*>(arg) != 0;
      return s->state == Socket::State::relayed ? kernel.ioctl(fd, request, arg) : 0;
    }
    case FIONREAD:
    case SIOCOUTQ:
    case SIOCOUTQNSD: {
      if (arg == nullptr) return -EFAULT;
      claim_if_foreign(*this, *s);
      if (s->state == Socket::State::relayed) return relayed_queue(*this, *s, request & 0xffffffffUL, arg);
      const int bytes = queued_bytes(*this, *s, request & 0xffffffffUL);
      if (bytes < 0) return bytes;
      *static_cast<int*>(arg) = bytes;
      return 0;
    }
    case SIOCATMARK:
      if (arg == nullptr) return -EFAULT;
      claim_if_foreign(*this, *s);
      *static_cast<int*>(arg) = is_at_mark(*this, *s) ? 1 : 0;
      return 0;
    case FIOSETOWN:
    case SIOCSPGRP:
      s->kernel_dirty = true;
      [[fallthrough]];
    default:
      return kernel.ioctl(fd, request, arg);
  }
}

}  // namespace mtcp::intercept

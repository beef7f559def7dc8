// shutdown, close, close_range.
#include <errno.h>
#include <sys/epoll.h>

#include <algorithm>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/waiting/wait.hh"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2U
#define CLOSE_RANGE_CLOEXEC 4U
#endif

namespace mtcp::intercept {
namespace {

// SO_LINGER: close() waits until the peer has everything, or the time is over (RFC 9293 section 3.9.1.4
// leaves that to the API). Non-blocking sockets wait, too, as in Linux. The caller holds the socket.
void linger(Process& process, Guard& guard, Socket& s) {
  stack::Worker& worker = s.shard->instance->worker();
  if (worker.readable_bytes(*s.connection) > 0) return;  // close() resets: nothing to wait for
  const stack::Time deadline = now() + s.options.linger_time;
  worker.shutdown(*s.connection, false, true, now());
  s.write_shut = true;
  // There is no event for "all acknowledged": look again ever less often.
  stack::Duration slice = stack::microseconds(200);
  while (s.state == Socket::State::stream && s.connection->hot.state != stack::State::closed &&
         !worker.drained(*s.connection)) {
    const stack::Time t = now();
    if (t >= deadline) return;
    const int result = wait_for(process, guard, s, 0, std::min(deadline, t + slice), true);
    if (result == -EINTR) return;
    slice = std::min<stack::Duration>(slice * 2, stack::milliseconds(10));
  }
}

bool lingers(const Socket& s) {
  return s.state == Socket::State::stream && s.descriptors == 1 && s.options.linger &&
         s.options.linger_time > stack::Duration::zero() && !is_opening(*s.connection);
}

int shutdown_stream(Socket& s, bool read, bool write) {
  stack::Worker& worker = s.shard->instance->worker();
  const stack::State state = s.connection->hot.state;
  if (state == stack::State::closed || state == stack::State::time_wait) return -ENOTCONN;
  s.read_shut |= read;
  s.write_shut |= write;
  worker.shutdown(*s.connection, read, write, now());
  s.shard->instance->dispatch();
  notify(s, poll_events(s));
  s.shard->instance->hand_over();
  return 0;
}

}  // namespace

int Process::shutdown(int fd, int how) {
  Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s != nullptr && s->state == Socket::State::listening) [[unlikely]] {
    guard.widen();
    s = files.socket(fd);
  }
  if (s == nullptr) return -EBADF;
  if (how < SHUT_RD || how > SHUT_RDWR) return -EINVAL;
  const bool read = how != SHUT_WR, write = how != SHUT_RD;
  claim_if_foreign(*this, *s);
  settle(*this, *s);
  switch (s->state) {
    case Socket::State::undecided:
    case Socket::State::foreign:
    case Socket::State::dead:
      return -ENOTCONN;
    case Socket::State::listening:
      return read ? stop_listening(*this, *s) : 0;
    case Socket::State::relayed:
      return kernel.shutdown(s->fd, how);
    case Socket::State::stream:
      break;
  }
  if (s->connection->hot.state == stack::State::syn_sent) return abandon_connect(*s);
  return shutdown_stream(*s, read, write);
}

int Process::close(int fd) {
  Guard guard(*this, fd);
  if (shards.several()) [[unlikely]] widen_for_close(guard, fd);
  Socket* s = files.socket(fd);
  if (s != nullptr) settle(*this, *s);  // bytes that nobody has read make it a reset
  if (s != nullptr && lingers(*s) && !relay.held(s->serial)) [[unlikely]] {
    const Hold hold_it(*this, *s);
    linger(*this, guard, *s);
    if (shards.several()) widen_for_close(guard, fd);
    if (files.socket(fd) != s) return 0;  // closed by another thread in the meantime
  }
  const int result = close_now(fd);
  if (!heritage.empty()) [[unlikely]] heritage.tell_closed();
  return result;
}

int Process::close_range(unsigned first, unsigned last, int flags) {
  const auto bits = static_cast<unsigned>(flags);
  if (first > last || (bits & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) != 0) return -EINVAL;
  const Guard guard(*this, Guard::Everything{});
  const bool only_mark = (bits & CLOSE_RANGE_CLOEXEC) != 0;
  // Ours are dealt with one by one, and the kernel gets the gaps between them.
  unsigned gap = first;
  const unsigned end = std::min<unsigned>(static_cast<unsigned>(std::max(files.end(), files.end_of_reserved())), last == ~0U ? last : last + 1);
  for (unsigned fd = first; fd < end; ++fd) {
    const FdKind kind = files.kind(static_cast<int>(fd));
    if (kind == FdKind::kernel || (kind == FdKind::epoll && only_mark)) continue;
    if (fd > gap) {
      if (const int error = kernel.close_range(gap, fd - 1, flags); error != 0) return error;
    }
    gap = fd + 1;
    if (kind == FdKind::reserved) continue;
    if (only_mark) {
      files[static_cast<int>(fd)].close_on_exec = true;
    } else {
      (void)close_now(static_cast<int>(fd));
    }
  }
  heritage.tell_closed();
  return gap > last || gap == 0 ? 0 : kernel.close_range(gap, last, flags);
}

}  // namespace mtcp::intercept

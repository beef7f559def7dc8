// recv and recvmsg (and with them read, readv, recvfrom), in the order of tcp_recvmsg(): data first, then the
// pending error, then the end of the stream.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <climits>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/control_messages.hh"
#include "intercept/sockets/iovecs.hh"
#include "intercept/sockets/stream_call.hh"
#include "intercept/sockets/timestamping.hh"
#include "intercept/sockets/urgent.hh"
#include "intercept/support/errors.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

// TCP_CM_INQ: bytes that can be read now; one more if the end of the stream is known, so that nobody waits for it.
constexpr int kNoHint = -1;
int inq_hint(const Socket& s) {
  if (!s.inq || s.state != Socket::State::stream) return kNoHint;
  const stack::Connection& c = *s.connection;
  return static_cast<int>(std::min<std::uint32_t>(c.rx.queued, INT_MAX - 1)) + (c.hot.fin_received ? 1 : 0);
}

// What recvmsg tells beside the data.
struct Beside {
  int hint = kNoHint;
  stack::Time arrival{};  // of the last that was read; zero: none, or nobody asks
  Timestamping times;     // as the socket has them, with an arrival
};

// One receiving call.
class Receive : StreamCall {
 public:
  Receive(Process& process, Guard& guard, Socket& s, std::span<const iovec> v,
          std::size_t total, int flags)
      : StreamCall(process, guard, s),
        left_(v),
        total_(total),
        flags_(flags),
        peek_((flags & MSG_PEEK) != 0),
        blocking_(!s.nonblocking && (flags & MSG_DONTWAIT) == 0) {}

  // `beside`, if there is one, gets what is told with the data.
  ssize_t run(Beside* beside) {
    beside_ = beside;
    const ssize_t result = attempt_twice([this] { return attempt(); });
    if (result != -EAGAIN || !blocking_) return end(result == -EAGAIN ? give_up(result) : result);
    const Hold hold_it(process_, s_);  // until the last look at the socket
    return end(wait());
  }

 private:
  ssize_t end(ssize_t result) {
    // The window that has opened, if the peer waits for it: whoever reads may go on to wait for something of the kernel's.
    if (s_.state == Socket::State::stream && s_.connection->hot.ack_now) s_.shard->instance->hand_over();
    if (beside_ != nullptr && result >= 0) beside_->hint = inq_hint(s_);
    return result;
  }

  // Of what the next read gets, before it is gone.
  void note_arrival(const stack::Worker& worker) {
    std::size_t bytes = 0;
    for (const iovec& piece : left_.next()) bytes += piece.iov_len;
    const stack::Time arrival = worker.arrival_of(*s_.connection, bytes);
    if (arrival == stack::Time{}) return;
    beside_->arrival = arrival;
    beside_->times = *s_.timestamping;
  }

  // How much makes the call return: MSG_WAITALL everything, else SO_RCVLOWAT.
  [[nodiscard]] std::size_t target() const {
    if ((flags_ & MSG_WAITALL) != 0) return total_;
    return std::min<std::size_t>(s_.options.rcvlowat, total_);
  }

  // Takes what is there. The call's result, or -EAGAIN: it would have to wait for (more) data.
  ssize_t attempt() {
    if (s_.state == Socket::State::relayed) [[unlikely]] return attempt_relayed();
    stack::Connection& c = *s_.connection;
    stack::Worker& worker = s_.shard->instance->worker();
    for (;;) {
      if (peek_) done_ = 0;  // data stays, so each attempt sees all of it again
      // What has been read is returned before an error is told, so that must not be taken yet.
      // Nor does a read go beyond the mark of urgent data.
      if (done_ > 0 && ((worker.readable_bytes(c) == 0 && worker.readiness(c).error) || worker.at_mark(c))) return result();
      if (beside_ != nullptr && s_.timestamping != nullptr) [[unlikely]] note_arrival(worker);
      const auto got =
          worker.receive(c, left_.next(), {.peek = peek_, .discard = (flags_ & MSG_TRUNC) != 0}, now());
      if (!got) {
        if (got.error() != stack::Errc::would_block && !is_opening(c)) {
          return done_ > 0 ? result() : -to_errno(got.error());
        }
        // Enough may have come in earlier rounds; what a nonblocking call has is always enough.
        return done_ > 0 && (!blocking_ || done_ >= target()) ? result() : -EAGAIN;
      }
      if (*got == 0) return result();  // the end of the stream
      done_ += *got;
      if (done_ >= total_) return result();
      if (!peek_) {
        left_.consume(*got);
        if (done_ >= target()) return result();
        continue;
      }
      return !blocking_ || done_ >= target() || finished(worker, c) ? result() : -EAGAIN;
    }
  }

  // The same for a connection that another process has, too.
  ssize_t attempt_relayed() {
    for (;;) {
      if (peek_) done_ = 0;
      const ssize_t got = receive_relayed(process_, s_, left_.next(), flags_);
      if (got == -EAGAIN) return done_ > 0 && (!blocking_ || done_ >= target()) ? result() : -EAGAIN;
      if (got <= 0) return done_ > 0 ? result() : got;
      done_ += static_cast<std::size_t>(got);
      if (peek_ || done_ >= target()) return result();
      left_.consume(static_cast<std::size_t>(got));
    }
  }

  [[nodiscard]] static bool finished(const stack::Worker& worker, const stack::Connection& c) {
    const stack::Readiness r = worker.readiness(c);
    return r.peer_closed || r.error || r.hung_up;
  }

  ssize_t wait() {
    const stack::Time deadline = deadline_after(s_.receive_timeout);
    // Peeking for more than is there: readable is only when that much has come.
    const bool raise = peek_ && target() > s_.options.rcvlowat;
    if (raise) set_low_water(static_cast<std::uint32_t>(std::min<std::size_t>(target(), UINT32_MAX)));
    ssize_t result = -EAGAIN;
    while (result == -EAGAIN) {
      const int error = wait_for(process_, guard_, s_, awaited(), deadline, deadline == stack::kNever);
      if (!connected(s_)) return give_up(-EBADF);
      result = error != 0 ? give_up(error) : attempt();
      if (error != 0) break;
    }
    if (raise && s_.state == Socket::State::stream) set_low_water(s_.options.rcvlowat);
    return result;
  }

  // Urgent data ends a read that has something, if it is the next.
  [[nodiscard]] std::uint32_t awaited() const {
    constexpr std::uint32_t kOrdinary = EPOLLIN | EPOLLRDHUP;
    if (done_ == 0 || s_.state != Socket::State::stream) return kOrdinary;
    return s_.shard->instance->worker().readiness(*s_.connection).urgent ? kOrdinary : kOrdinary | EPOLLPRI;
  }

  void set_low_water(std::uint32_t bytes) {
    stack::SocketOptions options = s_.options;
    options.rcvlowat = bytes;
    s_.shard->instance->worker().set_options(*s_.connection, options, now());
  }

  Iovecs left_;
  std::size_t total_;
  Beside* beside_ = nullptr;
  int flags_;
  bool peek_;
  bool blocking_;
};

void put_beside(msghdr& m, const Beside& beside) {
  ControlMessages out(m);
  if (beside.arrival != stack::Time{}) [[unlikely]] put_receive_times(out, beside.times, beside.arrival);
  constexpr int kInq = TCP_INQ;  // also the message's type, TCP_CM_INQ
  if (beside.hint != kNoHint) out.put(IPPROTO_TCP, kInq, beside.hint);
}

// What is not the stream: the error queue, urgent data.
ssize_t receive_apart(Process& process, Socket* s, std::span<const iovec> v, int flags, msghdr* m) {
  if (s == nullptr) return -EBADF;
  if ((flags & MSG_ERRQUEUE) == 0) return receive_urgent(process, *s, v, flags, m);
  return has_stamps(*s) ? receive_stamp(*s, v, m) : receive_completion(*s, m);
}

// Of a relayed socket: one that is read again and again had better have its connection here.
void count_read(Process& process, Guard& guard, int fd, Socket* s, int flags) {
  if (process.files.socket(fd) != s || s->state != Socket::State::relayed || (flags & MSG_PEEK) != 0) return;
  if (++s->relayed_reads == s->take_over_at) process.heritage.take_over(guard, *s);
}

ssize_t receive(Process& process, int fd, std::span<const iovec> v, std::size_t total, int flags, Beside* beside = nullptr) {
  Guard guard(process, fd);
  Socket* s = process.files.socket(fd);
  if (s == nullptr) return -EBADF;
  if ((flags & (MSG_ERRQUEUE | MSG_OOB)) != 0) [[unlikely]]
    return receive_apart(process, s, v, flags, nullptr);
  claim_if_foreign(process, *s);
  if (!connected(*s)) {
    if (total == 0 && flags == 0) return 0;
    if (s->error == stack::Errc::ok) return -ENOTCONN;
    return -to_errno(std::exchange(s->error, stack::Errc::ok));
  }
  if (total == 0) return 0;
  const bool relayed = s->state == Socket::State::relayed;
  if (relayed) {
    // What the kernel has is taken whether the call may wait or not: O_NONBLOCK costs a system call, and is not looked at before.
    const bool any = (flags & MSG_WAITALL) == 0 && s->options.rcvlowat <= 1;
    if (const ssize_t got = any ? receive_relayed(process, *s, v, flags) : -EAGAIN; got != -EAGAIN) {
      if (got > 0) count_read(process, guard, fd, s, flags);
      return got;
    }
    s->nonblocking = is_nonblocking(process, *s);
    if (any && (s->nonblocking || (flags & MSG_DONTWAIT) != 0) && !retry_after_turn(process, *s)) return -EAGAIN;
  }
  settle(process, *s);
  const ssize_t got = Receive(process, guard, *s, v, total, flags).run(beside);
  // The socket may be gone by now.
  if (Instance* instance = guard.shard().instance.get(); got > 0 && instance != nullptr) instance->moved(static_cast<std::size_t>(got));
  if (relayed && got > 0) [[unlikely]] count_read(process, guard, fd, s, flags);
  return got;
}

}  // namespace

ssize_t Process::recv(int fd, void* p, std::size_t n, int flags) {
  if (p == nullptr && n > 0 && (flags & MSG_TRUNC) == 0) return -EFAULT;
  const iovec one{p, std::min<std::size_t>(n, SSIZE_MAX)};
  return receive(*this, fd, {&one, 1}, one.iov_len, flags);
}

ssize_t Process::recvmsg(int fd, msghdr* m, int flags) {
  if (m == nullptr) return -EFAULT;
  if (m->msg_iovlen > kMostIovecs) return -EMSGSIZE;
  if (m->msg_iov == nullptr && m->msg_iovlen > 0) return -EFAULT;
  const std::span<const iovec> v{m->msg_iov, m->msg_iovlen};
  const ssize_t total = total_bytes(v);
  if (total < 0) return total;
  if ((flags & (MSG_ERRQUEUE | MSG_OOB)) != 0) [[unlikely]] {
    const Guard guard(*this, fd);
    return receive_apart(*this, files.socket(fd), v, flags, m);
  }
  Beside beside;
  const ssize_t result = receive(*this, fd, v, static_cast<std::size_t>(total), flags, &beside);
  if (result < 0) return result;
  if (m->msg_name != nullptr) m->msg_namelen = 0;  // a stream has no addresses
  m->msg_flags = flags & MSG_CMSG_CLOEXEC;
  put_beside(*m, beside);
  return result;
}

}  // namespace mtcp::intercept

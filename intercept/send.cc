// send and sendmsg (and with them write, writev, sendto), in the order of tcp_sendmsg().
#include "intercept/send.hh"

#include <errno.h>
#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "intercept/call.hh"
#include "intercept/errors.hh"
#include "intercept/iovecs.hh"
#include "intercept/relayed.hh"
#include "intercept/wait.hh"

namespace mtcp::intercept {
namespace {

// One sending call; `urgent`: with MSG_OOB.
template <bool urgent = false>
class Send {
 public:
  Send(Process& process, std::unique_lock<Lock>& guard, Socket& s, std::span<const iovec> v,
       std::size_t total, int flags)
      : process_(process),
        guard_(guard),
        s_(s),
        left_(v),
        total_(total),
        more_((flags & MSG_MORE) != 0),
        record_((flags & MSG_EOR) != 0),
        blocking_(!s.nonblocking && (flags & MSG_DONTWAIT) == 0) {}

  ssize_t run() {
    ssize_t result = attempt();
    if (result != -EAGAIN) return result;
    if (retry_after_turn(process_, s_)) {
      result = attempt();
      if (result != -EAGAIN) return result;
    }
    return blocking_ ? wait() : give_up(-EAGAIN);
  }

 private:
  // Hands over what fits. The call's result, or -EAGAIN: it would have to wait.
  ssize_t attempt() {
    if (s_.state == Socket::State::relayed) [[unlikely]] return attempt_relayed();
    if (is_opening(*s_.connection)) return -EAGAIN;
    const auto sent = hand_over();
    if (!sent) {
      if (sent.error() == stack::Errc::would_block) return done_ > 0 && !blocking_ ? result() : -EAGAIN;
      return give_up(-to_errno(sent.error()));
    }
    done_ += *sent;
    if (record_ && done_ >= total_) [[unlikely]] process_.instance->worker().end_record(*s_.connection);
    if (done_ >= total_ || (!blocking_ && *sent > 0)) return result();
    left_.consume(*sent);
    return -EAGAIN;
  }

  stack::Result<std::size_t> hand_over() {
    stack::Worker& worker = process_.instance->worker();
    if constexpr (urgent) return worker.send_urgent(*s_.connection, left_.next(), more_, now());
    return worker.send(*s_.connection, left_.next(), more_, now());
  }

  // The same for a connection that another process has, too.
  ssize_t attempt_relayed() {
    const ssize_t sent = send_relayed(process_, s_, left_.next());
    if (sent == -EAGAIN) return done_ > 0 && !blocking_ ? result() : -EAGAIN;
    if (sent < 0) return give_up(static_cast<int>(sent));
    done_ += static_cast<std::size_t>(sent);
    if (done_ >= total_ || !blocking_) return result();
    left_.consume(static_cast<std::size_t>(sent));
    return -EAGAIN;
  }

  ssize_t wait() {
    const Hold hold_it(process_, s_);
    const stack::Time deadline = deadline_after(s_.send_timeout);
    for (;;) {
      const int error = wait_for(process_, guard_, s_, EPOLLOUT, deadline, deadline == stack::kNever);
      if (!connected(s_)) return give_up(-EPIPE);
      if (error != 0) return give_up(error);
      const ssize_t result = attempt();
      if (result != -EAGAIN) return result;
    }
  }

  [[nodiscard]] ssize_t give_up(int error) const { return done_ > 0 ? result() : error; }
  [[nodiscard]] ssize_t result() const { return static_cast<ssize_t>(done_); }

  Process& process_;
  std::unique_lock<Lock>& guard_;
  Socket& s_;
  Iovecs left_;
  std::size_t total_;
  std::size_t done_ = 0;
  bool more_;
  bool record_;
  bool blocking_;
};

// What goes out now, because the caller may go on to something that is not ours.
ssize_t sent_now(Process& process, ssize_t sent) {
  if (sent > 0 && process.started()) {
    process.instance->moved(static_cast<std::size_t>(sent));
    process.instance->hand_over();
  }
  return sent;
}

ssize_t send_zerocopy(Process& process, std::unique_lock<Lock>& guard, Socket& s, std::span<const iovec> v,
                      std::size_t total, int flags) {
  // Its completions would be this process's and the connection another's.
  if (s.state == Socket::State::relayed) return -ENOBUFS;
  const Hold hold_it(process, s);
  const ssize_t sent = Send<>(process, guard, s, v, total, flags).run();
  if (sent > 0) complete_zerocopy(s);
  return sent_now(process, sent);
}

ssize_t send_all(Process& process, int fd, std::span<const iovec> v, std::size_t total, int flags) {
  std::unique_lock guard(process.lock);
  Socket* s = process.files.socket(fd);
  if (s == nullptr) return -EBADF;
  claim_if_foreign(process, *s);
  if (const int error = check_sending(*s, flags); error != 0) return error;
  if (s->state == Socket::State::relayed) s->nonblocking = is_nonblocking(process, *s);
  settle(process, *s);
  if ((flags & (MSG_ZEROCOPY | MSG_OOB)) != 0) [[unlikely]] {
    if ((flags & MSG_OOB) != 0) return sent_now(process, Send<true>(process, guard, *s, v, total, flags).run());
    if (s->zerocopy) return send_zerocopy(process, guard, *s, v, total, flags);
  }
  return sent_now(process, Send<>(process, guard, *s, v, total, flags).run());
}

}  // namespace

int check_sending(Socket& s, int flags) {
  // No TCP Fast Open, as with net.ipv4.tcp_fastopen = 0; and a relay passes on no urgent data.
  if ((flags & (MSG_OOB | MSG_FASTOPEN)) != 0 && ((flags & MSG_FASTOPEN) != 0 || s.state == Socket::State::relayed)) [[unlikely]]
    return -EOPNOTSUPP;
  switch (s.state) {
    case Socket::State::stream:
    case Socket::State::relayed:
      return 0;
    default:
      break;
  }
  if (s.error != stack::Errc::ok) return -to_errno(std::exchange(s.error, stack::Errc::ok));
  return -EPIPE;  // never connected
}

ssize_t Process::send(int fd, const void* p, std::size_t n, int flags) {
  if (p == nullptr && n > 0) return -EFAULT;
  const iovec one{const_cast<void*>(p), std::min<std::size_t>(n, SSIZE_MAX)};
  return send_all(*this, fd, {&one, 1}, one.iov_len, flags);
}

ssize_t Process::sendmsg(int fd, const msghdr* m, int flags) {
  if (m == nullptr) return -EFAULT;
  if (m->msg_iovlen > kMostIovecs) return -EMSGSIZE;
  if (m->msg_iov == nullptr && m->msg_iovlen > 0) return -EFAULT;
  const std::span<const iovec> v{m->msg_iov, m->msg_iovlen};
  const ssize_t total = total_bytes(v);
  if (total < 0) return total;
  // An address is ignored on a stream, as Linux does; so are control messages, none of which is TCP's.
  return send_all(*this, fd, v, static_cast<std::size_t>(total), flags);
}

}  // namespace mtcp::intercept

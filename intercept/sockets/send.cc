// send and sendmsg (and with them write, writev, sendto), in the order of tcp_sendmsg().
#include "intercept/sockets/send.hh"

#include <errno.h>
#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/iovecs.hh"
#include "intercept/sockets/stream_call.hh"
#include "intercept/sockets/timestamping.hh"
#include "intercept/support/errors.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

// One sending call; `urgent`: with MSG_OOB.
template <bool urgent = false>
class Send : StreamCall {
 public:
  Send(Process& process, Guard& guard, Socket& s, std::span<const iovec> v,
       std::size_t total, int flags)
      : StreamCall(process, guard, s),
        left_(v),
        total_(total),
        more_((flags & MSG_MORE) != 0),
        record_((flags & MSG_EOR) != 0),
        blocking_(!s.nonblocking && (flags & MSG_DONTWAIT) == 0) {}
  // `bytes` of it are sent.
  void skip(std::size_t bytes) {
    done_ = bytes;
    left_.consume(bytes);
  }

  ssize_t run() {
    const ssize_t result = attempt_twice([this] { return attempt(); });
    if (result != -EAGAIN) return result;
    return blocking_ ? wait() : give_up(-EAGAIN);
  }

 private:
  // Hands over what fits. The call's result, or -EAGAIN: it would have to wait.
  ssize_t attempt() {
    if (s_.state == Socket::State::relayed) [[unlikely]] return attempt_relayed();
    if (is_opening(*s_.connection)) return -EAGAIN;
    // What has been sent is returned before an error is told, which is the next call's then: it must not be taken yet.
    if (done_ > 0 && s_.shard->instance->worker().readiness(*s_.connection).error) [[unlikely]] return result();
    const auto sent = hand_over();
    if (!sent) {
      if (sent.error() == stack::Errc::would_block) return done_ > 0 && !blocking_ ? result() : -EAGAIN;
      return give_up(-to_errno(sent.error()));
    }
    done_ += *sent;
    if (record_ && done_ >= total_) [[unlikely]] s_.shard->instance->worker().end_record(*s_.connection);
    if (done_ >= total_ || (!blocking_ && *sent > 0)) return result();
    left_.consume(*sent);
    return -EAGAIN;
  }

  stack::Result<std::size_t> hand_over() {
    stack::Worker& worker = s_.shard->instance->worker();
    if constexpr (urgent) return worker.send_urgent(*s_.connection, left_.next(), more_, now());
    return worker.send(*s_.connection, left_.next(), more_, now());
  }

  // The same for a connection that another process has, too.
  ssize_t attempt_relayed() {
    const ssize_t sent = send_relayed(process_, s_, left_.next());
    if (sent == -EAGAIN) return done_ > 0 && !blocking_ ? result() : -EAGAIN;
    if (sent < 0) return give_up(sent);
    done_ += static_cast<std::size_t>(sent);
    if (done_ >= total_ || !blocking_) return result();
    left_.consume(static_cast<std::size_t>(sent));
    return -EAGAIN;
  }

  ssize_t wait() {
    return wait_for_room(process_, guard_, s_, [this] { return attempt(); }, [this](int error) { return give_up(error); });
  }

  Iovecs left_;
  std::size_t total_;
  bool more_;
  bool record_;
  bool blocking_;
};

// What goes out now, because the caller may go on to something that is not ours.
// The socket may be gone by now.
ssize_t sent_now(Guard& guard, ssize_t sent) {
  if (Instance* instance = guard.shard().instance.get(); sent > 0 && instance != nullptr) {
    instance->moved(static_cast<std::size_t>(sent));
    instance->hand_over();
  }
  return sent;
}

// With MSG_ZEROCOPY, or with control messages that say which times are wanted of what it sends (SO_TIMESTAMPING). `control`: null if there are none.
ssize_t send_with_extras(Process& process, Guard& guard, Socket& s, std::span<const iovec> v, std::size_t total, int flags,
                         const msghdr* control) {
  SendControl wanted;
  if (control != nullptr)
    if (const int error = read_send_control(s, *control, wanted); error != 0) return error;
  const Hold hold_it(process, s);
  if (wanted.asks) ask_for_stamps(s, wanted);
  const ssize_t sent = Send<>(process, guard, s, v, total, flags).run();
  if (wanted.asks) ask_for_stamps(s);
  if (sent > 0 && s.zerocopy && (flags & MSG_ZEROCOPY) != 0) complete_zerocopy(s);
  return sent_now(guard, sent);
}

// For a connection that another process has, too. What the kernel takes at once needs no look at O_NONBLOCK.
ssize_t send_to_relay(Process& process, Guard& guard, Socket& s, std::span<const iovec> v, std::size_t total, int flags) {
  const ssize_t sent = send_relayed(process, s, v);
  if ((sent < 0 && sent != -EAGAIN) || sent == static_cast<ssize_t>(total)) return sent_now(guard, sent);
  s.nonblocking = is_nonblocking(process, s);
  Send<> rest(process, guard, s, v, total, flags);
  if (sent > 0) rest.skip(static_cast<std::size_t>(sent));
  return sent_now(guard, rest.run());
}

// tcp_sendmsg_fastopen(): connects, and the SYN takes along what it may. `m`: flags and address of the call.
ssize_t send_fast_open(Process& process, Guard& guard, int fd, Socket& s, std::span<const iovec> v,
                       std::size_t total, const msghdr& m) {
  const auto* a = static_cast<const sockaddr*>(m.msg_name);
  const bool none = a != nullptr && m.msg_namelen >= sizeof a->sa_family && a->sa_family == AF_UNSPEC;
  if ((process.options.stack.tcp.fast_open & stack::kFastOpenClient) == 0 || none) return -EOPNOTSUPP;
  if (s.state != Socket::State::undecided) return s.connecting ? -EALREADY : -EISCONN;
  const Hold hold_it(process, s);
  const bool own = std::exchange(s.nonblocking, s.nonblocking || (m.msg_flags & MSG_DONTWAIT) != 0);
  stack::FastOpenStart fast{v};
  const int error = s.deferred ? connect_deferred(process, guard, s, fast)
                               : connect_undecided(process, guard, s, a, a != nullptr ? m.msg_namelen : 0, &fast);
  s.nonblocking = own;
  if (error == kConnectsInKernel) {
    msghdr whole = m;
    whole.msg_iov = const_cast<iovec*>(v.data());
    whole.msg_iovlen = v.size();
    guard.unlock();
    const ssize_t sent = process.kernel.sendmsg(fd, &whole, m.msg_flags);
    guard.lock();
    return sent;
  }
  if (error == -EINPROGRESS && fast.taken != 0) return static_cast<ssize_t>(fast.taken);
  if (error != 0) return error;
  if (fast.taken == total) return static_cast<ssize_t>(total);
  Send<> rest(process, guard, s, v, total, m.msg_flags);
  rest.skip(fast.taken);
  return rest.run();
}

ssize_t send_all(Process& process, int fd, std::span<const iovec> v, std::size_t total, int flags,
                 const msghdr* m = nullptr) {
  Guard guard(process, fd);
  Socket* s = process.files.socket(fd);
  if (s == nullptr) return -EBADF;
  claim_if_foreign(process, *s);
  if ((flags & MSG_FASTOPEN) != 0 || s->deferred) [[unlikely]] {
    msghdr call{};
    if (m != nullptr && !s->deferred) call = *m;
    if (process.shards.several()) {
      process.choose_shard(guard, fd, static_cast<const sockaddr*>(call.msg_name), call.msg_namelen);
      s = process.files.socket(fd);
      if (s == nullptr) return -EBADF;
    }
    call.msg_flags = flags;
    const ssize_t sent = send_fast_open(process, guard, fd, *s, v, total, call);
    if (Instance* instance = guard.shard().instance.get(); instance != nullptr) instance->hand_over();
    return sent;
  }
  if (const int error = check_sending(*s, flags); error != 0) return error;
  const bool has_control = m != nullptr && m->msg_controllen != 0;
  if (s->state == Socket::State::relayed) {
    // Completions of MSG_ZEROCOPY would be this process's and the connection another's.
    if ((flags & MSG_ZEROCOPY) != 0 && s->zerocopy) return -ENOBUFS;
    if (!has_control) return send_to_relay(process, guard, *s, v, total, flags);
    s->nonblocking = is_nonblocking(process, *s);
  }
  settle(process, *s);
  if (has_control || (flags & (MSG_ZEROCOPY | MSG_OOB)) != 0) [[unlikely]] {
    if ((flags & MSG_OOB) != 0) return sent_now(guard, Send<true>(process, guard, *s, v, total, flags).run());
    if (has_control || s->zerocopy) return send_with_extras(process, guard, *s, v, total, flags, has_control ? m : nullptr);
  }
  return sent_now(guard, Send<>(process, guard, *s, v, total, flags).run());
}

}  // namespace

int check_sending(Socket& s, int flags) {
  if ((flags & MSG_OOB) != 0 && s.state == Socket::State::relayed) [[unlikely]] return -EOPNOTSUPP;  // a relay passes on none
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

int start_deferred(Process& process, Guard& guard, Socket& s) {
  if (!s.deferred) return 0;
  stack::FastOpenStart nothing;
  const int error = connect_deferred(process, guard, s, nothing);
  return error == -EINPROGRESS ? 0 : error;
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
  // An address is ignored on a stream, as Linux does, but for MSG_FASTOPEN.
  return send_all(*this, fd, v, static_cast<std::size_t>(total), flags, m);
}

}  // namespace mtcp::intercept

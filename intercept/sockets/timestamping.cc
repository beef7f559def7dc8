#include "intercept/sockets/timestamping.hh"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "intercept/descriptors/socket.hh"
#include "intercept/shards/shard.hh"
#include "intercept/sockopt/sockopt_kept.hh"
#include "intercept/support/clock.hh"

namespace mtcp::intercept {
namespace {

// asm-generic/socket.h, by number: the second of each is for times of 64 bits, which these are anyhow.
constexpr int kTimestamp = 29, kTimestampNs = 35, kTimestamping = 37;
constexpr int kTimestampNew = 63, kTimestampNsNew = 64, kTimestampingNew = 65;
// linux/net_tstamp.h; some are younger than the headers.
constexpr std::uint32_t kOptIdTcp = 1U << 16, kOptRxFilter = 1U << 17, kTxCompletion = 1U << 18;
constexpr std::uint32_t kKnown = (1U << 19) - 1;
constexpr std::uint32_t kSendFlags =
    SOF_TIMESTAMPING_TX_HARDWARE | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_ACK | kTxCompletion;

struct FlagsAndClock {  // so_timestamping
  std::uint32_t flags, clock;
};

std::uint8_t kinds_of(std::uint32_t flags) {
  return static_cast<std::uint8_t>(((flags & SOF_TIMESTAMPING_TX_SCHED) != 0 ? stack::kStampQueued : 0) |
                                   ((flags & SOF_TIMESTAMPING_TX_SOFTWARE) != 0 ? stack::kStampSent : 0) |
                                   ((flags & SOF_TIMESTAMPING_TX_ACK) != 0 ? stack::kStampAcknowledged : 0));
}

// The stack's time as that of day. The difference of the two clocks is kept as long as a look at them can't tell it from another, so
// that who reads a time twice (MSG_PEEK) gets the same.
timespec time_of_day(stack::Time when) {
  static std::atomic<std::int64_t> kept{0};
  constexpr std::int64_t kClose = 4'000;  // ns; the stack's clock follows the kernel's to about that
  timespec t{};
  const stack::Time before = now();
  (void)clock_gettime(CLOCK_REALTIME, &t);
  const std::int64_t width = (now() - before).count();
  const std::int64_t fresh = std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec - before.time_since_epoch().count() - width / 2;
  std::int64_t difference = kept.load(std::memory_order_relaxed);
  if (std::abs(fresh - difference) > width + kClose) kept.store(difference = fresh, std::memory_order_relaxed);
  const std::int64_t ns = when.time_since_epoch().count() + difference;
  return {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
}

// As it is set; nothing is, where it was never asked for.
Timestamping times_of(const Socket& s) { return s.timestamping != nullptr ? *s.timestamping : Timestamping{}; }

Timestamping& need_times(Socket& s) {
  if (s.timestamping == nullptr) s.timestamping = std::make_unique<Timestamping>();
  return *s.timestamping;
}

bool is_connected(const Socket& s) { return s.state == Socket::State::stream && s.connection->hot.state != stack::State::closed; }

// As sock_set_timestamping().
int set_flags(Socket& s, std::uint32_t flags, bool wide) {
  if ((flags & ~kKnown) != 0) return -EINVAL;
  if ((flags & kOptIdTcp) != 0 && (flags & SOF_TIMESTAMPING_OPT_ID) == 0) return -EINVAL;
  const std::uint32_t before = times_of(s).flags;
  std::optional<std::uint32_t> first;
  if ((flags & SOF_TIMESTAMPING_OPT_ID) != 0 && (before & SOF_TIMESTAMPING_OPT_ID) == 0) {
    if (!is_connected(s)) return -EINVAL;
    const auto& h = s.connection->hot;
    first = (h.snd_una + ((flags & kOptIdTcp) != 0 ? h.snd_queued : 0U)).value();
  }
  // Statistics beside each time: not here.
  if ((flags & SOF_TIMESTAMPING_OPT_STATS) != 0) return -EINVAL;
  if ((flags & SOF_TIMESTAMPING_BIND_PHC) != 0) return -EOPNOTSUPP;  // as Linux without SO_BINDTODEVICE
  Timestamping& t = need_times(s);
  t.flags = flags;
  t.wide = wide;
  if (first) t.first = *first;
  ask_for_stamps(s);
  return 0;
}

int set_receive(Socket& s, bool on, bool nanoseconds, bool wide) {
  Timestamping& t = need_times(s);
  t.receive = on;
  t.nanoseconds = on && nanoseconds;
  if (on) t.wide = wide;
  return 0;
}

int give(const void* value, std::size_t size, void* v, socklen_t* n) {
  *n = static_cast<socklen_t>(std::min<std::size_t>(*n, size));
  std::memcpy(v, value, *n);
  return 0;
}

void put_simple_time(ControlMessages& out, const Timestamping& t, const timespec& when) {
  if (t.nanoseconds) return out.put(SOL_SOCKET, t.wide ? kTimestampNsNew : kTimestampNs, when);
  out.put(SOL_SOCKET, t.wide ? kTimestampNew : kTimestamp, timeval{when.tv_sec, when.tv_nsec / 1000});
}

void put_times(ControlMessages& out, const Timestamping& t, const timespec& when) {
  out.put(SOL_SOCKET, t.wide ? kTimestampingNew : kTimestamping, scm_timestamping{{when, {}, {}}});
}

std::size_t copy_out(std::span<const std::byte> data, std::span<const iovec> v) {
  std::size_t done = 0;
  for (const iovec& piece : v) {
    const std::size_t n = std::min(piece.iov_len, data.size() - done);
    if (n != 0) std::memcpy(piece.iov_base, data.data() + done, n);
    done += n;
  }
  return done;
}

}  // namespace

bool is_timestamping(int name) {
  return name == kTimestamp || name == kTimestampNs || name == kTimestamping || (name >= kTimestampNew && name <= kTimestampingNew);
}

int set_timestamping(Socket& s, int name, const void* v, socklen_t n) {
  const bool wide = name >= kTimestampNew;
  if (s.state == Socket::State::relayed) return -ENOPROTOOPT;  // a relay keeps no times
  int value = 0;
  if (n < sizeof value) return -EINVAL;
  std::memcpy(&value, v, sizeof value);
  if (name == kTimestamping || name == kTimestampingNew) return set_flags(s, static_cast<std::uint32_t>(value), wide);
  return set_receive(s, value != 0, name == kTimestampNs || name == kTimestampNsNew, wide);
}

int get_timestamping(const Socket& s, int name, void* v, socklen_t* n) {
  const Timestamping t = times_of(s);
  int value = 0;
  switch (name) {
    case kTimestamp: value = t.receive && !t.wide && !t.nanoseconds; break;
    case kTimestampNs: value = t.nanoseconds && !t.wide; break;
    case kTimestampNew: value = t.receive && t.wide; break;
    case kTimestampNsNew: value = t.nanoseconds && t.wide; break;
    default: {
      const FlagsAndClock flags{name == kTimestamping || t.wide ? t.flags : 0, 0};
      return give(&flags, sizeof flags, v, n);
    }
  }
  return give(&value, sizeof value, v, n);
}

std::span<const TimestampingOption> timestamping_options(const Socket& s, std::span<TimestampingOption, 2> room) {
  if (s.timestamping == nullptr) return {};
  const Timestamping& t = *s.timestamping;
  std::size_t n = 0;
  if (t.receive) room[n++] = {t.nanoseconds ? (t.wide ? kTimestampNsNew : kTimestampNs) : (t.wide ? kTimestampNew : kTimestamp), 1};
  if (t.flags != 0) room[n++] = {t.wide ? kTimestampingNew : kTimestamping, t.flags};
  return room.first(n);
}

void ask_for_stamps(Socket& s) {
  if (s.state != Socket::State::stream) return;
  const std::uint32_t flags = times_of(s).flags;
  (void)s.shard->instance->worker().want_stamps(*s.connection, kinds_of(flags), (flags & SOF_TIMESTAMPING_OPT_TSONLY) == 0);
}

void ask_for_stamps(Socket& s, const SendControl& control) {
  if (s.state != Socket::State::stream) return;
  const bool bare = (need_times(s).flags & SOF_TIMESTAMPING_OPT_TSONLY) != 0;
  (void)s.shard->instance->worker().want_stamps(*s.connection, kinds_of(control.flags), !bare);
}

// As tcp_recv_timestamp().
void put_receive_times(ControlMessages& out, const Timestamping& t, stack::Time when) {
  const timespec day = time_of_day(when);
  if (t.receive) put_simple_time(out, t, day);
  const bool wanted = (t.flags & SOF_TIMESTAMPING_RX_SOFTWARE) != 0 || (t.flags & kOptRxFilter) == 0;
  if ((t.flags & SOF_TIMESTAMPING_SOFTWARE) != 0 && wanted) put_times(out, t, day);
}

// As sock_cmsg_send().
int read_send_control(const Socket& s, const msghdr& m, SendControl& control) {
  if (m.msg_control == nullptr) return -EFAULT;
  msghdr walked = m;  // CMSG_NXTHDR takes it so
  for (const cmsghdr* c = CMSG_FIRSTHDR(&walked); c != nullptr; c = CMSG_NXTHDR(&walked, const_cast<cmsghdr*>(c))) {
    const auto left = static_cast<std::size_t>(static_cast<const std::byte*>(m.msg_control) + m.msg_controllen - reinterpret_cast<const std::byte*>(c));
    if (c->cmsg_len < sizeof *c || c->cmsg_len > left) return -EINVAL;
    if (c->cmsg_level != SOL_SOCKET) continue;
    switch (c->cmsg_type) {
      case kTimestamping:
      case kTimestampingNew:
        if (c->cmsg_len != CMSG_LEN(sizeof control.flags)) return -EINVAL;
        std::memcpy(&control.flags, CMSG_DATA(c), sizeof control.flags);
        if ((control.flags & ~kSendFlags) != 0) return -EINVAL;
        control.asks = true;
        break;
      case SCM_TXTIME:  // which a stream does not heed
        if (!has_kept_option(s, SOL_SOCKET, SO_TXTIME) || c->cmsg_len != CMSG_LEN(sizeof(std::uint64_t))) return -EINVAL;
        break;
      case SCM_RIGHTS:
      case SCM_CREDENTIALS:
      case SO_MARK:
      case SO_PRIORITY:
        break;  // they mean nothing here
      default:
        return -EINVAL;
    }
  }
  return 0;
}

bool has_stamps(const Socket& s) {
  return s.timestamping != nullptr && s.state == Socket::State::stream && s.shard->instance->worker().has_stamps(*s.connection);
}

// As ip_recv_error().
ssize_t receive_stamp(Socket& s, std::span<const iovec> v, msghdr* m) {
  stack::StampReport report;
  if (s.state != Socket::State::stream || !s.shard->instance->worker().take_stamp(*s.connection, report)) return -EAGAIN;
  const auto copied = static_cast<ssize_t>(copy_out(report.frame, v));
  if (m == nullptr) return copied;
  const Timestamping t = times_of(s);
  m->msg_flags = MSG_ERRQUEUE | (static_cast<std::size_t>(copied) < report.frame.size() ? MSG_TRUNC : 0);
  m->msg_namelen = 0;
  ControlMessages out(*m);
  const timespec day = time_of_day(report.when);
  if (t.receive) put_simple_time(out, t, day);
  if ((t.flags & SOF_TIMESTAMPING_SOFTWARE) != 0) put_times(out, t, day);
  sock_extended_err error{};
  error.ee_errno = ENOMSG;
  error.ee_origin = SO_EE_ORIGIN_TIMESTAMPING;
  error.ee_info = report.kind == stack::kStampQueued  ? SCM_TSTAMP_SCHED
                  : report.kind == stack::kStampSent ? SCM_TSTAMP_SND
                                                     : SCM_TSTAMP_ACK;
  if ((t.flags & SOF_TIMESTAMPING_OPT_ID) != 0) error.ee_data = report.byte.value() - t.first;
  out.put_error(s.v6, error);
  return copied;
}

}  // namespace mtcp::intercept

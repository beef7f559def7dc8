#include "intercept/sockopt/sockopt_table.hh"

#include <errno.h>
#include <limits.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "intercept/support/clock.hh"
#include "intercept/support/errors.hh"

namespace mtcp::intercept {
namespace {

using stack::Duration;
using stack::milliseconds;
using stack::seconds;

constexpr int kMinReceiveBuffer = 2304, kMinSendBuffer = 4608;  // SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF
constexpr int kDefaultTtl = 64;                                 // net.ipv4.ip_default_ttl
constexpr int kDefaultMss = 536;                                // TCP_MSS_DEFAULT
constexpr int kBufLock = 72;                                    // SO_BUF_LOCK
constexpr int kSendLocked = 1, kReceiveLocked = 2;
constexpr Duration kNoFinWait{1};                               // TCP_LINGER2 < 0: do not stay in FIN-WAIT-2

int whole_seconds(Duration d) { return static_cast<int>(std::chrono::duration_cast<seconds>(d).count()); }
int or_default(Duration own, Duration common) {
  return whole_seconds(own == Duration::zero() ? common : own);
}

// SO_RCVBUF and SO_SNDBUF are doubled for bookkeeping overhead, in Linux and so here (socket(7)). A negative size is a huge one
// there, but for SO_RCVBUFFORCE and SO_SNDBUFFORCE.
std::uint32_t doubled(int value, std::uint32_t most, int least) {
  const auto wanted = std::min(static_cast<std::uint32_t>(value), std::min<std::uint32_t>(most, INT_MAX / 2));
  return std::max(wanted * 2, static_cast<std::uint32_t>(least));
}

int get_receive_buffer(const Socket& s, const Options& o) {
  if (s.options.rcvbuf != 0) return static_cast<int>(s.options.rcvbuf);
  if (s.connection != nullptr && s.connection->rx.buffer != 0)
    return static_cast<int>(s.connection->rx.buffer);
  return static_cast<int>(o.stack.tcp.rmem.initial);
}
int get_send_buffer(const Socket& s, const Options& o) {
  if (s.options.sndbuf != 0) return static_cast<int>(s.options.sndbuf);
  if (s.connection != nullptr && s.connection->tx.buffer != 0)
    return static_cast<int>(s.connection->tx.buffer);
  return static_cast<int>(o.stack.tcp.wmem.initial);
}

// As tcp_set_rcvlowat(): no more than a window can be, or nobody would ever be woken.
int set_low_water(Socket& s, const Options& o, int v) {
  const std::uint32_t most = (s.options.rcvbuf != 0 ? s.options.rcvbuf : o.stack.tcp.rmem.max) / 2;
  s.options.rcvlowat = std::clamp(static_cast<std::uint32_t>(v < 0 ? INT_MAX : v), 1U, most);
  return 0;
}

int get_mss(const Socket& s, const Options&) {
  if (s.connection != nullptr) return s.connection->hot.mss;
  return s.options.max_segment != 0 ? s.options.max_segment : kDefaultMss;
}
int set_mss(Socket& s, const Options&, int v) {
  constexpr int kLeast = 88, kMost = 32767;  // TCP_MIN_MSS, MAX_TCP_WINDOW
  if (v != 0 && (v < kLeast || v > kMost)) return -EINVAL;
  s.options.max_segment = static_cast<std::uint16_t>(v);
  return 0;
}

int set_seconds(stack::ShortDuration& target, int v) {
  constexpr int kMost = 32767;  // MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL
  if (v < 1 || v > kMost) return -EINVAL;
  target = seconds(v);
  return 0;
}
int set_count(std::uint8_t& target, int v) {
  if (v < 1 || v > 127) return -EINVAL;  // MAX_TCP_KEEPCNT, MAX_TCP_SYNCNT
  target = static_cast<std::uint8_t>(v);
  return 0;
}

int get_linger2(const Socket& s, const Options& o) {
  return s.options.fin_timeout == kNoFinWait ? -1
                                             : or_default(s.options.fin_timeout, o.stack.tcp.fin_timeout);
}
int set_linger2(Socket& s, const Options&, int v) {
  constexpr int kMost = 120;  // TCP_FIN_TIMEOUT_MAX
  s.options.fin_timeout = v < 0 ? kNoFinWait : Duration(seconds(std::min(v, kMost)));
  return 0;
}

// TCP_DEFER_ACCEPT counts in retransmissions of the SYN-ACK, which come after 1, 2, 4, ... seconds: a time is
// rounded up to their sum, of at most 255 (secs_to_retrans and back).
int deferral(int wanted) {
  constexpr int kLongest = 120, kMost = 255;
  int sum = 0, step = 1;
  for (int n = 0; sum < wanted && n < kMost; ++n, step = std::min(step * 2, kLongest)) sum += step;
  return sum;
}
int set_defer_accept(Socket& s, const Options&, int v) {
  s.listen_options.defer_accept = seconds(v <= 0 ? 0 : deferral(v));
  if (s.listener != nullptr) s.listener->defer_accept = s.listen_options.defer_accept;
  return 0;
}

// Of a connection: the largest window that it may have.
int get_window_clamp(const Socket& s, const Options& o) {
  if (s.options.window_clamp != 0 || s.connection == nullptr) return static_cast<int>(s.options.window_clamp);
  return static_cast<int>(std::max(o.stack.tcp.rmem.max, s.options.rcvbuf) / 2);
}
int set_window_clamp(Socket& s, const Options&, int v) {
  if (v == 0 && s.state != Socket::State::undecided) return -EINVAL;
  s.options.window_clamp = v == 0 ? 0 : static_cast<std::uint32_t>(std::max(v, kMinReceiveBuffer / 2));
  return 0;
}

int get_quickack(const Socket& s, const Options&) { return s.quickack_set ? s.options.quickack : 1; }
int set_quickack(Socket& s, const Options&, int v) {
  s.quickack_set = true;
  s.options.quickack = v != 0;
  return 0;
}

int set_inq(Socket& s, const Options&, int v) {
  if (v < 0 || v > 1) return -EINVAL;
  s.inq = v == 1;
  return 0;
}

int set_user_timeout(Socket& s, const Options&, int v) {
  if (v < 0) return -EINVAL;
  s.options.user_timeout = milliseconds(v);
  return 0;
}

// TCP Fast Open. The numbers are those of net.ipv4.tcp_fastopen.
constexpr int kMostFastOpens = 4096;  // net.core.somaxconn
bool is_closed_or_listens(const Socket& s) {
  return s.state == Socket::State::undecided || s.state == Socket::State::listening;
}
int set_fast_open(Socket& s, const Options&, int v) {
  if (v < 0 || !is_closed_or_listens(s)) return -EINVAL;
  s.listen_options.fast_open_limit = static_cast<std::uint32_t>(std::min(v, kMostFastOpens));
  if (s.listener != nullptr) s.listener->fast_open_limit = s.listen_options.fast_open_limit;
  return 0;
}
int set_fast_open_connect(Socket& s, const Options& o, int v) {
  if (v < 0 || v > 1) return -EINVAL;
  if ((o.stack.tcp.fast_open & stack::kFastOpenClient) == 0) return -EOPNOTSUPP;
  if (s.state != Socket::State::undecided) return -EINVAL;
  s.fast_open_connect = v == 1;
  return 0;
}
int set_fast_open_no_cookie(Socket& s, const Options&, int v) {
  if (v < 0 || v > 1 || !is_closed_or_listens(s)) return -EINVAL;
  s.options.fast_open_no_cookie = v == 1;
  return 0;
}

// SO_BUF_LOCK: which of the buffers have a size that was set.
int get_buffer_lock(const Socket& s, const Options&) {
  return (s.options.sndbuf != 0 ? kSendLocked : 0) | (s.options.rcvbuf != 0 ? kReceiveLocked : 0);
}
int set_buffer_lock(Socket& s, const Options& o, int v) {
  if ((v & ~(kSendLocked | kReceiveLocked)) != 0) return -EINVAL;
  s.options.sndbuf = (v & kSendLocked) != 0 ? static_cast<std::uint32_t>(get_send_buffer(s, o)) : 0;
  s.options.rcvbuf = (v & kReceiveLocked) != 0 ? static_cast<std::uint32_t>(get_receive_buffer(s, o)) : 0;
  return 0;
}

int get_timestamp(const Socket& s, const Options&) {
  const auto clock = std::chrono::duration_cast<milliseconds>(now().time_since_epoch()).count();
  return static_cast<int>(static_cast<std::uint32_t>(clock) + (s.connection != nullptr ? s.connection->ts_offset : 0));
}

#define BOOL_OF(field)                                             \
  [](const Socket& s, const Options&) { return s.field ? 1 : 0; }, \
      [](Socket& s, const Options&, int v) { return s.field = v != 0, 0; }, nullptr
#define READ_ONLY(value) \
  [](const Socket& s, const Options&) { return (void)s, static_cast<int>(value); }, nullptr, nullptr

// The order is that of replay. IPV6_V6ONLY and those that only the kernel can judge are not here: see
// sockopt.cc.
constexpr std::array kRows = {
    OptionRow{SOL_SOCKET, SO_REUSEADDR, BOOL_OF(options.reuse_address)},
    OptionRow{SOL_SOCKET, SO_REUSEPORT, BOOL_OF(reuse_port)},
    OptionRow{SOL_SOCKET, SO_KEEPALIVE, BOOL_OF(options.keepalive)},
    OptionRow{SOL_SOCKET, SO_OOBINLINE, BOOL_OF(options.oob_inline)},
    OptionRow{SOL_SOCKET, SO_RCVBUF, get_receive_buffer,
              [](Socket& s, const Options& o, int v) {
                s.options.rcvbuf = doubled(v, o.stack.tcp.rmem.max, kMinReceiveBuffer);
                return 0;
              },
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.rcvbuf / 2); }},
    OptionRow{SOL_SOCKET, SO_SNDBUF, get_send_buffer,
              [](Socket& s, const Options& o, int v) {
                s.options.sndbuf = doubled(v, o.stack.tcp.wmem.max, kMinSendBuffer);
                return 0;
              },
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.sndbuf / 2); }},
    OptionRow{SOL_SOCKET, SO_RCVLOWAT,
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.rcvlowat); },
              set_low_water, nullptr},
    OptionRow{SOL_SOCKET, SO_SNDLOWAT, READ_ONLY(1)},
    OptionRow{SOL_SOCKET, SO_TYPE, READ_ONLY(SOCK_STREAM)},
    OptionRow{SOL_SOCKET, SO_PROTOCOL, READ_ONLY(IPPROTO_TCP)},
    OptionRow{SOL_SOCKET, SO_DOMAIN, READ_ONLY(s.v6 ? AF_INET6 : AF_INET)},
    OptionRow{SOL_SOCKET, SO_ACCEPTCONN, READ_ONLY(s.state == Socket::State::listening)},
    OptionRow{IPPROTO_IP, IP_TOS, [](const Socket& s, const Options&) { return int{s.options.tos}; },
              [](Socket& s, const Options&, int v) {
                s.options.tos = static_cast<std::uint8_t>(v & ~3);  // a TCP keeps the ECN bits for itself
                return 0;
              },
              nullptr},
    OptionRow{
        IPPROTO_IP, IP_TTL,
        [](const Socket& s, const Options&) { return s.options.ttl != 0 ? int{s.options.ttl} : kDefaultTtl; },
        [](Socket& s, const Options&, int v) {
          if (v != -1 && (v < 1 || v > 255)) return -EINVAL;
          s.options.ttl = static_cast<std::uint8_t>(v == -1 ? 0 : v);
          return 0;
        },
        nullptr},
    OptionRow{IPPROTO_TCP, TCP_NODELAY, BOOL_OF(options.nodelay)},
    OptionRow{IPPROTO_TCP, TCP_CORK, BOOL_OF(options.cork)},
    OptionRow{IPPROTO_TCP, TCP_QUICKACK, get_quickack, set_quickack, nullptr},
    OptionRow{IPPROTO_TCP, TCP_INQ, [](const Socket& s, const Options&) { return s.inq ? 1 : 0; }, set_inq, nullptr},
    OptionRow{IPPROTO_TCP, TCP_MAXSEG, get_mss, set_mss,
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.max_segment); }},
    OptionRow{IPPROTO_TCP, TCP_KEEPIDLE,
              [](const Socket& s, const Options& o) {
                return or_default(s.options.keepalive_time, o.stack.tcp.keepalive_time);
              },
              [](Socket& s, const Options&, int v) { return set_seconds(s.options.keepalive_time, v); },
              nullptr},
    OptionRow{IPPROTO_TCP, TCP_KEEPINTVL,
              [](const Socket& s, const Options& o) {
                return or_default(s.options.keepalive_intvl, o.stack.tcp.keepalive_intvl);
              },
              [](Socket& s, const Options&, int v) { return set_seconds(s.options.keepalive_intvl, v); },
              nullptr},
    OptionRow{IPPROTO_TCP, TCP_KEEPCNT,
              [](const Socket& s, const Options& o) {
                return static_cast<int>(s.options.keepalive_probes != 0 ? s.options.keepalive_probes
                                                                        : o.stack.tcp.keepalive_probes);
              },
              [](Socket& s, const Options&, int v) { return set_count(s.options.keepalive_probes, v); },
              nullptr},
    OptionRow{IPPROTO_TCP, TCP_SYNCNT,
              [](const Socket& s, const Options& o) {
                return static_cast<int>(s.options.syn_retries != 0 ? s.options.syn_retries
                                                                   : o.stack.tcp.syn_retries);
              },
              [](Socket& s, const Options&, int v) { return set_count(s.options.syn_retries, v); }, nullptr},
    OptionRow{IPPROTO_TCP, TCP_LINGER2, get_linger2, set_linger2, nullptr},
    OptionRow{IPPROTO_TCP, TCP_DEFER_ACCEPT,
              [](const Socket& s, const Options&) { return whole_seconds(s.listen_options.defer_accept); },
              set_defer_accept, nullptr},
    OptionRow{IPPROTO_TCP, TCP_WINDOW_CLAMP, get_window_clamp, set_window_clamp,
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.window_clamp); }},
    OptionRow{IPPROTO_TCP, TCP_USER_TIMEOUT,
              [](const Socket& s, const Options&) {
                return static_cast<int>(
                    std::chrono::duration_cast<milliseconds>(s.options.user_timeout).count());
              },
              set_user_timeout, nullptr},
    OptionRow{IPPROTO_TCP, TCP_NOTSENT_LOWAT,
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.notsent_lowat); },
              [](Socket& s, const Options&, int v) {
                s.options.notsent_lowat = static_cast<std::uint32_t>(v);
                return 0;
              },
              nullptr},
    OptionRow{SOL_SOCKET, SO_ZEROCOPY, [](const Socket& s, const Options&) { return s.zerocopy ? 1 : 0; },
              [](Socket& s, const Options&, int v) {
                if (v < 0 || v > 1) return -EINVAL;
                s.zerocopy = v != 0;
                return 0;
              },
              nullptr},
    OptionRow{IPPROTO_TCP, TCP_FASTOPEN,
              [](const Socket& s, const Options&) { return static_cast<int>(s.listen_options.fast_open_limit); }, set_fast_open,
              nullptr},
    OptionRow{IPPROTO_TCP, TCP_FASTOPEN_CONNECT, [](const Socket& s, const Options&) { return s.fast_open_connect ? 1 : 0; },
              set_fast_open_connect, nullptr},
    OptionRow{IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE,
              [](const Socket& s, const Options&) { return s.options.fast_open_no_cookie ? 1 : 0; }, set_fast_open_no_cookie,
              nullptr},
    OptionRow{SOL_SOCKET, kBufLock, get_buffer_lock, set_buffer_lock, nullptr},
    OptionRow{SOL_SOCKET, SO_SNDBUFFORCE, nullptr,
              [](Socket& s, const Options&, int v) {
                s.options.sndbuf = doubled(std::max(v, 0), INT_MAX / 2, kMinSendBuffer);
                return 0;
              },
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.sndbuf / 2); }},
    OptionRow{SOL_SOCKET, SO_RCVBUFFORCE, nullptr,
              [](Socket& s, const Options&, int v) {
                s.options.rcvbuf = doubled(std::max(v, 0), INT_MAX / 2, kMinReceiveBuffer);
                return 0;
              },
              [](const Socket& s, const Options&) { return static_cast<int>(s.options.rcvbuf / 2); }},
    OptionRow{IPPROTO_TCP, TCP_TIMESTAMP, get_timestamp, [](Socket&, const Options&, int) { return -EPERM; }, nullptr},
};
static_assert(kRows.size() <= 64, "one bit each in Socket::unreplayed");

}  // namespace

const OptionRow* find_option(int level, int name, unsigned& index) {
  for (index = 0; index < kRows.size(); ++index) {
    if (kRows[index].name == name && kRows[index].level == level) return &kRows[index];
  }
  return nullptr;
}

const OptionRow& option_row(unsigned index) { return kRows[index]; }

unsigned option_rows() { return kRows.size(); }

}  // namespace mtcp::intercept

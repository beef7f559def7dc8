// getsockopt and setsockopt. What the stack honours has a row in sockopt_table.cc or is a structure here; what becomes of
// all others is listed in sockopt_kinds.cc.
#include <errno.h>
#include <linux/inet_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/address.hh"
#include "intercept/sockopt/sockopt_ip.hh"
#include "intercept/sockopt/sockopt_kept.hh"
#include "intercept/sockopt/sockopt_table.hh"
#include "intercept/sockopt/sockopt_value.hh"
#include "intercept/sockopt/tcp_info.hh"
#include "intercept/support/errors.hh"

namespace mtcp::intercept {
namespace {

constexpr std::size_t kCongestionNameMax = 16;                // TCP_CA_NAME_MAX
constexpr int kMemInfo = 55, kCookie = 57;                     // SO_MEMINFO, SO_COOKIE
constexpr int kMaxPacingRate = 47;                             // SO_MAX_PACING_RATE
constexpr int kReceiveTimeoutNew = 66, kSendTimeoutNew = 67;  // the 64-bit variants; the same structure here

bool is_receive_timeout(int name) { return name == SO_RCVTIMEO || name == kReceiveTimeoutNew; }
bool is_send_timeout(int name) { return name == SO_SNDTIMEO || name == kSendTimeoutNew; }

// --- options that are structures

timeval to_timeval(stack::Duration d) {
  const auto us = std::chrono::duration_cast<stack::microseconds>(d).count();
  return {.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
}

// sock_set_timeout(): zero is for ever, and a negative time is over at once.
int set_timeout(stack::Duration& target, const void* v, socklen_t n) {
  timeval t{};
  if (n < sizeof t) return -EINVAL;
  std::memcpy(&t, v, sizeof t);
  if (t.tv_usec < 0 || t.tv_usec >= 1'000'000) return -EDOM;
  constexpr std::int64_t kLongest = 1'000'000'000;  // seconds; beyond is for ever
  if (t.tv_sec < 0) {
    target = stack::Duration(1);
  } else if (t.tv_sec > kLongest) {
    target = {};
  } else {
    target = stack::seconds(t.tv_sec) + stack::microseconds(t.tv_usec);
  }
  return 0;
}

// Bytes a second, as an unsigned int or long; in both all ones are no limit.
int set_pacing_rate(Socket& s, const void* v, socklen_t n) {
  std::uint32_t narrow = 0;
  if (n < sizeof narrow) return -EINVAL;
  if (n >= sizeof s.options.max_pacing_rate) {
    std::memcpy(&s.options.max_pacing_rate, v, sizeof s.options.max_pacing_rate);
    return 0;
  }
  std::memcpy(&narrow, v, sizeof narrow);
  s.options.max_pacing_rate = narrow == UINT32_MAX ? UINT64_MAX : narrow;
  return 0;
}

int get_pacing_rate(const Socket& s, void* v, socklen_t* n) {
  const std::uint64_t rate = s.options.max_pacing_rate;
  if (*n >= sizeof rate) return give(rate, v, n);
  return give(static_cast<std::uint32_t>(std::min<std::uint64_t>(rate, UINT32_MAX)), v, n);
}

int get_linger(const Socket& s, void* v, socklen_t* n) {
  const auto seconds = std::chrono::duration_cast<stack::seconds>(s.options.linger_time).count();
  return give(linger{.l_onoff = s.options.linger ? 1 : 0, .l_linger = static_cast<int>(seconds)}, v, n);
}

int set_linger(Socket& s, const void* v, socklen_t n) {
  linger l{};
  if (n < sizeof l) return -EINVAL;
  std::memcpy(&l, v, sizeof l);
  s.options.linger = l.l_onoff != 0;
  if (s.options.linger) s.options.linger_time = stack::seconds(std::max(l.l_linger, 0));
  return 0;
}

int get_error(Process& process, Socket& s, void* v, socklen_t* n) {
  if (s.state == Socket::State::relayed) return give(take_relayed_error(process, s), v, n);
  settle(process, s);
  stack::Errc error = std::exchange(s.error, stack::Errc::ok);
  if (error == stack::Errc::ok && s.state == Socket::State::stream) {
    if (is_opening(*s.connection)) (void)retry_after_turn(process, s);
    error = s.shard->instance->worker().take_error(*s.connection);
  }
  return give(to_errno(error), v, n);
}

// SO_MEMINFO (linux/sock_diag.h), as far as there is anything like it.
std::array<std::uint32_t, 9> memory_info(Process& process, const Socket& s) {
  constexpr std::size_t kReceiveUsed = 0, kReceiveLimit = 1, kSendUsed = 2, kSendLimit = 3, kSendQueued = 5;
  const auto& tcp = process.options.stack.tcp;
  std::array<std::uint32_t, 9> info{};
  info[kReceiveLimit] = s.options.rcvbuf != 0 ? s.options.rcvbuf : tcp.rmem.initial;
  info[kSendLimit] = s.options.sndbuf != 0 ? s.options.sndbuf : tcp.wmem.initial;
  if (s.connection == nullptr) return info;
  const stack::Connection& c = *s.connection;
  info[kReceiveUsed] = c.rx.memory;
  info[kSendUsed] = info[kSendQueued] = c.tx.memory;
  if (c.rx.buffer != 0) info[kReceiveLimit] = c.rx.buffer;
  if (c.tx.buffer != 0) info[kSendLimit] = c.tx.buffer;
  return info;
}

// The kernel socket behind it serves one connection after the other, so its cookie would not be unique. The kernel counts
// from 1 and does not come that far.
std::uint64_t cookie_of(Process& process, Socket& s) {
  if (s.cookie == 0) s.cookie = 1ULL << 63 | static_cast<std::uint64_t>(process.pid) << 40 | (process.cookies.fetch_add(1, std::memory_order_relaxed) + 1);
  return s.cookie;
}

int get_peer_name(const Socket& s, void* v, socklen_t* n) {
  const bool named = s.state == Socket::State::relayed || s.state == Socket::State::foreign ||
                     (s.state == Socket::State::stream && !is_opening(*s.connection));
  if (!named) return -ENOTCONN;
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  (void)write_address(s.remote, s.v6, reinterpret_cast<sockaddr*>(&name), &size);
  if (size < *n) return -EINVAL;
  std::memcpy(v, &name, *n);
  return 0;
}

// TCP_CONGESTION.
std::string_view congestion_of(Process& process, const Socket& s) {
  const std::uint8_t chosen = s.options.congestion;
  if (chosen != 0) return stack::congestion_control_names()[chosen - 1U];
  return process.options.stack.tcp.congestion_control;
}

int get_congestion(Process& process, const Socket& s, void* v, socklen_t* n) {
  std::array<char, kCongestionNameMax> name{};
  const std::string_view is = congestion_of(process, s);
  std::memcpy(name.data(), is.data(), std::min(is.size(), name.size() - 1));
  return give(name, v, n);
}

// TCP_CC_INFO. As in Linux, CUBIC and Reno have nothing to say.
int get_dctcp_info(const Socket& s, void* v, socklen_t* n) {
  tcp_dctcp_info out{};
  if (s.state == Socket::State::stream) {
    const auto in = s.shard->instance->worker().info(*s.connection);
    if (in.dctcp_enabled)
      out = {1, in.dctcp_marked, in.dctcp_alpha, in.dctcp_acked_marked, in.dctcp_acked};
  }
  return give(out, v, n);
}

int get_congestion_info(Process& process, Socket& s, void* v, socklen_t* n) {
  if (congestion_of(process, s) == "dctcp") return get_dctcp_info(s, v, n);
  if (congestion_of(process, s) != "bbr") return *n = 0, 0;
  tcp_bbr_info out{};
  if (s.state == Socket::State::stream) {
    const auto in = s.shard->instance->worker().info(*s.connection);
    constexpr float kGainUnit = 256;
    out.bbr_bw_lo = static_cast<std::uint32_t>(in.model_rate);
    out.bbr_bw_hi = static_cast<std::uint32_t>(in.model_rate >> 32);
    out.bbr_min_rtt = in.model_min_rtt == stack::Duration::max()
                          ? UINT32_MAX
                          : static_cast<std::uint32_t>(std::chrono::duration_cast<stack::microseconds>(in.model_min_rtt).count());
    out.bbr_pacing_gain = static_cast<std::uint32_t>(in.model_pacing_gain * kGainUnit);
    out.bbr_cwnd_gain = static_cast<std::uint32_t>(in.model_cwnd_gain * kGainUnit);
  }
  return give(out, v, n);
}

// --- setting

// What a change means for the connection or listener that is there already.
void apply(Socket& s) {
  if (s.connection != nullptr) {
    s.shard->instance->worker().set_options(*s.connection, s.options, now());
    s.shard->instance->hand_over();  // what TCP_CORK or Nagle kept back
  }
  if (s.listener != nullptr) s.listener->options = s.options;
}

int set_congestion(Socket& s, const void* v, socklen_t n) {
  if (n < 1) return -EINVAL;
  std::array<char, kCongestionNameMax> given{};
  std::memcpy(given.data(), v, std::min<std::size_t>(n, given.size() - 1));
  const auto all = stack::congestion_control_names();
  const auto at = std::find(all.begin(), all.end(), std::string_view(given.data()));
  if (at == all.end()) return -ENOENT;
  s.options.congestion = static_cast<std::uint8_t>(at - all.begin() + 1);
  apply(s);
  return 0;
}

// TCP_FASTOPEN_KEY: one key or two, each of 16 bytes.
constexpr std::size_t kFastOpenKey = 16;
int get_fast_open_key(const Socket& s, void* v, socklen_t* n) {
  const auto& keys = s.listen_options.fast_open_keys;
  const std::size_t size = std::min<std::size_t>(keys.count * kFastOpenKey, *n);
  std::memcpy(v, keys.keys.data(), size);
  return *n = static_cast<socklen_t>(size), 0;
}
int set_fast_open_key(Socket& s, const void* v, socklen_t n) {
  static_assert(sizeof(stack::SipKey) == kFastOpenKey);
  if (n != kFastOpenKey && n != 2 * kFastOpenKey) return -EINVAL;
  auto& keys = s.listen_options.fast_open_keys;
  std::memcpy(keys.keys.data(), v, n);
  keys.count = static_cast<std::uint8_t>(n / kFastOpenKey);
  if (s.listener != nullptr) s.listener->fast_open_keys = keys;
  return 0;
}

int set_row(Process& process, Socket& s, const OptionRow& row, unsigned index, const void* v, socklen_t n) {
  if (row.set == nullptr) return -ENOPROTOOPT;
  if (row.get == nullptr) {  // SO_RCVBUFFORCE, SO_SNDBUFFORCE: for the privileged
    if (const int error = try_in_kernel(process, s, row.level, row.name, v, n); error != 0) return error;
  }
  int value = 0;
  if (row.level == IPPROTO_IP && n >= 1 && n < sizeof value) {
    value = *static_cast<const std::uint8_t*>(v);  // options of IP may come as one byte
  } else if (n < sizeof value) {
    return -EINVAL;
  } else {
    std::memcpy(&value, v, sizeof value);
  }
  if (const int error = row.set(s, process.options, value); error != 0) return error;
  if (row.get != nullptr) s.unreplayed |= std::uint64_t{1} << index;
  apply(s);
  return 0;
}

// The options that are structures, by level and name. -ENOTSUP: not one of them.
int set_structure(Socket& s, int level, int name, const void* v, socklen_t n) {
  if (level == SOL_SOCKET && is_receive_timeout(name)) return set_timeout(s.receive_timeout, v, n);
  if (level == SOL_SOCKET && is_send_timeout(name)) return set_timeout(s.send_timeout, v, n);
  if (level == SOL_SOCKET && name == SO_LINGER) {
    const int error = set_linger(s, v, n);
    if (error == 0) apply(s);
    return error;
  }
  if (level == SOL_SOCKET && name == kMaxPacingRate) {
    const int error = set_pacing_rate(s, v, n);
    if (error == 0) apply(s);
    return error;
  }
  if (level == IPPROTO_TCP && name == TCP_CONGESTION) return set_congestion(s, v, n);
  if (level == IPPROTO_TCP && name == TCP_FASTOPEN_KEY) return set_fast_open_key(s, v, n);
  return -ENOTSUP;
}

// What says what a socket is, beside the rows.
bool is_read_only(int level, int name) {
  if (level == SOL_SOCKET) return name == SO_ERROR || name == kMemInfo || name == kCookie || name == SO_PEERNAME;
  if (level == IPPROTO_IP || level == IPPROTO_IPV6) return is_read_only_ip(level, name);
  return level == IPPROTO_TCP && (name == TCP_INFO || name == TCP_CC_INFO);
}

int get_socket_level(Process& process, Socket& s, int name, void* v, socklen_t* n) {
  if (name == SO_ERROR) return get_error(process, s, v, n);
  if (name == SO_LINGER) return get_linger(s, v, n);
  if (name == kMaxPacingRate) return get_pacing_rate(s, v, n);
  if (is_receive_timeout(name)) return give(to_timeval(s.receive_timeout), v, n);
  if (is_send_timeout(name)) return give(to_timeval(s.send_timeout), v, n);
  if (name == kMemInfo) return give(memory_info(process, s), v, n);
  if (name == kCookie) return *n < sizeof(std::uint64_t) ? -EINVAL : give(cookie_of(process, s), v, n);
  if (name == SO_PEERNAME) return get_peer_name(s, v, n);
  return is_timestamping(name) ? get_timestamping(s, name, v, n) : -ENOTSUP;
}

// The options that are structures. -ENOTSUP: not one of them.
int get_structure(Process& process, Socket& s, int level, int name, void* v, socklen_t* n) {
  if (level == SOL_SOCKET) return get_socket_level(process, s, name, v, n);
  if (level == IPPROTO_TCP && name == TCP_INFO) return get_tcp_info(process, s, v, n);
  if (level == IPPROTO_TCP && name == TCP_CONGESTION) return get_congestion(process, s, v, n);
  if (level == IPPROTO_TCP && name == TCP_CC_INFO) return get_congestion_info(process, s, v, n);
  if (level == IPPROTO_TCP && name == TCP_FASTOPEN_KEY) return get_fast_open_key(s, v, n);
  return level == IPPROTO_IP || level == IPPROTO_IPV6 ? get_ip_option(s, level, name, v, n) : -ENOTSUP;
}

int replay_structures(Process& process, const Socket& s) {
  int error = 0;
  const auto tell = [&](int name, const auto& value) {
    const int e = process.kernel.setsockopt(s.fd, SOL_SOCKET, name, &value, sizeof value);
    if (error == 0) error = e;
  };
  if (s.receive_timeout != stack::Duration::zero()) tell(SO_RCVTIMEO, to_timeval(s.receive_timeout));
  if (s.send_timeout != stack::Duration::zero()) tell(SO_SNDTIMEO, to_timeval(s.send_timeout));
  if (s.options.max_pacing_rate != UINT64_MAX) tell(kMaxPacingRate, s.options.max_pacing_rate);
  std::array<TimestampingOption, 2> times{};
  for (const TimestampingOption& o : timestamping_options(s, times)) tell(o.name, o.value);
  if (s.options.linger) {
    const auto seconds = std::chrono::duration_cast<stack::seconds>(s.options.linger_time).count();
    tell(SO_LINGER, linger{.l_onoff = 1, .l_linger = static_cast<int>(seconds)});
  }
  if (s.options.congestion != 0) {  // the kernel may not have it
    const std::string_view name = stack::congestion_control_names()[s.options.congestion - 1U];
    (void)process.kernel.setsockopt(s.fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size()));
  }
  if (const auto& keys = s.listen_options.fast_open_keys; keys.count != 0)
    (void)process.kernel.setsockopt(s.fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, keys.keys.data(), static_cast<socklen_t>(keys.count * kFastOpenKey));
  return error;
}

}  // namespace

int replay_options(Process& process, Socket& s) {
  int error = replay_structures(process, s);
  for (std::uint64_t left = s.unreplayed; left != 0; left &= left - 1) {
    const OptionRow& row = option_row(static_cast<unsigned>(__builtin_ctzll(left)));
    const int value = (row.replay != nullptr ? row.replay : row.get)(s, process.options);
    const int e = process.kernel.setsockopt(s.fd, row.level, row.name, &value, sizeof value);
    if (error == 0) error = e;
    s.kernel_dirty = true;
  }
  s.unreplayed = 0;
  return error;
}

int set_option(Process& process, Socket& s, int level, int name, const void* v, socklen_t n) {
  unsigned index = 0;
  if (const OptionRow* row = find_option(level, name, index); row != nullptr) {
    return set_row(process, s, *row, index, v, n);
  }
  if (level == SOL_SOCKET && is_timestamping(name)) return set_timestamping(s, name, v, n);
  const int error = set_structure(s, level, name, v, n);
  if (error != -ENOTSUP) return error;
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) return set_v6_only(process, s, v, n);
  if (is_read_only(level, name)) return -ENOPROTOOPT;
  return set_kept_option(process, s, level, name, v, n);
}

int Process::setsockopt(int fd, int level, int name, const void* v, socklen_t n) {
  Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  if (static_cast<int>(n) < 0) return -EINVAL;
  if (v == nullptr && n > 0) return -EFAULT;
  // A child's own copy would only remember it.
  if (s->channel >= 0) claim_if_foreign(*this, *s);
  const int result = set_option(*this, *s, level, name, v, n);
  // What the kernel's side accepts inherits it.
  if (result == 0 && s->kernel_listens) (void)replay_options(*this, *s);
  if (result == 0 && s->state == Socket::State::relayed) {
    relay.set_option(s->serial, level, name, v, n);
    heritage.tell_option(*s, level, name, v, n);
  }
  return result;
}

int Process::getsockopt(int fd, int level, int name, void* v, socklen_t* n) {
  Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  if (n == nullptr || (v == nullptr && *n > 0)) return -EFAULT;
  if (static_cast<int>(*n) < 0) return -EINVAL;
  unsigned index = 0;
  if (const OptionRow* row = find_option(level, name, index); row != nullptr) {
    return row->get == nullptr ? -ENOPROTOOPT : give(row->get(*s, options), v, n);
  }
  const int error = get_structure(*this, *s, level, name, v, n);
  return error != -ENOTSUP ? error : get_kept_option(*this, *s, level, name, v, n);
}

}  // namespace mtcp::intercept

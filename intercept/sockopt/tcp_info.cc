#include "intercept/sockopt/tcp_info.hh"

#include <linux/tcp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "intercept/call.hh"
#include "intercept/support/clock.hh"

namespace mtcp::intercept {
namespace {

using std::chrono::duration_cast;

// The kernel's numbers (include/net/tcp_states.h).
std::uint8_t state_number(stack::State s) {
  switch (s) {
    case stack::State::established: return 1;
    case stack::State::syn_sent: return 2;
    case stack::State::syn_received: return 3;
    case stack::State::fin_wait_1: return 4;
    case stack::State::fin_wait_2: return 5;
    case stack::State::time_wait: return 6;
    case stack::State::closed: return 7;
    case stack::State::close_wait: return 8;
    case stack::State::last_ack: return 9;
    case stack::State::listen: return 10;
    case stack::State::closing: return 11;
  }
  return 7;
}

std::uint32_t micros(stack::Duration d) {
  return static_cast<std::uint32_t>(duration_cast<stack::microseconds>(d).count());
}
std::uint32_t millis_since(stack::Time then, stack::Time t) {
  if (then == stack::Time{}) return 0;
  return static_cast<std::uint32_t>(std::max<std::int64_t>(duration_cast<stack::milliseconds>(t - then).count(), 0));
}
std::uint32_t segments(std::uint32_t bytes, std::uint32_t mss) { return mss == 0 ? 0 : (bytes + mss - 1) / mss; }

// Segments of which it is known that they have arrived, the SYN among them: those that were sent first, less those of which
// it is not.
std::uint32_t delivered(const stack::ConnectionInfo& in) {
  if (in.state <= stack::State::syn_sent) return 0;
  const std::uint32_t flight = segments(in.tx_queued - std::min(in.tx_queued, in.tx_unsent), in.mss);
  const std::uint32_t away = in.data_segments_sent - std::min(in.data_segments_sent, in.retransmits);
  return 1 + away - std::min(away, flight) + segments(in.sacked, in.mss);
}

// What the kernel has beyond the header that this is built with.
struct LongInfo {
  tcp_info known{};
  std::uint32_t rcv_wnd = 0;
  std::uint32_t rehash = 0;
  std::uint16_t total_rto = 0, total_rto_recoveries = 0;
  std::uint32_t total_rto_time = 0;  // ms
};
static_assert(offsetof(tcp_info, tcpi_snd_wnd) + sizeof(std::uint32_t) == offsetof(LongInfo, rcv_wnd));

std::uint64_t micros64(stack::Duration d) { return static_cast<std::uint64_t>(duration_cast<stack::microseconds>(d).count()); }

// Of the last sample; before there is one, what was delivered on average while there was something to deliver.
void fill_rate(tcp_info& out, const stack::ConnectionInfo& in, std::uint64_t busy) {
  const bool sampled = in.delivery_rate != 0;
  out.tcpi_delivery_rate = sampled ? in.delivery_rate : in.bytes_acked * 1'000'000 / std::max<std::uint64_t>(busy, 1);
  out.tcpi_delivery_rate_app_limited = (sampled ? in.delivery_app_limited : in.app_limited) ? 1 : 0;
}

void fill(LongInfo& all, const stack::ConnectionInfo& in) {
  tcp_info& out = all.known;
  const stack::Time t = now();
  out.tcpi_state = state_number(in.state);
  out.tcpi_ca_state = static_cast<std::uint8_t>(in.phase);  // the numbers are Linux's
  out.tcpi_retransmits = in.retries;
  out.tcpi_probes = in.probes;
  out.tcpi_backoff = in.backoff;
  out.tcpi_options = static_cast<std::uint8_t>((in.timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (in.sack ? TCPI_OPT_SACK : 0) |
                                               (in.wscale ? TCPI_OPT_WSCALE : 0) | (in.ecn ? TCPI_OPT_ECN : 0) |
                                               (in.ecn_seen ? TCPI_OPT_ECN_SEEN : 0) | (in.syn_data_acked ? TCPI_OPT_SYN_DATA : 0));
  out.tcpi_fastopen_client_fail = static_cast<std::uint8_t>(in.fast_open_failure) & 3;  // the numbers are Linux's
  out.tcpi_snd_wscale = static_cast<std::uint8_t>(in.snd_wscale & 15);
  out.tcpi_rcv_wscale = static_cast<std::uint8_t>(in.rcv_wscale & 15);
  out.tcpi_rto = micros(in.rto);
  out.tcpi_snd_mss = in.mss;
  out.tcpi_rcv_mss = in.rcv_mss;
  out.tcpi_advmss = in.advertised_mss;
  out.tcpi_pmtu = in.path_mtu;
  out.tcpi_rtt = micros(in.srtt);
  out.tcpi_rttvar = micros(in.rttvar);
  out.tcpi_snd_ssthresh = in.ssthresh == UINT32_MAX ? 0x7fffffff : segments(in.ssthresh, in.mss);
  out.tcpi_snd_cwnd = segments(in.cwnd, in.mss);
  out.tcpi_unacked = segments(in.tx_queued - std::min(in.tx_queued, in.tx_unsent), in.mss);
  out.tcpi_sacked = segments(in.sacked, in.mss);
  out.tcpi_lost = segments(in.lost, in.mss);
  out.tcpi_retrans = segments(in.resent, in.mss);
  out.tcpi_reordering = in.duplicate_threshold;
  out.tcpi_min_rtt = in.min_rtt == stack::Duration::max() ? UINT32_MAX : micros(in.min_rtt);
  out.tcpi_notsent_bytes = in.tx_unsent;
  out.tcpi_total_retrans = in.retransmits;
  out.tcpi_ato = micros(in.delayed_ack);
  out.tcpi_rcv_rtt = micros(in.rcv_rtt);
  out.tcpi_rcv_space = in.rcv_space;
  out.tcpi_rcv_ooopack = in.out_of_order_received;
  out.tcpi_rcv_ssthresh = in.rcv_wnd;
  out.tcpi_pacing_rate = in.pacing_rate;
  out.tcpi_max_pacing_rate = in.max_pacing_rate;
  out.tcpi_busy_time = micros64(in.busy.until(t));
  out.tcpi_rwnd_limited = micros64(in.for_window.until(t));
  out.tcpi_sndbuf_limited = micros64(in.for_buffer.until(t));
  fill_rate(out, in, out.tcpi_busy_time);
  out.tcpi_bytes_acked = in.bytes_acked;
  out.tcpi_bytes_received = in.bytes_received;
  out.tcpi_bytes_sent = in.bytes_sent;
  out.tcpi_bytes_retrans = in.bytes_resent;
  out.tcpi_segs_in = in.segments_received;
  out.tcpi_segs_out = in.segments_sent;
  out.tcpi_data_segs_in = in.data_segments_received;
  out.tcpi_data_segs_out = in.data_segments_sent;
  out.tcpi_delivered = delivered(in);
  out.tcpi_delivered_ce = in.marked_delivered;
  out.tcpi_dsack_dups = in.duplicates_reported;
  out.tcpi_reord_seen = in.reorderings;
  out.tcpi_last_data_sent = millis_since(in.last_sent, t);
  out.tcpi_last_data_recv = millis_since(in.last_data_received != stack::Time{} ? in.last_data_received : in.created, t);
  out.tcpi_last_ack_recv = millis_since(in.last_received, t);
  out.tcpi_snd_wnd = in.snd_wnd;
  all.rcv_wnd = in.rcv_wnd;
  all.total_rto = static_cast<std::uint16_t>(in.timeouts);
  all.total_rto_recoveries = static_cast<std::uint16_t>(in.timeout_episodes);
  all.total_rto_time = static_cast<std::uint32_t>(micros64(in.in_timeouts.until(t)) / 1000);
}

}  // namespace

int get_tcp_info(Process& process, Socket& s, void* v, socklen_t* n) {
  // Who asks again and again waits by asking.
  settle(process, s);
  (void)retry_after_turn(process, s);
  LongInfo all;
  tcp_info& out = all.known;
  out.tcpi_state = state_number(stack::State::closed);
  const Socket* hidden = s.state == Socket::State::relayed ? process.relay.relayed_socket(s.serial) : nullptr;
  if (const Socket& has = hidden != nullptr ? *hidden : s; has.connection != nullptr) {
    fill(all, has.shard->instance->worker().info(*has.connection));
    has.shard->instance->worker().measure_delivery(*has.connection);
  } else if (s.state == Socket::State::foreign || s.state == Socket::State::relayed) {
    out.tcpi_state = state_number(stack::State::established);  // all that this process knows of it
  } else if (s.state == Socket::State::listening) {
    out.tcpi_state = state_number(stack::State::listen);
    out.tcpi_unacked = s.listener != nullptr ? s.listener->accept_count : 0;
    out.tcpi_sacked = s.listen_options.backlog;
  }
  const auto size = static_cast<socklen_t>(std::min<std::size_t>(*n, sizeof all));
  std::memcpy(v, &all, size);
  *n = size;
  return 0;
}

}  // namespace mtcp::intercept

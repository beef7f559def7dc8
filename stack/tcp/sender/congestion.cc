#include "stack/tcp/sender/congestion.hh"

#include <algorithm>
#include <utility>

#include "stack/tcp/sender/window_control.hh"
#include "stack/timer/wheel.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint64_t kMaxCwnd = 1U << 30;

// What ssthresh remembers of a window that is given up: three quarters, as Linux.
std::uint32_t kept_ssthresh(const Connection& c) {
  const std::uint32_t cwnd = c.hot.cwnd;
  return std::max(c.tx.ssthresh, cwnd - cwnd / 4);
}

}  // namespace

void CongestionControl::set_cwnd(Connection& c, std::uint64_t bytes) {
  c.hot.cwnd.bytes_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(bytes, c.hot.mss, kMaxCwnd));
}

void CongestionControl::start(Connection& c, std::uint32_t cwnd, Time) const {
  set_cwnd(c, cwnd);
}

void CongestionControl::on_idle(Connection&, Duration, std::uint32_t, Time) const {}
void CongestionControl::on_use(Connection&, std::uint32_t, std::uint32_t, Time) const {}
void CongestionControl::on_flight_begins(Connection&, Time) const {}
void CongestionControl::on_sent(Connection&, std::uint32_t) const {}

// --- WindowControl

std::uint32_t WindowControl::slow_start(Connection& c, std::uint32_t acked) {
  // One ACK may stand for a whole burst (coalesced at the receiver), so growth is by bytes without RFC 3465's limit L.
  const std::uint32_t step = std::min(acked, c.tx.ssthresh - c.hot.cwnd);
  set_cwnd(c, std::uint64_t{c.hot.cwnd} + step);
  return acked - step;
}

void WindowControl::add_segment_per(Connection& c, std::uint32_t window, std::uint32_t acked) {
  auto& s = state_of<State>(c);
  s.acked += acked;
  if (s.acked < window) return;
  const std::uint32_t segments = s.acked / window;
  s.acked -= segments * window;
  set_cwnd(c, std::uint64_t{c.hot.cwnd} + std::uint64_t{segments} * c.hot.mss);
}

// RFC 5681 section 3.1.
void WindowControl::grow(Connection& c, std::uint32_t acked, const AckSample&, Time) const {
  if (in_slow_start(c)) acked = slow_start(c, acked);
  if (acked != 0) add_segment_per(c, c.hot.cwnd, acked);
}

void WindowControl::on_ack(Connection& c, const AckSample& a, Time now) const {
  const auto& h = c.hot;
  if (h.phase == Phase::recovery || h.phase == Phase::cwr) return reduce(c, a);
  // Growth is for data that has arrived in order, unless the path is known to reorder; and for a window that was in use:
  // one that was not says nothing about the path (RFC 7661).
  if (a.acked == 0 && !(a.sacked && c.recovery.duplicate_threshold > 3)) return;
  if (!h.cwnd_limited && !(in_slow_start(c) && h.cwnd < 2 * c.tx.max_flight)) return;
  if (a.delivered != 0) grow(c, a.delivered, a, now);
}

// RFC 9937 section 6: as much leaves as arrives, in proportion, until the flight is down at ssthresh.
void WindowControl::reduce(Connection& c, const AckSample& a) const {
  auto& s = state_of<State>(c);
  const std::uint32_t flight = c.hot.flight(), mss = c.hot.mss, ssthresh = c.tx.ssthresh;
  if (a.delivered == 0 || s.prr_flight == 0) return;
  s.prr_delivered += a.delivered;
  std::int64_t send = 0;
  if (flight > ssthresh) {
    const std::uint64_t target = std::uint64_t{s.prr_delivered} * ssthresh + s.prr_flight - 1;
    send = static_cast<std::int64_t>(target / s.prr_flight) - s.prr_out;
  } else {
    send = std::max(std::int64_t{s.prr_delivered} - s.prr_out, std::int64_t{a.delivered});
    // Safe: the ACK is progress and shows no new loss.
    if (a.advanced && a.lost == 0) send += mss;
    send = std::min(send, std::int64_t{ssthresh} - flight);
  }
  // The fast retransmit leaves in any case.
  send = std::max(send, std::int64_t{s.prr_out == 0 ? mss : 0});
  set_cwnd(c, std::uint64_t{flight} + static_cast<std::uint64_t>(send));
}

void WindowControl::begin_reduction(Connection& c, Time now) const {
  auto& s = state_of<State>(c);
  s.prior_cwnd = c.hot.cwnd;
  s.prior_ssthresh = kept_ssthresh(c);
  s.acked = 0;
  set_ssthresh(c, std::max<std::uint32_t>(reduced(c, now), 2U * c.hot.mss));
}

void WindowControl::on_loss(Connection& c, Time now) const {
  begin_reduction(c, now);
  auto& s = state_of<State>(c);
  s.prr_delivered = s.prr_out = 0;
  s.prr_flight = std::clamp<std::uint32_t>(c.hot.snd_nxt - c.hot.snd_una, c.hot.mss, std::max<std::uint32_t>(s.prior_cwnd, c.hot.mss));
}

void WindowControl::on_recovered(Connection& c, Time) const {
  if (c.tx.ssthresh == UINT32_MAX) return;
  set_cwnd(c, c.tx.ssthresh);
}

void WindowControl::on_timeout(Connection& c, bool first, Time now) const {
  if (first) {
    begin_reduction(c, now);
    on_reset(c, now);
  }
  state_of<State>(c).acked = 0;
  set_cwnd(c, std::uint64_t{c.hot.flight()} + c.hot.mss);
}

void WindowControl::on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time) const {
  // RFC 2861: half the window for each RTO that nothing was sent, and what was learned is kept in ssthresh.
  std::uint32_t cwnd = c.hot.cwnd;
  const Duration rto = std::max(c.tx.rto, Duration(milliseconds(1)));
  set_ssthresh(c, kept_ssthresh(c));
  restart_window = std::min(restart_window, cwnd);
  for (; idle > rto && cwnd > restart_window; idle -= rto) cwnd /= 2;
  set_cwnd(c, std::max(cwnd, restart_window));
  state_of<State>(c).acked = 0;
}

// RFC 2861 section 3.2, as Linux does it: after an RTO in which the window was not the limit, halfway down to what was used.
void WindowControl::on_use(Connection& c, std::uint32_t flight, std::uint32_t least, Time now) const {
  auto& s = state_of<State>(c);
  const auto clock = static_cast<std::uint32_t>(TimerWheel::tick_of(now));
  const bool limited = c.hot.cwnd_limited || (in_slow_start(c) && c.hot.cwnd < 2 * c.tx.max_flight);
  if (limited || s.used_since == 0) {
    s.used = 0;
    s.used_since = clock;
    return;
  }
  s.used = std::max(s.used, flight);
  if (milliseconds(clock - s.used_since) < c.tx.rto) return;
  s.used_since = clock;
  const std::uint32_t used = std::max(std::exchange(s.used, 0U), least), cwnd = c.hot.cwnd;
  // A full send buffer is not the application's idleness.
  if (c.hot.phase != Phase::open || c.hot.wake_writer || used >= cwnd) return;
  set_ssthresh(c, kept_ssthresh(c));
  set_cwnd(c, (std::uint64_t{cwnd} + used) / 2);
}

void WindowControl::on_sent(Connection& c, std::uint32_t bytes) const {
  if (c.hot.phase == Phase::recovery || c.hot.phase == Phase::cwr) state_of<State>(c).prr_out += bytes;
}

void WindowControl::undo(Connection& c, Time now) const {
  auto& s = state_of<State>(c);
  if (s.prior_ssthresh == 0) return;
  set_cwnd(c, std::max<std::uint64_t>(c.hot.cwnd, s.prior_cwnd));
  set_ssthresh(c, std::max(c.tx.ssthresh, s.prior_ssthresh));
  s.prior_ssthresh = 0;
  on_undone(c, now);
}

}  // namespace mtcp::stack

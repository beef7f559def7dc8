// Timers of a connection that has nothing in flight: zero-window probes (RFC 9293 3.8.6.1), the end of a
// cork, keep-alive (RFC 9293 3.8.4), FIN-WAIT-2, and the delayed ACK.
#include <algorithm>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/rto.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

// As Linux: a corked or Nagled remainder waits no longer than this once everything before it has been ACKed.
constexpr Duration kCorkCeiling = milliseconds(200);

bool window_is_closed(const Connection& c) {
  const auto& h = c.hot;
  const std::uint32_t needed = c.tx.unsent != nullptr ? c.tx.unsent->payload_len : 1U;
  return needed > h.snd_wnd;
}

}  // namespace

void Tcp::arm_probe(Connection& c, Time now) {
  auto& t = c.tx;
  if (c.hot.tx_blocked) return;  // push_blocked() will come back
  if (t.probing && c.retransmit_timer.armed()) return;
  t.probing = true;
  if (!window_is_closed(c)) {
    wheel.arm(c.retransmit_timer, now + kCorkCeiling);
    return;
  }
  // RFC 9293 3.8.6.1: the first probe after an RTO, the interval grows.
  wheel.arm(c.retransmit_timer, now + backed_off(t.rto, t.backoff, options.tcp));
}

void Tcp::on_probe_timer(Connection& c, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  t.probing = false;
  if (t.unsent == nullptr && (!h.fin_queued || h.fin_sent)) return;
  if (!window_is_closed(c)) {
    push(c, now, true);  // the cork's time is over
    return;
  }
  if (t.probes == 0 && t.backoff == 0) t.first_unanswered = now;
  // A window that stays closed but is confirmed never ends a connection that the application still has; one
  // that it has left is not kept for ever (RFC 9293 3.8.6.1 allows both).
  if (give_up(c, c.detached ? t.backoff : t.probes, now)) return;
  if (h.snd_wnd > 0 && t.unsent != nullptr && split(c, t.unsent, h.snd_wnd)) {
    // Silly window avoidance has waited long enough (RFC 9293 3.8.6.2.1 (4)): what fits.
    push(c, now, true);
    if (h.snd_una != h.snd_nxt) return;
  }
  stats.add(Counter::window_probes_sent);
  if (t.probes != UINT8_MAX) ++t.probes;
  if (t.backoff != UINT8_MAX) ++t.backoff;
  send_probe(c, now);
  t.probing = true;
  wheel.arm(c.retransmit_timer, now + backed_off(t.rto, t.backoff, options.tcp));
}

void Tcp::on_delayed_ack_timer(Connection& c, Time now) {
  if (c.hot.last_ack_sent == c.hot.rcv_nxt || !is_synchronized(c.hot.state)) return;
  // The application is slow to answer: it does not play ping-pong.
  c.hot.pingpong = false;
  stats.add(Counter::delayed_acks_sent);
  send_ack(c, now);
}

void Tcp::arm_keepalive(Connection& c, Time now) {
  if (!c.options.keepalive) {
    if (!c.detached) wheel.cancel(c.life_timer);
    return;
  }
  if (c.detached || !is_synchronized(c.hot.state)) return;
  const Duration idle =
      c.options.keepalive_time > Duration::zero() ? c.options.keepalive_time : options.tcp.keepalive_time;
  wheel.arm(c.life_timer, now + idle);
}

void Tcp::on_life_timer(Connection& c, Time now) {
  if (c.detached) {
    if (c.hot.state != State::fin_wait_2) return;
    stats.add(Counter::orphans_killed);
    return finish(c, Errc::ok);
  }
  if (c.options.keepalive && is_synchronized(c.hot.state)) on_keepalive(c, now);
}

void Tcp::on_keepalive(Connection& c, Time now) {
  const auto& o = c.options;
  const auto& d = options.tcp;
  const Duration time = o.keepalive_time > Duration::zero() ? o.keepalive_time : d.keepalive_time;
  const Duration interval = o.keepalive_intvl > Duration::zero() ? o.keepalive_intvl : d.keepalive_intvl;
  const std::uint32_t limit = o.keepalive_probes != 0 ? o.keepalive_probes : d.keepalive_probes;
  // Data on its way has timers of its own.
  if (c.hot.snd_una != c.hot.snd_nxt || c.tx.unsent != nullptr) {
    wheel.arm(c.life_timer, now + time);
    return;
  }
  const Duration idle = milliseconds(ts_clock(now) - c.hot.last_received);
  if (idle < time) {
    c.tx.probes = 0;
    wheel.arm(c.life_timer, now + (time - idle));
    return;
  }
  const bool over =
      o.user_timeout > Duration::zero() ? c.tx.probes > 0 && idle >= o.user_timeout : c.tx.probes >= limit;
  if (over) {
    stats.add(Counter::connections_timed_out);
    send_reset(c, now);
    return finish(c, c.soft_error != Errc::ok ? c.soft_error : Errc::timed_out);
  }
  stats.add(Counter::keepalives_sent);
  ++c.tx.probes;
  send_probe(c, now);
  wheel.arm(c.life_timer, now + interval);
}

}  // namespace mtcp::stack

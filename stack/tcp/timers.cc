// The timers that have nothing to do with data: keep-alive (RFC 9293 3.8.4), FIN-WAIT-2.
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

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

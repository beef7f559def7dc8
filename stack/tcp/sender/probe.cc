// The timer of a connection that has something to send and nothing in flight: zero-window probes (RFC 9293
// 3.8.6.1), the end of a cork.
#include <algorithm>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/rto.hh"
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

// As Linux's tcp_write_wakeup(): nothing will follow for a while.
void push_out(Packet* p) {
  if (p != nullptr) p->marks = static_cast<std::uint8_t>(p->marks | kPush);
}

}  // namespace

void Sender::arm_probe(Connection& c, Time now) {
  auto& t = c.tx;
  if (c.hot.tx_blocked) return;  // push_blocked() will come back
  if (t.timer_use == TimerUse::window && c.retransmit_timer.armed()) return;
  t.timer_use = TimerUse::window;
  if (!window_is_closed(c)) {
    wheel.arm(c.retransmit_timer, now + kCorkCeiling);
    return;
  }
  // RFC 9293 3.8.6.1: the first probe after an RTO, the interval grows.
  wheel.arm(c.retransmit_timer, now + backed_off(t.rto, t.backoff, options.tcp));
}

void Sender::on_probe_timer(Connection& c, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  t.timer_use = TimerUse::timeout;
  if (t.unsent == nullptr && (!h.fin_queued || h.fin_sent)) return;
  if (!window_is_closed(c)) {
    push_out(t.unsent);
    push(c, now, true);  // the cork's time is over
    return;
  }
  if (t.probes == 0 && t.backoff == 0) t.first_unanswered = now;
  // A window that stays closed but is confirmed never ends a connection that the application still has; one
  // that it has left is not kept for ever (RFC 9293 3.8.6.1 allows both).
  if (give_up(c, c.detached ? t.backoff : t.probes, now)) return;
  if (h.snd_wnd > 0 && t.unsent != nullptr && split(c, t.unsent, h.snd_wnd)) {
    // Silly window avoidance has waited long enough (RFC 9293 3.8.6.2.1 (4)): what fits.
    push_out(t.unsent);
    push(c, now, true);
    if (h.snd_una != h.snd_nxt) return;
  }
  stats.add(Counter::window_probes_sent);
  if (t.probes != UINT8_MAX) ++t.probes;
  if (t.backoff != UINT8_MAX) ++t.backoff;
  if (in_urgent_mode(c)) send_urgent_probe(c, now);
  tcp_.send_probe(c, now);
  t.timer_use = TimerUse::window;
  wheel.arm(c.retransmit_timer, now + backed_off(t.rto, t.backoff, options.tcp));
}

}  // namespace mtcp::stack

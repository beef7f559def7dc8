// RFC 6298 section 5: what the timer does, and giving up.
#include "stack/port/port.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

void Sender::arm_retransmit(Connection& c, Time now) {
  c.tx.probing = false;
  Time due = now + backed_off(c.tx.rto, c.tx.backoff, options.tcp);
  if (c.options.user_timeout > Duration::zero() && c.tx.retries > 0) {
    // Not later than when the user timeout gives up.
    due = std::max(std::min(due, c.tx.first_unanswered + c.options.user_timeout), now + milliseconds(1));
  }
  wheel.arm(c.retransmit_timer, due);
}

void Sender::on_retransmit_timer(Connection& c, Time now) {
  switch (c.hot.state) {
    case State::syn_sent:
    case State::syn_received:
      return on_syn_timer(c, now);
    case State::closed:
    case State::time_wait:
    case State::listen:
      return;
    default:
      break;
  }
  if (c.hot.snd_una == c.hot.snd_nxt) return on_probe_timer(c, now);
  on_timeout(c, now);
}

void Sender::on_syn_timer(Connection& c, Time now) {
  if (c.tx.retries == 0) c.tx.first_unanswered = c.created;
  const std::uint32_t limit = c.options.syn_retries != 0 ? c.options.syn_retries : options.tcp.syn_retries;
  if (c.tx.retries >= limit || user_timeout_expired(c, now)) {
    stats.add(Counter::connections_timed_out);
    return tcp_.finish(c, c.soft_error != Errc::ok ? c.soft_error : Errc::timed_out);
  }
  ++c.tx.retries;
  ++c.tx.backoff;
  c.hot.retransmitting_syn = true;
  ++c.retransmits;
  stats.add(Counter::retransmitted_segments);
  stats.add(Counter::rto_fired);
  tcp_.send_syn(c, now);
  arm_retransmit(c, now);
}

bool Sender::user_timeout_expired(const Connection& c, Time now) const {
  return c.options.user_timeout > Duration::zero() && c.tx.first_unanswered != Time{} &&
         now - c.tx.first_unanswered >= c.options.user_timeout;
}

bool Sender::give_up(Connection& c, std::uint32_t tries, Time now) {
  const std::uint32_t limit = c.detached ? options.tcp.orphan_retries : options.tcp.retries2;
  // A user timeout takes the place of the count (RFC 5482).
  const bool over = c.options.user_timeout > Duration::zero() && !c.detached ? user_timeout_expired(c, now)
                                                                             : tries >= limit;
  if (!over) return false;
  stats.add(Counter::connections_timed_out);
  tcp_.finish(c, c.soft_error != Errc::ok ? c.soft_error : Errc::timed_out);
  return true;
}

void Sender::on_timeout(Connection& c, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  if (t.retries == 0) t.first_unanswered = now - backed_off(t.rto, 0, options.tcp);
  if (give_up(c, t.retries, now)) return;
  Packet* head = t.queue.front();
  if (head != nullptr && head != t.unsent && (head->flags & kQueued) != 0) {
    // It never left: the device or the neighbour is slow. Nothing to conclude about the path.
    wheel.arm(c.retransmit_timer, now + backed_off(t.rto, 0, options.tcp));
    return;
  }
  stats.add(Counter::rto_fired);
  // RFC 5681 section 3.1: ssthresh falls only when this data is first given up for lost.
  if (t.retries == 0 && !h.in_recovery)
    t.ssthresh = t.cc->ssthresh(c, std::min(h.snd_nxt - h.snd_una, h.cwnd));
  h.cwnd = h.mss;
  t.cwnd_acked = 0;
  if (t.backoff != UINT8_MAX) ++t.backoff;
  if (t.retries != UINT8_MAX) ++t.retries;
  mark_all_lost(c);
  if (t.lost != nullptr) {
    retransmit_lost(c, now);
  } else {
    send_fin(c, now);
  }
  arm_retransmit(c, now);
}

void Sender::retransmit_lost(Connection& c, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  while (Packet* p = t.lost) {
    if (h.flight() != 0 && h.flight() + p->payload_len > h.cwnd) {
      h.cwnd_limited = true;
      return;
    }
    if (must_stop(c)) return;
    // One that still waits for the device counts as sent again.
    if (!transmit(c, p, now) && (p->flags & kQueued) == 0) return;
    h.left_network -= std::min<std::uint32_t>(h.left_network, p->payload_len);
    t.lost = p->next != t.unsent && before(p->seq + p->payload_len, t.recover) ? p->next : nullptr;
  }
}

bool Sender::retransmit_head(Connection& c, Time now) {
  Packet* p = c.tx.queue.front();
  if (p == nullptr || p == c.tx.unsent) {
    if (!c.hot.fin_sent) return false;
    send_fin(c, now);
    return true;
  }
  return transmit(c, p, now);
}

}  // namespace mtcp::stack

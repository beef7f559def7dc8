// RFC 6298 section 5: what the timer does, and giving up.
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

void Sender::arm(Connection& c, TimerUse use, Time when) {
  c.tx.timer_use = use;
  if (use == TimerUse::timeout && c.options.user_timeout > Duration::zero() && c.tx.retries > 0)
    when = std::min(when, c.tx.first_unanswered + c.options.user_timeout);  // when that gives up
  wheel.arm(c.retransmit_timer, when);
}

void Sender::arm_retransmit(Connection& c, Time now) {
  arm(c, TimerUse::timeout, now + backed_off(c.tx.rto, c.tx.backoff, options.tcp));
}

// What loss detection waits for is measured by round trips, of which one may have been of any length: never longer than the
// timeout, as Linux.
void Sender::arm_within_timeout(Connection& c, TimerUse use, Duration wait, Time now) {
  arm(c, use, now + std::min(wait, backed_off(c.tx.rto, c.tx.backoff, options.tcp)));
}

// After something was acknowledged, or sent: RFC 6298 section 5.3, RFC 8985 section 7.2.
void Sender::arm_after_progress(Connection& c, Time now) {
  const auto& h = c.hot;
  const Duration rto = backed_off(c.tx.rto, c.tx.backoff, options.tcp);
  if (h.sack_ok && (h.phase == Phase::open || h.phase == Phase::cwr) && c.tx.retries == 0)
    return arm(c, TimerUse::tail_probe, now + std::min(probe_timeout(c, options.tcp), rto));
  arm(c, TimerUse::timeout, now + rto);
}

// The timer was something else meanwhile: what is left of the RTO of the oldest segment.
Time Sender::timeout_from_head(const Connection& c, Time now) const {
  const Packet* head = c.tx.queue.front();
  const Time sent = head != nullptr && head != c.tx.unsent ? head->sent_at : c.tx.last_sent;
  return std::max(sent + backed_off(c.tx.rto, c.tx.backoff, options.tcp), now + milliseconds(1));
}

void Sender::arm_from_head(Connection& c, Time now) { arm(c, TimerUse::timeout, timeout_from_head(c, now)); }

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
  if (PassiveOpens::awaits_ack_of_syn(c)) return on_syn_ack_timer(c, now);
  if (c.hot.snd_una == c.hot.snd_nxt) return on_probe_timer(c, now);
  switch (c.tx.timer_use) {
    case TimerUse::reordering:
      return on_reordering_timer(c, now);
    case TimerUse::tail_probe:
      return on_tail_probe_timer(c, now);
    case TimerUse::timeout:
    case TimerUse::window:
      return on_timeout(c, now);
  }
}

void Sender::note_timeout(Connection& c, Time now) {
  ConnectionExtras* x = Tcp::need_extras(c);
  if (x == nullptr) return;
  if (x->timeouts_since == Time{}) {
    ++x->timeout_episodes;
    x->timeouts_since = now;
  }
  ++x->timeouts;
}

void Sender::on_syn_timer(Connection& c, Time now) {
  if (c.tx.retries == 0) c.tx.first_unanswered = c.created;
  // As Linux's tcp_syn_linear_timeouts: the first SYNs are a second apart, and come on top of the others.
  const std::uint32_t linear = c.hot.state == State::syn_sent ? options.tcp.syn_linear_timeouts : 0;
  const std::uint32_t limit =
      linear + (c.options.syn_retries != 0 ? c.options.syn_retries : options.tcp.syn_retries);
  if (c.tx.retries >= limit || user_timeout_expired(c, now)) {
    stats.add(Counter::connections_timed_out);
    return tcp_.finish(c, c.soft_error != Errc::ok ? c.soft_error : Errc::timed_out);
  }
  if (++c.tx.retries > linear) ++c.tx.backoff;
  note_timeout(c, now);
  c.hot.retransmitting_syn = true;
  network.suspect(*c.path, c.key.remote, now);
  ++c.retransmits;
  stats.add(Counter::retransmitted_segments);
  stats.add(Counter::rto_fired);
  probe::retransmit(c.key, c.iss.value(), 0);
  tcp_.send_syn(c, now);
  arm_retransmit(c, now);
}

// Of a connection that a Fast Open SYN has made: until its own SYN is acknowledged, nothing else is sent again.
void Sender::on_syn_ack_timer(Connection& c, Time now) {
  if (c.tx.retries > options.tcp.synack_retries) {
    stats.add(Counter::connections_timed_out);
    return tcp_.finish(c, Errc::timed_out);
  }
  ++c.tx.retries;
  ++c.tx.backoff;
  ++c.retransmits;
  stats.add(Counter::retransmitted_segments);
  stats.add(Counter::rto_fired);
  probe::retransmit(c.key, c.iss.value(), 0);
  tcp_.passive.answer_fast_open(c, nullptr, now);
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
  note_timeout(c, now);
  if (t.retries != 0) network.suspect(*c.path, c.key.remote, now);  // RFC 1122 section 2.3.2.1, advice from above
  enter_loss(c, now);
  if (t.backoff != UINT8_MAX) ++t.backoff;
  if (t.retries != UINT8_MAX) ++t.retries;
  if (head != nullptr && head != t.unsent)
    (void)resend_lost(c, now);
  else
    send_fin(c, now);
  arm_retransmit(c, now);
}

// RFC 5681 section 3.1, RFC 6675 section 5.1, RFC 8985 section 6.3.
void Sender::enter_loss(Connection& c, Time now) {
  auto& h = c.hot;
  auto& r = c.recovery;
  // ssthresh falls only when this data is first given up for lost.
  const bool first = h.phase <= Phase::disorder || !after(r.end, h.snd_una) ||
                     (h.phase == Phase::loss && c.tx.retries == 0);
  const bool early = h.phase < Phase::recovery;
  mark_lost_by_timeout(c, now);
  r.reno_sacked = 0;
  r.dupacks = 0;
  r.fin_lost = h.fin_sent;
  count_left(c);
  if (first) remember_for_undo(c);
  if (first) r.cwr_due = h.ecn;
  c.tx.cc->on_timeout(c, first, now);
  // RFC 5682 section 2.1 step 1.
  r.frto = early || c.tx.retries != 0;
  r.send_new_first = r.probe_pending = false;
  h.phase = Phase::loss;
  r.end = r.former_end = h.snd_nxt;
}

void Sender::mark_lost_by_timeout(Connection& c, Time now) {
  auto& r = c.recovery;
  if (!need_scoreboard(c)) return;
  Scoreboard& b = *c.tx.scoreboard;
  const auto head = b.head();
  // RFC 2018 section 8: the peer does not have what it has sacked.
  const bool reneged = (b.at(head)->marks & kSacked) != 0;
  for (auto i = head; i != b.tail(); ++i) {
    const Packet& p = *b.at(i);
    if (reneged) b.clear_sacked(i);
    // As Linux: what was sent so lately that it can't be overdue is not lost yet.
    const bool fresh = c.hot.sack_ok && i != head && r.rack_sent != Time{} && !reneged &&
                       p.sent_at + r.rack_rtt + reordering_window(c) > now;
    if (!fresh) b.set_lost(i);
  }
  if (reneged) stats.add(Counter::sacks_reneged);
}

// What is lost and not sent again, in its order, as far as cwnd allows. False: some is left.
bool Sender::resend_lost(Connection& c, Time now) {
  auto& h = c.hot;
  if (c.tx.scoreboard == nullptr) return true;
  for (auto i = c.tx.scoreboard->head(); c.tx.scoreboard->has_lost();) {
    i = c.tx.scoreboard->next_lost(i);
    Packet* p = c.tx.scoreboard->at(i);
    if (p->payload_len > h.mss) {
      if (!split(c, p, h.mss)) return false;
      i = c.tx.scoreboard != nullptr ? c.tx.scoreboard->head() : i;
      if (c.tx.scoreboard == nullptr) return true;
      continue;
    }
    const bool oldest = i == c.tx.scoreboard->head();
    // RFC 6582 section 3.2: without SACK a partial ACK sends the oldest in any case, or nothing may be left to draw ACKs.
    const bool at_once = oldest && !h.sack_ok && h.phase == Phase::recovery;
    if (h.flight() + p->payload_len > h.cwnd && h.flight() != 0 && !at_once) {
      h.cwnd_limited = true;
      return false;
    }
    if (must_stop(c) || (is_paced(c) && must_pace(c, now))) return false;
    // One that still waits for the device counts as sent again.
    if (!transmit(c, p, now) && (p->flags & kQueued) == 0) return false;
    note_resent(c, i, now);
    if (oldest && c.tx.timer_use != TimerUse::reordering) arm_retransmit(c, now);
  }
  return true;
}

}  // namespace mtcp::stack

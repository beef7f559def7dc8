// Tail loss probes (RFC 8985 section 7): when the last of a flight stays unanswered, something is sent to draw an ACK that
// shows what is lost, long before the timeout would.
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

// Section 7.3: new data if there is some, else the last segment once more.
void Sender::on_tail_probe_timer(Connection& c, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  auto& r = c.recovery;
  t.timer_use = TimerUse::timeout;
  if (r.probe_pending) return arm_from_head(c, now);
  bool sent = false;
  Packet* next = t.unsent;
  if (next != nullptr && !after(next->seq + std::min(next->payload_len, h.mss), h.snd_una + h.snd_wnd)) {
    if (must_stop(c) || !transmit(c, next, now)) return arm_from_head(c, now);
    t.unsent = next->next;
    sent = true;
    r.probe_resent = false;
  } else if (need_scoreboard(c) && t.queue.front() != t.unsent) {
    const auto last = t.scoreboard->tail() - 1;
    Packet* p = t.scoreboard->at(last);
    const bool can = (p->flags & kQueued) == 0 && (p->marks & kSacked) == 0 && p->payload_len <= h.mss;
    if (!can || !transmit(c, p, now)) return arm_from_head(c, now);
    note_resent(c, last, now);
    r.probe_resent = true;
    sent = true;
  } else if (h.fin_sent) {
    send_fin(c, now);
    r.probe_resent = true;
    sent = true;
  }
  if (sent) {
    stats.add(Counter::tail_probes_sent);
    r.probe_pending = true;
    r.probe_end = h.snd_nxt;
  }
  arm(c, TimerUse::timeout, now + backed_off(t.rto, t.backoff, options.tcp));
}

// Section 7.4: an ACK while a probe is out. Where the probe repeated something and no duplicate is reported, what it
// repeated was lost, and that is a loss as any other.
void Sender::answer_probe(Connection& c, Seq ack, const AckSample& a, Time now) {
  auto& r = c.recovery;
  if (before(ack, r.probe_end)) return;
  if (!r.probe_resent || a.dsack) {
    r.probe_pending = false;
  } else if (after(ack, r.probe_end)) {
    r.probe_pending = false;
    if (c.hot.phase >= Phase::cwr) return;
    begin_reduction(c, now);
    c.tx.cc->on_recovered(c, now);
    keep_open(c);
  } else if (!a.advanced && a.duplicate && !a.sacked) {
    r.probe_pending = false;
  }
}

}  // namespace mtcp::stack

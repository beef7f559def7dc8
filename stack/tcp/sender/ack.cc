// RFC 9293 3.10.7.4, fifth step: the ACK field. What it removes from the queue, RTT samples, the send window.
#include <algorithm>
#include <utility>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr Duration kMinRttSpan = seconds(150);  // two of them, as Linux's tcp_min_rtt_wlen

// As Linux's tcp_may_update_window: what neither acknowledges nor brings anything may be late, so it makes the window larger, or
// closes it, but not smaller.
void update_window(Connection& c, const Segment& s, std::uint32_t window) {
  auto& h = c.hot;
  const bool newer = before(h.snd_wl1, s.seq) ||
                     (h.snd_wl1 == s.seq && (after(s.ack, h.snd_wl2) || window > h.snd_wnd || window == 0));
  if (!newer) return;
  h.snd_wl1 = s.seq;
  h.snd_wl2 = s.ack;
  if (window == h.snd_wnd) return;
  h.snd_wnd = window;
  c.tx.max_window = std::max(c.tx.max_window, window);
}

void note_min_rtt(Connection::Recovery& r, Duration rtt, Time now) {
  if (now - r.min_rtt_since > kMinRttSpan) {
    r.former_min_rtt = r.min_rtt_since == Time{} ? Duration::max() : r.min_rtt;
    r.min_rtt = rtt;
    r.min_rtt_since = now;
  } else if (rtt < r.min_rtt) {
    r.min_rtt = rtt;
  }
}

}  // namespace

// Something was acknowledged after one.
void Sender::end_timeouts(Connection& c, Time now) {
  c.tx.retries = 0;
  ConnectionExtras* x = c.extras.get();
  if (x == nullptr || x->timeouts_since == Time{}) return;
  x->in_timeouts += now - std::exchange(x->timeouts_since, Time{});
}

void Sender::take_rtt_sample(Connection& c, Duration rtt, Time now) {
  update_rto(c, rtt, options.tcp);
  note_min_rtt(c.recovery, rtt, now);
  c.tx.backoff = 0;
}

void Sender::remove_acked(Connection& c, Seq ack, AckSample& a, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  bool again = false;
  Time first_sent{}, last_sent{};
  const Duration of_sacked = std::exchange(a.rtt, kNoSample);
  for (Packet* p = t.queue.front(); p != nullptr && p != t.unsent; p = t.queue.front()) {
    if (p->next != nullptr) __builtin_prefetch(p->next);
    const Seq end = p->seq + p->payload_len;
    const bool whole = at_or_before(end, ack);
    const std::uint32_t n = whole ? p->payload_len : after(ack, p->seq) ? ack - p->seq : 0U;
    if (n == 0) break;
    a.acked += n;
    if (p->transmissions > 1) again = true;
    if (t.scoreboard != nullptr) {
      on_marked_acked(c, *p, whole, n, a, now);
    } else {
      a.delivered += n;
      if (first_sent == Time{}) first_sent = p->sent_at;
      last_sent = p->sent_at;
    }
    if (!whole) {
      p->seq += n;
      if ((p->flags & kExternal) != 0) [[unlikely]]
        p->external_offset += n;
      else
        p->payload_offset = static_cast<std::uint16_t>(p->payload_offset + n);
      p->payload_len = static_cast<std::uint16_t>(p->payload_len - n);
      p->flags = static_cast<std::uint16_t>(p->flags & ~kPayloadSum);
      break;
    }
    t.queue.pop_front();
    t.memory -= p->capacity;
    release(p);
  }
  if (t.queue.empty()) c.waits.busy += now.time_since_epoch();
  h.snd_queued -= a.acked;
  if (first_sent != Time{}) {
    a.rtt = since(first_sent, now);  // of the first one: a delayed ACK is part of the RTT
    a.latest_rtt = since(last_sent, now);
  }
  if (again || a.rtt == kNoSample) a.rtt = of_sacked;  // Karn
  if (again && !h.sack_ok) a.original_arrived = false;  // which of them it was can't be told
}

// What it acknowledges of a packet while the flight has a scoreboard.
void Sender::on_marked_acked(Connection& c, const Packet& p, bool whole, std::uint32_t n, AckSample& a, Time now) {
  auto& r = c.recovery;
  Scoreboard& scoreboard = *c.tx.scoreboard;
  if ((p.marks & kSacked) == 0) {
    a.delivered += n;
    if (p.transmissions == 1) {
      if (!after(p.seq + p.payload_len, r.end)) a.original_arrived = true;
      if (before(p.seq + p.payload_len, a.sacked_before)) note_reordered(a, p.seq);
      if (a.rtt == kNoSample) a.rtt = since(p.sent_at, now);
      a.latest_rtt = since(p.sent_at, now);
    }
    if (whole) advance_rack(c, p, now);
  }
  if (whole)
    scoreboard.pop_front();
  else
    scoreboard.trim_front(n);
}

void Sender::sample_rtt(Connection& c, const Segment& s, const AckSample& a, Time now) {
  Duration rtt = a.rtt;
  if (rtt == kNoSample && a.advanced && c.hot.timestamps && s.options.has_timestamps && s.options.ts_ecr != 0) {
    const std::uint32_t elapsed = Tcp::ts_clock(now) + c.ts_offset - s.options.ts_ecr;
    if (elapsed < 1U << 30) rtt = milliseconds(std::max(elapsed, 1U));
  }
  if (rtt == kNoSample) return;
  update_rto(c, rtt, options.tcp);
  c.tx.backoff = 0;  // RFC 6298 section 5.7: the doubled RTO lasts until there is a sample
  note_min_rtt(c.recovery, a.latest_rtt != kNoSample ? a.latest_rtt : rtt, now);
}

bool Sender::on_ack(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  if (after(s.ack, h.snd_nxt) || before(s.ack, h.snd_una)) return on_odd_ack(c, s, now);
  t.probes = 0;
  h.more = false;  // any segment of the peer lets a MSG_MORE tail go that nothing else holds back, as Linux
  const std::uint32_t window = s.window << h.snd_wscale;
  AckSample a;
  a.advanced = s.ack != h.snd_una;
  a.flight_before = h.flight();
  if (!a.advanced) {
    // RFC 5681 section 2, (a) to (e).
    a.duplicate = h.snd_una != h.snd_nxt && s.len == 0 && !s.has(kFin) && window == h.snd_wnd;
    update_window(c, s, window);
    if (t.timer_use == TimerUse::window && c.retransmit_timer.armed() && window != 0) on_window_opened(c);
    if (h.snd_una == h.snd_nxt) return true;
    const bool says_something = a.duplicate || (h.sack_ok && s.options.sack_count != 0);
    if (!says_something) return true;
    if (a.duplicate) stats.add(Counter::duplicate_acks_received);
    on_unusual_ack(c, s, a, now);
    return true;
  }
  const bool fin_acked = h.fin_sent && s.ack == h.snd_nxt;
  if (t.retries != 0) [[unlikely]] end_timeouts(c, now);
  t.first_unanswered = Time{};
  c.soft_error = Errc::ok;  // it was no obstacle
  if (c.stamped) [[unlikely]] stamp_acked(c, s.ack, now);
  const bool unusual = h.phase != Phase::open || t.scoreboard != nullptr || c.recovery.reno_sacked != 0 ||
                       c.recovery.probe_pending || (h.sack_ok && s.options.sack_count != 0);
  update_window(c, s, window);
  if (unusual) [[unlikely]] {
    on_unusual_ack(c, s, a, now);
  } else {
    if (!t.queue.empty()) remove_acked(c, s.ack, a, now);
    h.snd_una = s.ack;
    sample_rtt(c, s, a, now);
    finish_ack(c, a, now);
    if (h.snd_una != h.snd_nxt) arm_after_progress(c, now);
  }
  c.bytes_acked += a.acked;
  if (h.snd_una == h.snd_nxt) on_all_acked(c);
  if (!fin_acked) return true;
  // FIN-WAIT-2 goes on, unless nobody waits for it; after CLOSING and LAST-ACK there may be no connection any
  // more.
  const bool goes_on =
      h.state == State::fin_wait_1 && !(c.detached && c.options.fin_timeout < Duration::zero());
  tcp_.on_fin_acked(c, now);
  return goes_on;
}

// The last part of every ACK: the windows follow.
void Sender::finish_ack(Connection& c, const AckSample& a, Time now) {
  if (c.pacing != nullptr) [[unlikely]] {
    finish_rate_sample(c, a, now);
    if (c.pacing->paced && !c.tx.cc->has_model()) c.pacing->set_rate(window_rate(c));
  }
  c.tx.cc->on_ack(c, a, now);
  // The send buffer follows: what is in flight, and as much to go out next.
  if (c.options.sndbuf == 0 && c.tx.buffer < 2 * std::uint32_t{c.hot.cwnd})
    c.tx.buffer = std::max(c.tx.buffer, std::min(2 * std::uint32_t{c.hot.cwnd}, options.tcp.wmem.max));
}

void Sender::on_all_acked(Connection& c) {
  wheel.cancel(c.retransmit_timer);
  c.tx.timer_use = TimerUse::timeout;
  c.tx.backoff = 0;
  if (c.tx.scoreboard != nullptr) drop_scoreboard(c);
  c.recovery.reno_sacked = 0;
  c.recovery.fin_lost = false;
  c.hot.left_network = 0;
}

// RFC 5961 section 5.2: an ACK of something never sent, be it ahead or behind our first byte, or older than a window, draws
// an ACK and is dropped with its data; an old one within the window is merely not news, but for its SACK blocks.
bool Sender::on_odd_ack(Connection& c, Segment& s, Time now) {
  const auto& h = c.hot;
  const bool fin_acked = h.fin_sent && h.snd_una == h.snd_nxt;
  const std::uint64_t acked = c.bytes_acked + (fin_acked ? 1 : 0);
  const auto once_sent = static_cast<std::uint32_t>(std::min<std::uint64_t>(c.tx.max_window, acked));
  if (before(s.ack, h.snd_una) && at_or_after(s.ack, h.snd_una - once_sent)) {
    if (h.sack_ok && s.options.sack_count != 0 && h.snd_una != h.snd_nxt) {
      AckSample a;
      a.flight_before = h.flight();
      on_unusual_ack(c, s, a, now);
    }
    return true;
  }
  stats.add(Counter::bad_ack);
  tcp_.send_challenge_ack(c, now);
  return false;
}

void Sender::on_window_opened(Connection& c) {
  wheel.cancel(c.retransmit_timer);
  c.tx.timer_use = TimerUse::timeout;
  c.tx.backoff = 0;
  c.tx.first_unanswered = Time{};
}

}  // namespace mtcp::stack

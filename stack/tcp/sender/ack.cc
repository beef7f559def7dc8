// RFC 9293 3.10.7.4, fifth step: the ACK field. What it removes from the queue, RTT samples, the send window.
#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr Duration kNoSample = Duration(-1);

void update_window(Connection& c, const Segment& s, std::uint32_t window) {
  auto& h = c.hot;
  const bool newer = before(h.snd_wl1, s.seq) || (h.snd_wl1 == s.seq && at_or_before(h.snd_wl2, s.ack));
  if (!newer) return;
  h.snd_wl1 = s.seq;
  h.snd_wl2 = s.ack;
  if (window == h.snd_wnd) return;
  h.snd_wnd = window;
  c.tx.max_window = std::max(c.tx.max_window, window);
}

}  // namespace

void Sender::take_rtt_sample(Connection& c, Duration rtt) {
  update_rto(c.tx, rtt, options.tcp);
  c.tx.backoff = 0;  // RFC 6298 section 5.7: the doubled RTO lasts until there is a sample
}

std::uint32_t Sender::remove_acked(Connection& c, Seq ack, Duration& rtt, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  std::uint32_t acked = 0;
  bool again = false;
  rtt = kNoSample;
  for (Packet* p = t.queue.front(); p != nullptr && p != t.unsent; p = t.queue.front()) {
    if (p->next != nullptr) __builtin_prefetch(p->next);
    const Seq end = p->seq + p->payload_len;
    const bool whole = at_or_before(end, ack);
    const std::uint32_t n = whole ? p->payload_len : after(ack, p->seq) ? ack - p->seq : 0U;
    if (n == 0) break;
    acked += n;
    if (p == t.lost) h.left_network -= std::min(h.left_network, n);
    if (p->transmissions > 1)
      again = true;
    else if (rtt == kNoSample)
      rtt = now - p->sent_at;  // the first one: a delayed ACK is part of the RTT
    if (!whole) {
      p->seq += n;
      p->payload_offset = static_cast<std::uint16_t>(p->payload_offset + n);
      p->payload_len = static_cast<std::uint16_t>(p->payload_len - n);
      p->flags = static_cast<std::uint16_t>(p->flags & ~kPayloadSum);
      break;
    }
    if (p == t.lost) t.lost = p->next != t.unsent && before(end, t.recover) ? p->next : nullptr;
    t.queue.pop_front();
    t.memory -= p->capacity;
    release(p);
  }
  if (again) rtt = kNoSample;  // Karn
  h.snd_queued -= acked;
  return acked;
}

bool Sender::on_ack(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  if (after(s.ack, h.snd_nxt) || before(s.ack, h.snd_una)) return on_odd_ack(c, s, now);
  t.probes = 0;
  const std::uint32_t window = s.window << h.snd_wscale;
  if (s.ack == h.snd_una) {
    // RFC 5681 section 2, (a) to (e).
    const bool duplicate = h.snd_una != h.snd_nxt && s.len == 0 && !s.has(kFin) && window == h.snd_wnd;
    update_window(c, s, window);
    if (duplicate) on_duplicate_ack(c, now);
    if (t.probing && window != 0) on_window_opened(c);
    return true;
  }
  const std::uint32_t flight_before = h.flight();
  const bool fin_acked = h.fin_sent && s.ack == h.snd_nxt;
  Duration rtt;
  const std::uint32_t acked = remove_acked(c, s.ack, rtt, now);
  h.snd_una = s.ack;
  update_window(c, s, window);
  c.bytes_acked += acked;
  t.retries = 0;
  t.first_unanswered = Time{};
  h.left_network = std::min(h.left_network, h.snd_nxt - h.snd_una);
  if (rtt == kNoSample && h.timestamps && s.options.has_timestamps && s.options.ts_ecr != 0) {
    const std::uint32_t elapsed = Tcp::ts_clock(now) + c.ts_offset - s.options.ts_ecr;
    if (elapsed < 1U << 30) rtt = milliseconds(elapsed);
  }
  if (rtt != kNoSample) take_rtt_sample(c, rtt);
  on_new_ack(c, acked, flight_before, now);
  if (h.snd_una == h.snd_nxt) {
    wheel.cancel(c.retransmit_timer);
    t.probing = false;
    t.backoff = 0;
  } else {
    arm_retransmit(c, now);  // RFC 6298 section 5.3
  }
  if (!fin_acked) return true;
  // FIN-WAIT-2 goes on, unless nobody waits for it; after CLOSING and LAST-ACK there may be no connection any
  // more.
  const bool goes_on =
      h.state == State::fin_wait_1 && !(c.detached && c.options.fin_timeout < Duration::zero());
  tcp_.on_fin_acked(c, now);
  return goes_on;
}

// RFC 5961 section 5: an ACK of something never sent, or older than a window, draws an ACK and is dropped; an
// old one within the window is merely not news.
bool Sender::on_odd_ack(Connection& c, Segment& s, Time now) {
  const auto& h = c.hot;
  if (before(s.ack, h.snd_una) && at_or_after(s.ack, h.snd_una - std::max(c.tx.max_window, 65535U)))
    return true;
  stats.add(Counter::bad_ack);
  tcp_.send_challenge_ack(c, now);
  return false;
}

void Sender::on_window_opened(Connection& c) {
  wheel.cancel(c.retransmit_timer);
  c.tx.probing = false;
  c.tx.backoff = 0;
  c.tx.first_unanswered = Time{};
}

}  // namespace mtcp::stack

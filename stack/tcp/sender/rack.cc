// RACK (RFC 8985): what was sent before something that has arrived, and has had time enough to arrive as well, is lost.
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint8_t kPersistence = 16;  // section 7.2 (reo_wnd_persist)

// Section 6.2 step 2: packets of one burst have one time, so their order decides.
bool sent_after(Time a, Seq a_end, Time b, Seq b_end) { return a > b || (a == b && after(a_end, b_end)); }

Duration least_rtt(const Connection::Recovery& r) { return std::min(r.min_rtt, r.former_min_rtt); }

}  // namespace

// Steps 1 and 2: `p` has arrived.
void Sender::advance_rack(Connection& c, const Packet& p, Time now) {
  auto& r = c.recovery;
  const Duration rtt = since(p.sent_at, now);
  // Too soon to be the answer to the retransmission: the original came late.
  if (p.transmissions > 1 && rtt < least_rtt(r)) return;
  r.rack_rtt = rtt;
  const Seq end = p.seq + p.payload_len;
  if (!sent_after(p.sent_at, end, r.rack_sent, r.rack_end)) return;
  r.rack_sent = p.sent_at;
  r.rack_end = end;
}

// Step 4: how much later than a packet sent after it one may arrive.
Duration Sender::reordering_window(const Connection& c) {
  const auto& r = c.recovery;
  if (!r.reordering_seen) {
    if (c.hot.phase >= Phase::recovery) return {};
    if (c.tx.scoreboard->sacked_packets() >= r.duplicate_threshold) return {};
  }
  const Duration rtt = least_rtt(r);
  return rtt == Duration::max() ? Duration{} : std::min(rtt * r.reo_steps / 4, c.tx.srtt);
}

// Step 4: it widens while the peer gets things twice, by a quarter of the least RTT in each round trip.
void Sender::adapt_reordering_window(Connection& c) {
  auto& r = c.recovery;
  if (r.dsack_seen && at_or_after(c.hot.snd_una, r.rack_round)) {
    r.reo_steps = static_cast<std::uint8_t>(std::min(r.reo_steps + 1, 255));
    r.reo_persist = kPersistence;
    r.rack_round = c.hot.snd_nxt;
  } else if (r.reo_persist == 0) {
    r.reo_steps = 1;
  }
  r.dsack_seen = false;
}

// Step 5. Returns how long to wait for what may still be late; zero if there is nothing of the kind.
Duration Sender::find_late(Connection& c, Time now) {
  auto& r = c.recovery;
  Scoreboard* scoreboard = c.tx.scoreboard;
  if (scoreboard == nullptr || r.rack_sent == Time{}) return {};
  const Duration window = reordering_window(c);
  for (auto i = scoreboard->oldest(); i != Scoreboard::kNone;) {
    const Packet& p = *scoreboard->at(i);
    if (!sent_after(r.rack_sent, r.rack_end, p.sent_at, p.seq + p.payload_len)) return {};
    // They are in the order in which they were sent: when this one may be late, so may all the others; wait for the
    // last of them.
    if (p.sent_at + r.rack_rtt + window > now) return std::max(r.rack_sent + r.rack_rtt + window - now, Duration(1));
    const auto next = scoreboard->newer(i);
    scoreboard->set_lost(i);
    i = next;
  }
  return {};
}

void Sender::on_reordering_timer(Connection& c, Time now) {
  auto& h = c.hot;
  AckSample a;
  a.flight_before = h.flight();
  const std::uint32_t lost = c.tx.scoreboard != nullptr ? c.tx.scoreboard->lost() : 0;
  const Duration more = find_late(c, now);
  count_left(c);
  if (c.tx.scoreboard != nullptr && c.tx.scoreboard->lost() != lost) {
    if (h.phase < Phase::recovery) enter_recovery(c, now);
    a.delivered = 1;  // as Linux: something leaves, though no ACK has come
    c.tx.cc->on_ack(c, a, now);
  }
  c.tx.timer_use = TimerUse::timeout;
  push(c, now);
  if (h.snd_una == h.snd_nxt) return;
  // Once more only if that is before the timeout, which else would never come (as Linux's tcp_rearm_rto).
  if (more > Duration::zero() && now + more < timeout_from_head(c, now)) return arm(c, TimerUse::reordering, now + more);
  if (more > Duration::zero() || !c.retransmit_timer.armed()) arm_from_head(c, now);
}

}  // namespace mtcp::stack

// When it turns out that nothing was lost: F-RTO (RFC 5682), the Eifel response by timestamps (RFC 3522, RFC 4015), and by
// D-SACK (RFC 3708). Conditions are Linux's.
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

void Sender::remember_for_undo(Connection& c) {
  auto& r = c.recovery;
  r.undo_possible = true;
  r.undo_from = c.hot.snd_una;
  const std::uint32_t resent = c.tx.scoreboard != nullptr ? c.tx.scoreboard->resent_packets() : 0;
  r.undo_resent = resent != 0 ? static_cast<std::int32_t>(resent) : -1;
}

// A packet was sent again.
void Sender::note_resent(Connection& c, std::uint32_t index, Time now) {
  auto& r = c.recovery;
  if (r.first_resent_at == 0) r.first_resent_at = std::max(Tcp::ts_clock(now) + c.ts_offset, 1U);
  if (r.undo_resent < 0) r.undo_resent = 0;
  ++r.undo_resent;
  c.tx.scoreboard->set_resent(index);
  count_left(c);
}

// RFC 3522 section 3.2: the ACK answers something that was sent before the first retransmission.
bool Sender::answers_original(const Connection& c, const Segment& s) {
  const auto& r = c.recovery;
  if (!c.hot.timestamps || !s.options.has_timestamps || s.options.ts_ecr == 0 || r.first_resent_at == 0) return false;
  return static_cast<std::int32_t>(s.options.ts_ecr - r.first_resent_at) < 0;
}

bool Sender::was_needless(const Connection& c, const Segment& s) {
  return c.recovery.undo_possible && (c.recovery.undo_resent == 0 || answers_original(c, s));
}

void Sender::undo_reduction(Connection& c, bool none_lost, Time now) {
  auto& r = c.recovery;
  Scoreboard* scoreboard = c.tx.scoreboard;
  if (none_lost && scoreboard != nullptr)
    for (auto i = scoreboard->head(); i != scoreboard->tail(); ++i) scoreboard->clear_lost(i);
  if (none_lost) r.fin_lost = false;
  stats.add(Counter::reductions_undone);
  c.tx.cc->undo(c, now);
  r.undo_possible = false;
  count_left(c);
}

// At the end of the episode.
bool Sender::undo_if_needless(Connection& c, const Segment& s, Time now) {
  if (!was_needless(c, s)) return false;
  undo_reduction(c, false, now);
  return true;
}

// In recovery: the hole was filled by the original, which was only late.
bool Sender::undo_partly(Connection& c, const Segment& s, Seq una_before, Time now) {
  auto& r = c.recovery;
  if (!r.undo_possible || !answers_original(c, s)) return false;
  AckSample a;
  note_reordered(a, una_before);
  adapt_to_reordering(c, a);
  // What else was sent again may have been needless as well: wait for its ACKs with what there is.
  if (c.tx.scoreboard != nullptr && c.tx.scoreboard->resent() != 0) return true;
  r.first_resent_at = 0;
  undo_reduction(c, true, now);
  keep_open(c);
  return true;
}

// Each retransmission has been reported as a duplicate.
bool Sender::undo_if_all_came_twice(Connection& c, Time now) {
  auto& r = c.recovery;
  if (!r.undo_possible || r.undo_resent != 0) return false;
  undo_reduction(c, false, now);
  return true;
}

bool Sender::undo_timeout(Connection& c, const Segment& s, bool by_frto, Time now) {
  auto& r = c.recovery;
  if (!by_frto && !was_needless(c, s)) return false;
  stats.add(Counter::spurious_timeouts);
  undo_reduction(c, true, now);
  end_timeouts(c, now);
  if (by_frto || c.hot.sack_ok) {
    r.frto = r.send_new_first = false;
    c.hot.phase = Phase::open;
    keep_open(c);
  }
  return true;
}

// After a timeout, on its way to `recovery.end`. False: there is nothing else to conclude from this ACK.
bool Sender::continue_loss(Connection& c, const Segment& s, const AckSample& a, Time now) {
  auto& h = c.hot;
  auto& r = c.recovery;
  if (a.advanced && undo_timeout(c, s, false, now)) return h.phase != Phase::loss;
  if (r.frto) {
    // RFC 5682 section 2.1 step 3b: what was sent before the timeout, and once, has arrived.
    if (a.original_arrived && undo_timeout(c, s, true, now)) return true;
    if (after(h.snd_nxt, r.end)) {
      if (a.sacked || a.duplicate) r.frto = false;  // step 3a: it was right
    } else if (a.advanced) {
      // Step 2b: new data, which asks the question.
      r.end = h.snd_nxt;
      const bool can = c.tx.unsent != nullptr && after(h.snd_una + h.snd_wnd, h.snd_nxt);
      r.send_new_first = can;
      r.frto = can;
    }
  }
  return true;
}

}  // namespace mtcp::stack

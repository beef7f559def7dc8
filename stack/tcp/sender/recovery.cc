// The phases of the sender: what an ACK means while something is sacked, lost or sent again (RFC 5681, RFC 6582, RFC 6675).
// Sequence and conditions are Linux's.
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

std::uint32_t lost_of(const Connection& c) { return c.tx.scoreboard != nullptr ? c.tx.scoreboard->lost() : 0; }

}  // namespace

void Sender::on_unusual_ack(Connection& c, Segment& s, AckSample& a, Time now) {
  auto& h = c.hot;
  auto& r = c.recovery;
  const Seq una_before = h.snd_una;
  a.sacked_before = c.tx.scoreboard != nullptr && c.tx.scoreboard->sacked() != 0 ? r.highest_sacked : una_before;
  if (h.sack_ok && s.options.sack_count != 0) take_sack(c, s, a, now);
  if (a.advanced) {
    remove_acked(c, s.ack, a, now);
    h.snd_una = s.ack;
    if (!h.sack_ok) forget_duplicates(c, a);
    const Packet* head = c.tx.queue.front();
    if (head != nullptr && head != c.tx.unsent && (head->marks & kSacked) != 0) r.reneging = true;
  }
  if (h.phase != Phase::loss) adapt_to_reordering(c, a);
  sample_rtt(c, s, a, now);
  if (r.probe_pending) answer_probe(c, s.ack, a, now);
  count_left(c);
  adapt_reordering_window(c);
  if (h.snd_una == h.snd_nxt) {
    if (h.phase != Phase::open) leave_phase(c, s, now);
    if (h.phase == Phase::disorder || h.phase == Phase::cwr) h.phase = Phase::open;
    return finish_ack(c, a, now);
  }
  const std::uint32_t lost = lost_of(c);
  Duration wait{};
  if (r.reneging && a.advanced) {
    // RFC 2018 section 8: it has been dropped that was sacked. The timer decides, soon (as Linux).
    r.reneging = false;
    finish_ack(c, a, now);
    return arm_within_timeout(c, TimerUse::timeout, std::max(c.tx.srtt / 2, Duration(milliseconds(10))), now);
  }
  conclude(c, s, a, una_before, wait, now);
  count_left(c);
  a.lost = lost_of(c) > lost ? lost_of(c) - lost : 0;
  finish_ack(c, a, now);
  if (c.tx.scoreboard != nullptr && c.tx.scoreboard->is_worn()) drop_scoreboard(c);
  // Where the path is known to reorder, a timer leaves as much time as Linux's, which has this granularity: ACKs that are there and not
  // processed yet come first.
  constexpr Duration kMargin = milliseconds(2);
  if (wait > Duration::zero())
    arm_within_timeout(c, TimerUse::reordering, r.reordering_seen ? wait + kMargin : wait, now);
  else if (a.advanced || a.sacked)
    arm_after_progress(c, now);
}

void Sender::conclude(Connection& c, const Segment& s, AckSample& a, Seq una_before, Duration& wait, Time now) {
  auto& h = c.hot;
  auto& r = c.recovery;
  if (h.phase != Phase::open && at_or_after(h.snd_una, r.end) && leave_phase(c, s, now)) return;
  switch (h.phase) {
    case Phase::recovery:
      if (!a.advanced && a.duplicate) count_duplicate(c, a);
      if (a.advanced && undo_partly(c, s, una_before, now)) return;
      if (undo_if_all_came_twice(c, now)) keep_open(c);
      break;
    case Phase::loss:
      if (!continue_loss(c, s, a, now)) return;
      break;
    case Phase::open:
    case Phase::disorder:
    case Phase::cwr:
      if (!a.advanced && a.duplicate) count_duplicate(c, a);
      if (h.phase != Phase::open) (void)undo_if_all_came_twice(c, now);
      break;
  }
  count_left(c);
  if (h.sack_ok)
    wait = find_late(c, now);
  else
    find_lost_without_sack(c, a);
  count_left(c);
  if (h.phase >= Phase::recovery) return;
  if (c.tx.scoreboard != nullptr && c.tx.scoreboard->has_lost()) return enter_recovery(c, now);
  if (h.phase != Phase::cwr) keep_open(c);
}

// All that was in flight when the phase began has been acknowledged. True: there is nothing else to conclude.
bool Sender::leave_phase(Connection& c, const Segment& s, Time now) {
  auto& h = c.hot;
  auto& r = c.recovery;
  switch (h.phase) {
    case Phase::cwr:
      // Until something beyond it is acknowledged.
      if (h.snd_una == r.end && h.snd_una != h.snd_nxt) return false;
      c.tx.cc->on_recovered(c, now);
      h.phase = Phase::open;
      return false;
    case Phase::recovery: {
      r.dupacks = 0;
      r.reno_sacked = 0;
      const bool undone = undo_if_needless(c, s, now);
      if (!undone && r.reo_persist > 0) --r.reo_persist;  // as Linux: what was none is not counted
      if (!undone && r.undo_possible) c.tx.cc->on_recovered(c, now);
      end_episode(c);
      return undone;
    }
    case Phase::loss:
      if (!undo_if_needless(c, s, now) && r.reo_persist > 0) --r.reo_persist;
      end_episode(c);
      return false;
    case Phase::open:
    case Phase::disorder:
      break;
  }
  return false;
}

void Sender::end_episode(Connection& c) {
  auto& r = c.recovery;
  r.undo_possible = r.frto = r.send_new_first = false;
  r.first_resent_at = 0;
  r.dupacks = 0;
  c.hot.phase = Phase::open;
  count_left(c);
  keep_open(c);
}

// Open, if nothing is out of order.
void Sender::keep_open(Connection& c) {
  auto& r = c.recovery;
  const Scoreboard* b = c.tx.scoreboard;
  const bool marked = r.reno_sacked != 0 || (b != nullptr && b->sacked() + b->lost() + b->resent() != 0);
  const Phase phase = marked ? Phase::disorder : Phase::open;
  if (c.hot.phase == phase) return;
  c.hot.phase = phase;
  r.end = c.hot.snd_nxt;
}

// The window is to become smaller: once per round trip.
void Sender::begin_reduction(Connection& c, Time now) {
  c.recovery.end = c.recovery.former_end = c.hot.snd_nxt;
  c.recovery.probe_pending = false;
  c.recovery.cwr_due = c.hot.ecn;
  c.tx.cc->on_loss(c, now);
}

// RFC 3168 section 6.1.2: as for a loss, and nothing is sent again.
void Sender::reduce_for_ecn(Connection& c, Time now) {
  auto& h = c.hot;
  if (h.phase >= Phase::cwr || h.snd_una == h.snd_nxt) return;
  stats.add(Counter::ecn_reductions);
  c.recovery.undo_possible = false;
  h.phase = Phase::cwr;
  begin_reduction(c, now);
}

void Sender::enter_recovery(Connection& c, Time now) {
  auto& h = c.hot;
  auto& r = c.recovery;
  stats.add(Counter::fast_retransmits);
  remember_for_undo(c);
  if (h.phase < Phase::cwr) begin_reduction(c, now);
  r.end = r.former_end = h.snd_nxt;
  h.phase = Phase::recovery;
}

// --- without SACK

// RFC 5681 section 3.2: each duplicate ACK stands for a segment that has left the network. The head has not.
void Sender::count_duplicate(Connection& c, AckSample& a) {
  auto& h = c.hot;
  auto& r = c.recovery;
  if (h.sack_ok) return;
  if (r.dupacks != UINT8_MAX) ++r.dupacks;
  const std::uint32_t outstanding = h.snd_nxt - h.snd_una;
  const std::uint32_t sacked = std::min(r.reno_sacked + h.mss, outstanding > h.mss ? outstanding - h.mss : 0U);
  if (sacked > r.reno_sacked) a.delivered += sacked - r.reno_sacked;
  r.reno_sacked = sacked;
}

// RFC 6582 section 3.2: of what a partial ACK covers all but the retransmission had been taken off already.
void Sender::forget_duplicates(Connection& c, AckSample& a) {
  auto& r = c.recovery;
  if (r.reno_sacked != 0) {
    const std::uint32_t hole = std::min<std::uint32_t>(a.acked, c.hot.mss);
    a.delivered = std::max(a.acked - std::min(a.acked, r.reno_sacked), hole);
  }
  if (c.hot.phase == Phase::recovery) {
    const std::uint32_t arrived = a.acked > c.hot.mss ? a.acked - c.hot.mss : 0;
    r.reno_sacked -= std::min(r.reno_sacked, arrived);
    return;
  }
  r.reno_sacked = 0;
  r.dupacks = 0;
}

// The third duplicate ACK, and in recovery each partial ACK, show that the head is lost.
void Sender::find_lost_without_sack(Connection& c, const AckSample& a) {
  auto& h = c.hot;
  auto& r = c.recovery;
  if (h.phase == Phase::recovery) {
    if (!a.advanced) return;
  } else {
    // RFC 6582 section 3.2 step 2: once per window.
    if (h.phase == Phase::loss || r.dupacks != r.duplicate_threshold || !after(h.snd_una, r.former_end)) return;
  }
  if (need_scoreboard(c) && (c.tx.scoreboard->at(c.tx.scoreboard->head())->marks & (kLost | kResent)) == 0)
    c.tx.scoreboard->set_lost(c.tx.scoreboard->head());
}

}  // namespace mtcp::stack

// SACK blocks (RFC 2018), D-SACK (RFC 2883): what they say goes onto the scoreboard.
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kMostThreshold = 300;  // Linux's tcp_max_reordering
constexpr std::size_t kSpareScoreboards = 64;

// RFC 2883 section 4: the first block lies below the ACK, or within the second.
bool is_dsack(const Segment& s) {
  const auto& o = s.options;
  const SackBlock& first = o.sack[0];
  if (!before(first.begin, first.end)) return false;
  if (before(first.begin, s.ack)) return true;
  return o.sack_count > 1 && at_or_before(first.end, o.sack[1].end) && at_or_after(first.begin, o.sack[1].begin);
}

}  // namespace

// --- the scoreboard of a connection

bool Sender::need_scoreboard(Connection& c) {
  auto& t = c.tx;
  if (t.queue.front() == t.unsent) return false;  // nothing but a FIN is in flight
  if (t.scoreboard != nullptr) return true;
  cut_into_segments(c);
  std::unique_ptr<Scoreboard> scoreboard;
  if (!spare_scoreboards_.empty()) {
    scoreboard = std::move(spare_scoreboards_.back());
    spare_scoreboards_.pop_back();
  } else {
    scoreboard.reset(new (std::nothrow) Scoreboard);
  }
  if (scoreboard == nullptr || !scoreboard->build(t.queue.front(), t.unsent)) return false;
  t.scoreboard = scoreboard.release();
  return true;
}

// Packets were cut, so they have other indexes.
void Sender::rebuild_scoreboard(Connection& c) {
  if (c.tx.scoreboard == nullptr) return;
  if (!c.tx.scoreboard->build(c.tx.queue.front(), c.tx.unsent)) forget_marks(c);
  count_left(c);
}

void Sender::drop_scoreboard(Connection& c) {
  std::unique_ptr<Scoreboard> scoreboard(std::exchange(c.tx.scoreboard, nullptr));
  if (spare_scoreboards_.size() < kSpareScoreboards) spare_scoreboards_.push_back(std::move(scoreboard));
}

// There is no memory for the scoreboard: what is lost will be found by the timer.
void Sender::forget_marks(Connection& c) {
  delete std::exchange(c.tx.scoreboard, nullptr);
  for (Packet* p = c.tx.queue.front(); p != c.tx.unsent; p = p->next) p->marks = 0;
}

void Sender::count_left(Connection& c) {
  const auto& r = c.recovery;
  std::uint32_t left = r.reno_sacked + (r.fin_lost ? 1U : 0U);
  if (const Scoreboard* b = c.tx.scoreboard) left += b->sacked() + b->lost() - b->resent();
  c.hot.left_network = static_cast<std::int32_t>(left);
}

// --- blocks

void Sender::take_sack(Connection& c, const Segment& s, AckSample& a, Time now) {
  const auto& o = s.options;
  if (is_dsack(s)) on_dsack(c, s, a);
  const Seq floor = later(s.ack, c.hot.snd_una);
  for (std::size_t i = 0; i < o.sack_count; ++i) {
    const SackBlock block{later(o.sack[i].begin, floor), o.sack[i].end};
    // What was never sent, or makes no sense, is a forger's or a broken middlebox's: not a word of it counts.
    if (!before(o.sack[i].begin, o.sack[i].end) || after(block.end, c.hot.snd_nxt)) continue;
    if (before(block.begin, block.end) && need_scoreboard(c)) mark_sacked(c, block, a, now);
  }
}

void Sender::mark_sacked(Connection& c, const SackBlock& block, AckSample& a, Time now) {
  auto& r = c.recovery;
  Scoreboard& scoreboard = *c.tx.scoreboard;
  // A packet counts when all of it has arrived.
  const Scoreboard::Index stop = scoreboard.first_from(block.end);
  for (auto i = scoreboard.next_unsacked(scoreboard.first_from(block.begin), stop); i < stop;
       i = scoreboard.next_unsacked(i + 1, stop)) {
    const Packet& p = *scoreboard.at(i);
    const Seq end = p.seq + p.payload_len;
    if (after(end, block.end)) break;
    if (p.transmissions == 1) {
      if (before(end, a.sacked_before)) note_reordered(a, p.seq);
      if (!after(end, r.end)) a.original_arrived = true;
      if (a.rtt == kNoSample) a.rtt = since(p.sent_at, now);
      a.latest_rtt = since(p.sent_at, now);
    }
    advance_rack(c, p, now);
    if (c.pacing != nullptr) c.pacing->delivery.on_sacked(p.seq);
    a.delivered += p.payload_len;
    a.sacked = true;
    scoreboard.set_sacked(i);
    if (scoreboard.sacked_packets() == 1 || after(end, r.highest_sacked)) r.highest_sacked = end;
  }
}

// RFC 8985 section 6.2 step 3: late is what comes after something above it that an earlier ACK has reported. Of what one ACK tells of, in
// whatever order, nothing is: where others were lost, or an ACK was delayed, it tells of much.
void Sender::note_reordered(AckSample& a, Seq from) {
  if (a.reordered && at_or_before(a.reordered_from, from)) return;
  a.reordered = true;
  a.reordered_from = from;
}

// As Linux: the path has reordered by so many packets, so fewer mean nothing.
void Sender::adapt_to_reordering(Connection& c, const AckSample& a) {
  auto& r = c.recovery;
  if (!a.reordered) return;
  r.reordering_seen = true;
  if (ConnectionExtras* x = Tcp::need_extras(c); x != nullptr) ++x->reorderings;
  const Seq highest = c.tx.scoreboard != nullptr && c.tx.scoreboard->sacked() != 0 ? r.highest_sacked : c.hot.snd_una;
  if (!after(highest, a.reordered_from)) return;
  const std::uint32_t packets = (highest - a.reordered_from + c.hot.mss - 1) / c.hot.mss;
  if (packets > r.duplicate_threshold)
    r.duplicate_threshold = static_cast<std::uint16_t>(std::min(packets, kMostThreshold));
}

// The peer has got something twice: was it sent again without need?
void Sender::on_dsack(Connection& c, const Segment& s, AckSample& a) {
  auto& r = c.recovery;
  const SackBlock& block = s.options.sack[0];
  a.dsack = true;
  stats.add(Counter::dsacks_received);
  if (ConnectionExtras* x = Tcp::need_extras(c); x != nullptr) ++x->duplicates_reported;
  if (after(block.end, c.hot.snd_nxt)) return;
  if (!(r.probe_pending && r.probe_resent && block.end == r.probe_end)) r.dsack_seen = true;
  if (r.undo_possible && r.undo_resent > 0 && after(block.end, r.undo_from)) {
    const std::uint32_t packets = (block.end - block.begin + c.hot.mss - 1) / c.hot.mss;
    r.undo_resent -= static_cast<std::int32_t>(std::min<std::uint32_t>(packets, static_cast<std::uint32_t>(r.undo_resent)));
  }
}

}  // namespace mtcp::stack

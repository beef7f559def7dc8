// RFC 5681 sections 3.1 and 3.2, RFC 6582 (NewReno), RFC 3042 (limited transmit). Instead of inflating cwnd,
// each duplicate ACK takes one segment off what counts as in flight: the arithmetic is the same and cwnd
// keeps its meaning.
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint8_t kDuplicateThreshold = 3;
constexpr std::uint32_t kMaxCwnd = 1U << 30;

// RFC 7661's concern: a window that was not used says nothing about the path, so it does not grow.
bool window_was_used(const Connection& c, std::uint32_t flight_before) {
  const auto& h = c.hot;
  if (h.cwnd_limited) return true;
  return h.cwnd < c.tx.ssthresh ? h.cwnd < 2 * flight_before : h.cwnd < flight_before + h.mss;
}

void grow(Connection& c, std::uint32_t acked, const TcpTuning& tuning, Time now) {
  auto& h = c.hot;
  if (h.cwnd >= kMaxCwnd) return;
  c.tx.cc->on_acked(c, acked, now);
  // The send buffer follows: what is in flight, and as much to go out next.
  if (c.options.sndbuf == 0) c.tx.buffer = std::max(c.tx.buffer, std::min(2 * h.cwnd, tuning.wmem.max));
}

}  // namespace

void Sender::on_new_ack(Connection& c, std::uint32_t acked, std::uint32_t flight_before, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  if (h.in_recovery) {
    if (at_or_after(h.snd_una, t.recover)) {
      // RFC 6582 section 3.2 step 3, full acknowledgment: no burst.
      h.in_recovery = false;
      h.dupacks = 0;
      h.left_network = 0;
      h.cwnd = std::min(t.ssthresh, std::max(h.flight(), std::uint32_t{h.mss}) + h.mss);
      return;
    }
    // Partial: the next hole. Of what was ACKed all but the retransmission had been taken off already.
    const std::uint32_t arrived = acked > h.mss ? acked - h.mss : 0;
    h.left_network -= std::min(h.left_network, arrived);
    retransmit_head(c, now);
    return;
  }
  if (h.after_rto) {
    if (at_or_after(h.snd_una, t.recover)) {
      h.after_rto = false;
      h.left_network = 0;
      t.lost = nullptr;
    }
    grow(c, acked, options.tcp, now);
    return;
  }
  h.dupacks = 0;
  h.left_network = 0;
  if (window_was_used(c, flight_before)) grow(c, acked, options.tcp, now);
}

void Sender::on_duplicate_ack(Connection& c, Time now) {
  auto& h = c.hot;
  auto& t = c.tx;
  stats.add(Counter::duplicate_acks_received);
  if (h.dupacks != UINT8_MAX) ++h.dupacks;
  if (h.after_rto) return;
  // The head has not left, all others may have.
  const std::uint32_t outstanding = h.snd_nxt - h.snd_una;
  const std::uint32_t most = outstanding > h.mss ? outstanding - h.mss : 0;
  h.left_network = std::min(h.left_network + h.mss, most);
  // Up to here the next push() is limited transmit, and in recovery one new segment for each duplicate.
  if (h.in_recovery || h.dupacks != kDuplicateThreshold) return;
  // RFC 6582 section 3.2 step 2: once per window.
  if (!after(h.snd_una, t.recover)) return;
  stats.add(Counter::fast_retransmits);
  t.ssthresh = t.cc->ssthresh(c, std::min(outstanding, h.cwnd));  // without what limited transmit added
  h.cwnd = t.ssthresh;
  t.cwnd_acked = 0;
  t.recover = h.snd_nxt;
  h.in_recovery = true;
  retransmit_head(c, now);
  arm_retransmit(c, now);
}

void Sender::mark_all_lost(Connection& c) {
  auto& h = c.hot;
  h.after_rto = true;
  h.in_recovery = false;
  h.dupacks = 0;
  c.tx.recover = h.snd_nxt;
  c.tx.lost = c.tx.queue.front() != c.tx.unsent ? c.tx.queue.front() : nullptr;
  h.left_network = h.snd_nxt - h.snd_una;  // the FIN, too: it is no reason to hold anything back
}

}  // namespace mtcp::stack

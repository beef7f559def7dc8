// When an ACK leaves (RFC 9293 3.8.6.3, RFC 5681 section 4.2).
#include <algorithm>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

// ACKs are not delayed. Linux offers its window bit by bit, two segments for each that comes, and as long as that goes on acknowledges
// each at once (tcp_grow_window): the peer's window grows as well then.
[[gnu::always_inline]] inline bool acknowledges_at_once(const Connection& c) {
  constexpr std::uint32_t kOpened = 65536;
  if (c.hot.pingpong) return false;
  return c.rx.quickack_left > 0 || 2 * c.bytes_received + kOpened < largest_window(c);
}

// Bytes that an ACK may stand for. What has come in one turn is acknowledged at its end, as the kernel does with what it has received
// as one frame; but not more than fits into such a frame, so that the sender need not wait for it. Where data has been lost ACKs are
// lost as well, and the only one of a small window would be missed for a timeout: there every second segment has its own, and
// each where no ACK is delayed; and as long as nobody knows whether this is such a path, no more than eight have one.
std::uint32_t most_for_one_ack(const Connection& c) {
  constexpr std::uint32_t kLargestFrame = 65536, kFirstSegments = 8, kFirst = 131072;
  if (c.rx.lossy != 0) return acknowledges_at_once(c) ? 1 : c.rx.mss_estimate + 1;
  return c.bytes_received <= kFirst ? kFirstSegments * c.rx.mss_estimate : kLargestFrame;
}

// At the end of the turn, or now if that would be too much for one ACK. Apart, for the sake of those that wait.
[[gnu::noinline]] void acknowledge_in_turn(Tcp& tcp, Connection& c, Time now) {
  // A FIN that has come before is acknowledged with what it was waiting for.
  if (c.hot.rcv_nxt - c.hot.last_ack_sent < most_for_one_ack(c) || c.rx.fin_pending) return tcp.request_ack(c);
  if (c.rx.lossy != 0) --c.rx.lossy;
  tcp.send_ack(c, now);
}

}  // namespace

// Where the sender's window is small, each segment is acknowledged, so that it opens: at the start of a connection and
// after a pause in which it may have begun anew. Half of our window at most, in segments.
void Receiver::add_quick_acks(Connection& c) {
  constexpr std::uint32_t kLeast = 2, kMost = 16;  // TCP_MAX_QUICKACKS
  auto& rx = c.rx;
  const std::uint32_t window = after(c.hot.rcv_adv, c.hot.rcv_nxt) ? c.hot.rcv_adv - c.hot.rcv_nxt : 0;
  const auto n = static_cast<std::uint8_t>(std::clamp(window / (2 * rx.mss_estimate), kLeast, kMost));
  rx.quickack_left = std::max(rx.quickack_left, n);
}

void Receiver::acknowledge_quickly(Connection& c) {
  add_quick_acks(c);
  c.hot.pingpong = false;
  c.rx.ato = kLeastDelay;
}

// The delay follows the time between segments (Linux's tcp_event_data_recv), so that it is worth waiting for the second.
void Receiver::adapt_delay(Connection& c, std::uint32_t clock) {
  auto& rx = c.rx;
  const std::uint32_t apart = clock - rx.last_data;
  rx.last_data = clock;
  if (rx.ato == 0) {  // the first
    probe::first_byte(c.key);
    add_quick_acks(c);
    rx.ato = kLeastDelay;
  } else if (apart <= kLeastDelay / 2) {
    rx.ato = static_cast<std::uint16_t>(rx.ato / 2 + kLeastDelay / 2);
  } else if (apart < rx.ato) {
    rx.ato = static_cast<std::uint16_t>(std::min({rx.ato / 2 + apart, rto_of(c), std::uint32_t{INT16_MAX}}));
  } else if (apart > rto_of(c)) {
    add_quick_acks(c);
  }
}

// RFC 6298's timeout is when the peer would send again, if its path is as ours.
std::uint32_t Receiver::rto_of(const Connection& c) const {
  return static_cast<std::uint32_t>(backed_off(c.tx.rto, 0, options_.tcp) / milliseconds(1));
}

// Not longer than a round trip: by then the peer may have sent what it could.
std::uint32_t Receiver::delay_of(const Connection& c) const {
  std::uint32_t delay = c.rx.ato;
  if (delay > kLeastDelay && c.tx.srtt != Duration::zero())
    delay = std::min(delay, std::max<std::uint32_t>(static_cast<std::uint32_t>(c.tx.srtt / milliseconds(1)), kLeastDelay));
  return std::min(delay, static_cast<std::uint32_t>(options_.tcp.delayed_ack / milliseconds(1)));
}

// RFC 9293 3.8.6.3, RFC 5681 section 4.2: every second full segment at least, the others after the delay.
void Receiver::schedule_ack(Connection& c, Time now) {
  auto& h = c.hot;
  const std::uint32_t unacked = h.rcv_nxt - h.last_ack_sent;
  if (unacked > c.rx.mss_estimate || acknowledges_at_once(c)) return acknowledge_in_turn(tcp_, c, now);
  TimerNode& timer = c.delayed_ack_timer;
  const std::uint32_t delay = delay_of(c);
  const std::uint64_t tick = TimerWheel::tick_of(now);
  if (timer.armed()) {
    if (timer.deadline_tick() <= tick + delay / 4) return tcp_.request_ack(c);
    if (timer.deadline_tick() <= tick + delay) return;
  }
  wheel_.arm(timer, now + milliseconds(delay));
}

void Receiver::on_delayed_ack_timer(Connection& c, Time now) {
  if (c.hot.last_ack_sent == c.hot.rcv_nxt || !is_synchronized(c.hot.state)) return;
  auto& rx = c.rx;
  // Nothing has come that it could have gone with. An application that was thought to answer at once does not.
  rx.ato = c.hot.pingpong ? kLeastDelay
                          : static_cast<std::uint16_t>(std::min({2U * rx.ato, rto_of(c), std::uint32_t{INT16_MAX}}));
  c.hot.pingpong = false;
  stats_.add(Counter::delayed_acks_sent);
  tcp_.send_ack(c, now);
}

// RFC 5681 section 4.2: at once. A sender without SACK counts duplicate ACKs, so each has its own; one with SACK reads
// from the last what it needs once it has seen enough to believe in a loss (Linux's tcp_comp_sack).
void Receiver::acknowledge_out_of_order(Connection& c, Time now) {
  constexpr std::uint8_t kEnough = 4;  // one that may acknowledge something, and three duplicates
  constexpr std::uint16_t kLossy = 2048;  // what loses one segment of some thousands is like one that loses none
  auto& rx = c.rx;
  rx.lossy = kLossy;
  if (rx.duplicate_acks_at != c.hot.rcv_nxt) {
    rx.duplicate_acks_at = c.hot.rcv_nxt;
    rx.duplicate_acks = 0;
  }
  if (c.hot.sack_ok && rx.duplicate_acks >= kEnough && !rx.sack.has_duplicate()) return tcp_.request_ack(c);
  ++rx.duplicate_acks;
  tcp_.send_ack(c, now);
}

}  // namespace mtcp::stack

// When an ACK leaves (RFC 9293 3.8.6.3, RFC 5681 section 4.2).
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

// RFC 9293 3.8.6.3, RFC 5681 section 4.2: every second full segment at least, the others after the delay; at
// the start of a connection each one, so that the sender's window opens (as Linux does).
void Receiver::schedule_ack(Connection& c, Time now) {
  auto& h = c.hot;
  const std::uint32_t unacked = h.rcv_nxt - h.last_ack_sent;
  if (unacked > c.rx.mss_estimate || (c.rx.quickack_left > 0 && !h.pingpong)) {
    tcp_.request_ack(c);
  } else if (!c.delayed_ack_timer.armed()) {
    wheel_.arm(c.delayed_ack_timer, now + options_.tcp.delayed_ack);
  }
}

void Receiver::on_delayed_ack_timer(Connection& c, Time now) {
  if (c.hot.last_ack_sent == c.hot.rcv_nxt || !is_synchronized(c.hot.state)) return;
  // The application is slow to answer: it does not play ping-pong.
  c.hot.pingpong = false;
  stats_.add(Counter::delayed_acks_sent);
  tcp_.send_ack(c, now);
}

// RFC 5681 section 4.2: at once. A sender without SACK counts duplicate ACKs, so each has its own; one with SACK reads
// from the last what it needs once it has seen enough to believe in a loss (Linux's tcp_comp_sack).
void Receiver::acknowledge_out_of_order(Connection& c, Time now) {
  constexpr std::uint8_t kEnough = 4;  // one that may acknowledge something, and three duplicates
  auto& rx = c.rx;
  if (rx.duplicate_acks_at != c.hot.rcv_nxt) {
    rx.duplicate_acks_at = c.hot.rcv_nxt;
    rx.duplicate_acks = 0;
  }
  if (c.hot.sack_ok && rx.duplicate_acks >= kEnough && !rx.sack.has_duplicate()) return tcp_.request_ack(c);
  ++rx.duplicate_acks;
  tcp_.send_ack(c, now);
}

}  // namespace mtcp::stack

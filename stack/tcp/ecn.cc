// Explicit Congestion Notification (RFC 3168), as Linux: what is asked for and accepted, what a received segment says, and what goes
// with those that we send.
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

namespace {
constexpr std::uint8_t kEct0 = 2, kCe = 3;  // of the IP header
}  // namespace

bool Tcp::needs_ecn(const SocketOptions& o) const { return sender.control_for(o).needs_ecn(); }

bool Tcp::offers_ecn(const Connection& c) const { return options.tcp.ecn == 1 || needs_ecn(c.options); }

// Section 6.1.1. A SYN that is itself ECN-capable is none that this RFC allows.
bool Tcp::accepts_ecn(const Listener& l, const Segment& syn) const {
  if ((syn.flags & (kEce | kCwr)) != (kEce | kCwr)) return false;
  return needs_ecn(l.options) || (options.tcp.ecn != 0 && syn.ecn == 0);
}

void Tcp::on_ecn(Connection& c, const Segment& s, Time now) {
  auto& r = c.recovery;
  r.ecn_echoed = s.has(kEce);
  if (r.ecn_echoed) {
    // Section 6.1.2: once for each window of data.
    if (after(s.ack, c.hot.snd_una) && at_or_before(s.ack, c.hot.snd_nxt))
      if (ConnectionExtras* x = need_extras(c); x != nullptr) x->marked_delivered += (s.ack - c.hot.snd_una + c.hot.mss - 1U) / c.hot.mss;
    if (at_or_after(s.ack, c.hot.snd_una) && at_or_before(s.ack, c.hot.snd_nxt)) sender.reduce_for_ecn(c, now);
  }
  if (s.len == 0) return;  // section 6.1.3: what is said of data
  if (s.ecn != 0) r.ecn_seen = true;
  if (s.ecn == kCe) {
    stats.add(Counter::marked_received);
    if (ConnectionExtras* x = need_extras(c); x != nullptr) ++x->marked_received;
  }
  if (c.tx.cc->needs_ecn()) return echo_each(c, s.ecn == kCe, now);
  if (s.has(kCwr)) {
    r.ecn_echo = false;
    request_ack(c);
  }
  if (s.ecn == kCe) {
    if (!r.ecn_echo) receiver.acknowledge_quickly(c);
    r.ecn_echo = true;
  } else if (s.ecn == 0 && r.ecn_seen) {
    receiver.acknowledge_quickly(c);  // it was sent again
  }
}

// RFC 8257 section 3.2: ECE says of exactly the data that an ACK acknowledges whether it was marked.
void Tcp::echo_each(Connection& c, bool marked, Time now) {
  if (marked == c.recovery.ecn_echo) return;
  if (c.hot.rcv_nxt != c.hot.last_ack_sent) send_ack(c, now);  // what came before was not so
  c.recovery.ecn_echo = marked;
  request_ack(c);
}

std::uint8_t Tcp::mark_ecn(Connection& c, Packet& p, Seq seq, std::uint8_t flags) {
  auto& r = c.recovery;
  if (c.tx.cc->needs_ecn()) p.tos |= kEct0;
  // Sections 6.1.4, 6.1.5: neither pure ACKs nor what is sent again.
  if (p.payload_len != 0 && at_or_after(seq, c.hot.snd_nxt)) {
    p.tos |= kEct0;
    if (r.cwr_due) flags |= kCwr;
    r.cwr_due = false;
  }
  return r.ecn_echo ? static_cast<std::uint8_t>(flags | kEce) : flags;
}

}  // namespace mtcp::stack

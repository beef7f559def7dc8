// RFC 9293 3.10.7.4: a segment for a connection in a synchronized state, step by step.
#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

// RFC 7323 section 5.5: after this TS.Recent says nothing.
constexpr std::uint32_t kTimestampLife = 24 * 24 * 3600;  // seconds

bool older(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) < 0; }

// What nearly every segment is: the next one in sequence, in the window, with an ACK and nothing odd.
bool is_expected(const Connection::Hot& h, const Segment& s) {
  return (s.flags & (kSyn | kRst | kAck | kUrg)) == kAck && s.seq == h.rcv_nxt &&
         s.len <= h.rcv_adv - h.rcv_nxt && h.state >= State::established &&
         (!h.timestamps || (s.options.has_timestamps && !older(s.options.ts_val, h.ts_recent)));
}

// First step. Lenient at the left as Linux is: a duplicate back to our last ACK may carry a new ACK.
bool is_acceptable(const Connection::Hot& h, const Segment& s) {
  const Seq right = later(h.rcv_adv, h.rcv_nxt);
  return at_or_after(s.seq + s.seq_len(), h.last_ack_sent) && at_or_before(s.seq, right);
}

}  // namespace

void Tcp::answer_unacceptable(Connection& c, const Segment& s, Time now) {
  if (s.has(kRst)) return;
  if (s.seq_len() != 0 && before(s.seq, c.hot.rcv_nxt)) {
    receiver.acknowledge_quickly(c);
    receiver.note_duplicate(c, s.seq, earlier(s.seq + s.seq_len(), c.hot.rcv_nxt));
  }
  // What has data or a FIN is no part of a loop of ACKs.
  if (s.seq_len() != 0 || may_answer(c.rx.last_oow_ack, now)) send_ack(c, now);
}

bool Tcp::check_unusual(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  if (!s.has(kAck | kRst | kSyn)) return stats.add(Counter::no_ack_flag), false;  // nobody sends that
  // PAWS comes first and spares RST (RFC 7323 section 5.3 R1). As Linux: a tick is no age.
  if (h.timestamps && s.options.has_timestamps && !s.has(kRst) && older(s.options.ts_val + 1, h.ts_recent) &&
      ts_clock(now) / 1000 - c.rx.ts_recent_age < kTimestampLife) {
    stats.add(Counter::paws_rejected);
    answer_unacceptable(c, s, now);
    return false;
  }
  // Second and fourth step, with RFC 5961 in place of the plain window check.
  if (s.has(kRst | kSyn) && on_reset_or_syn(c, s, now)) return false;
  if (!is_acceptable(h, s)) {
    stats.add(Counter::out_of_window);
    answer_unacceptable(c, s, now);
    return false;
  }
  if (!s.has(kAck)) return stats.add(Counter::no_ack_flag), false;
  return h.state != State::syn_received || complete_simultaneous_open(c, s, now);
}

// Fifth step, SYN-RECEIVED (of a simultaneous open).
bool Tcp::complete_simultaneous_open(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  if (at_or_before(s.ack, h.snd_una) || after(s.ack, h.snd_nxt)) {
    send_reset_for(s, now);
    return false;
  }
  h.state = h.fin_queued ? State::fin_wait_1 : State::established;  // close() before the handshake was over
  h.snd_una = c.iss + 1;
  h.snd_wnd = s.window << h.snd_wscale;
  h.snd_wl1 = s.seq;
  h.snd_wl2 = s.ack;
  c.tx.max_window = std::max(c.tx.max_window, h.snd_wnd);
  c.tx.backoff = 0;
  Sender::end_timeouts(c, now);
  c.tx.first_unanswered = Time{};
  wheel.cancel(c.retransmit_timer);
  raise(c, SocketBase::kWriteEdge);
  return true;
}

void Tcp::on_segment(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  ++c.segments_received;
  if (s.len != 0) ++c.data_segments_received;
  if (!is_expected(h, s) && !check_unusual(c, s, now)) return;
  const std::uint32_t clock = ts_clock(now);
  h.last_received = clock;
  // RFC 7323 section 4.3; and only with an ACK that can be, or a forger who guesses the sequence number alone
  // could make PAWS reject the peer.
  if (h.timestamps && s.options.has_timestamps && at_or_before(s.seq, h.last_ack_sent) &&
      !older(s.options.ts_val, h.ts_recent) && at_or_after(s.ack, h.snd_una) &&
      at_or_before(s.ack, h.snd_nxt)) {
    if (h.ts_recent != s.options.ts_val) c.rx.ts_recent_age = clock / 1000;
    h.ts_recent = s.options.ts_val;
  }
  if (h.ecn) [[unlikely]] on_ecn(c, s, now);
  if (!sender.on_ack(c, s, now)) return;
  if ((s.len != 0 || s.has(kFin | kUrg)) && !receiver.on_payload(c, s, now)) return;  // sixth step to eighth
  sender.push(c, now);
  sender.wake_writer(c, now);
}

}  // namespace mtcp::stack

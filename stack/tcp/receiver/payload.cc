// RFC 9293 3.10.7.4, sixth to eighth step: urgent pointer, payload and FIN.
#include <algorithm>
#include <cstring>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

void measure_peer(Connection& c, const Segment& s, Time now) {
  auto& rx = c.rx;
  rx.mss_estimate = std::max(rx.mss_estimate, s.len);
  // The receiver's RTT: from timestamps where a full segment answers what we sent, else the time that a
  // window takes.
  if (c.hot.timestamps) {
    if (s.len < rx.mss_estimate || !s.options.has_timestamps || s.options.ts_ecr == 0) return;
    const std::uint32_t elapsed = Tcp::ts_clock(now) + c.ts_offset - s.options.ts_ecr;
    if (elapsed > 1U << 30) return;
    const Duration sample = std::max<Duration>(milliseconds(elapsed), milliseconds(1));
    rx.rtt = rx.rtt == Duration::zero() ? sample : rx.rtt + (sample - rx.rtt) / 8;
  } else if (rx.rtt_start == Time{} || at_or_after(c.hot.rcv_nxt, rx.rtt_seq)) {
    if (rx.rtt_start != Time{})
      rx.rtt = rx.rtt == Duration::zero() ? now - rx.rtt_start : std::min(rx.rtt, now - rx.rtt_start);
    rx.rtt_start = now;
    rx.rtt_seq = c.hot.rcv_adv;
  }
}

// A short segment may be the last for now, and so may a full one with PSH, whose sender waits for this ACK if its window is used up (as
// Linux since 6.7).
void note_push(Connection::Rx& rx, const Segment& s) {
  if (s.len < rx.mss_estimate) {
    if (rx.pushed < 2) ++rx.pushed;
  } else if (s.has(kPsh) && rx.pushed == 0) {
    rx.pushed = 1;
  }
}

}  // namespace

// Cuts what lies left of RCV.NXT and right of the window. False: nothing is left.
bool Receiver::trim_to_window(Connection& c, Segment& s) {
  const auto& h = c.hot;
  Packet* p = s.packet;
  if (before(s.seq, h.rcv_nxt)) {
    const std::uint32_t old = h.rcv_nxt - s.seq;
    note_duplicate(c, s.seq, earlier(s.seq + s.seq_len(), h.rcv_nxt));
    if (old > s.len || (old == s.len && !s.has(kFin))) {
      stats_.add(Counter::duplicate_data);
      acknowledge_quickly(c);
      return false;
    }
    p->pull(old);
    s.seq += old;
    s.len -= old;
    if (s.has(kUrg)) [[unlikely]] {  // counts from the sequence number; what it points to may be old, too
      if (s.urgent <= old) s.flags &= static_cast<std::uint8_t>(~kUrg);
      s.urgent = static_cast<std::uint16_t>(s.urgent - old);
    }
  }
  const Seq end = s.seq + s.len;
  if (s.len != 0 && after(end, h.rcv_adv)) {
    const std::uint32_t beyond = std::min(end - h.rcv_adv, s.len);
    stats_.add(Counter::receive_buffer_full);
    s.len -= beyond;
    p->trim(s.len);
    s.flags &= static_cast<std::uint8_t>(~kFin);
    if (s.len == 0) return false;
  }
  p->seq = s.seq;
  return true;
}

// Whether n bytes are copied behind `last` rather than keep their packet: a few always; under pressure all that fit, so
// that two neighbours always fill more than one buffer.
bool Receiver::copies(const Connection& c, const Packet& last, std::uint32_t n) const {
  if (n > last.tailroom()) return false;
  return n <= kTiny || c.rx.memory > c.rx.buffer / 2 || tcp_.memory.level() != MemoryBudget::Level::low;
}

void Receiver::enqueue_in_order(Connection& c, Packet*& p) {
  auto& rx = c.rx;
  const std::uint32_t n = p->len;
  rx.queued += n;
  Packet* last = rx.queue.back();
  if (last != nullptr && copies(c, *last, n)) {
    std::memcpy(last->end(), p->data, n);
    last->len += n;
    last->sent_at = p->sent_at;
    return;
  }
  if (tcp_.memory.level() != MemoryBudget::Level::low) [[unlikely]] p = tcp_.shrink(p);
  rx.queue.push_back(p);
  rx.memory += p->capacity;
  p = nullptr;
}

bool Receiver::on_payload(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  auto& rx = c.rx;
  const bool after_fin = !can_receive(h.state);
  if (after_fin) {
    // CLOSE-WAIT, CLOSING, LAST-ACK. As Linux: what begins behind the FIN is ignored (RFC 9293 3.10.7.4), what ends before it is acknowledged
    // again, and data in its place draws a reset.
    if (at_or_after(s.seq, h.rcv_nxt)) return true;
    if (!after(s.seq + s.len, h.rcv_nxt)) {
      if (s.len == 0 && !s.has(kFin)) return true;
      note_duplicate(c, s.seq, earlier(s.seq + s.seq_len(), h.rcv_nxt));
      tcp_.send_ack(c, now);
      return true;
    }
  }
  const bool nobody_reads = after_fin || c.detached || (c.read_shut && h.state != State::established);
  if (nobody_reads && s.seq_len() != 0 && after(s.seq + s.len, h.rcv_nxt)) {
    // RFC 9293 3.6.1, RFC 1122 4.2.2.13: data that nobody will ever read; a FIN behind a gap says that there is some.
    stats_.add(Counter::data_after_close);
    tcp_.send_reset_for(s, now);
    tcp_.finish(c, h.state == State::close_wait ? Errc::broken_pipe : Errc::connection_reset);
    return false;
  }
  if (s.seq == h.rcv_nxt && at_or_before(s.seq + s.len, h.rcv_adv)) [[likely]] {
    s.packet->seq = s.seq;
  } else if (!trim_to_window(c, s)) {
    tcp_.send_ack(c, now);
    return true;
  }
  s.packet->sent_at = now;  // received: when
  bool fin_again = false;
  if (s.has(kFin | kUrg)) {
    if (s.has(kUrg)) [[unlikely]] {
      on_urgent(c, s, now);
      if (s.len == 0 && !s.has(kFin)) return true;
    }
    if (s.has(kFin)) {
      fin_again = rx.fin_pending && rx.fin_seq == s.seq + s.len;
      rx.fin_pending = true;
      rx.fin_seq = s.seq + s.len;
    }
  }
  if (s.seq != h.rcv_nxt) {
    if (s.len != 0)
      insert_out_of_order(c, s);
    else if (s.has(kFin))
      note_sack(c, rx.fin_seq, rx.fin_seq);
    if (fin_again) note_duplicate(c, rx.fin_seq, rx.fin_seq + 1);  // joins what of its data came twice
    acknowledge_out_of_order(c, now);
    return true;
  }
  if (s.len != 0 && !accept_in_order(c, s, now)) return true;
  if (!rx.fin_pending || before(h.rcv_nxt, rx.fin_seq)) return true;
  return accept_fin(c, now);
}

// False: no memory, nothing was taken.
bool Receiver::accept_in_order(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  auto& rx = c.rx;
  if (const std::uint32_t limit = receive_limit(c); rx.memory + s.packet->capacity > limit) {
    const Packet* last = rx.queue.back();
    if ((last == nullptr || s.len > last->tailroom()) && !make_room(c, s.packet->capacity, limit, h.rcv_nxt)) {
      stats_.add(tcp_.memory.exhausted() ? Counter::packets_low : Counter::receive_buffer_full);
      return false;
    }
  }
  note_push(rx, s);
  measure_peer(c, s, now);
  adapt_delay(c, h.last_received);
  enqueue_in_order(c, s.packet);
  h.rcv_nxt += s.len;
  c.bytes_received += s.len;
  if (rx.out_of_order.empty()) {
    schedule_ack(c, now);
  } else {
    // RFC 5681 section 4.2: at once when a gap is filled, in part or whole.
    drain_out_of_order(c);
    rx.out_of_order.empty() ? tcp_.send_ack(c, now) : acknowledge_out_of_order(c, now);
  }
  if (rx.queued >= c.options.rcvlowat || rx.queued >= largest_window(c)) tcp_.raise(c, SocketBase::kReadEdge);
  return true;
}

// A peer that sends data beyond its FIN is broken. As in Linux: what has come in order counts, then that was no FIN; what lies
// beyond it out of order is dropped (RFC 9293 section 3.10.7.4: there is no text after a FIN).
bool Receiver::accept_fin(Connection& c, Time now) {
  auto& h = c.hot;
  c.rx.fin_pending = false;
  if (after(h.rcv_nxt, c.rx.fin_seq)) return true;
  if (!c.rx.out_of_order.empty()) [[unlikely]] prune_out_of_order(c);
  c.rx.sack.forget_blocks();
  h.rcv_nxt = c.rx.fin_seq + 1;
  h.fin_received = true;
  const State before_fin = h.state;
  tcp_.on_fin_received(c, now);
  return before_fin != State::fin_wait_2;
}

}  // namespace mtcp::stack

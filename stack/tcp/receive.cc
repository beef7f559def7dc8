// RFC 9293 3.10.7.4, seventh and eighth step: payload and FIN; when to acknowledge them; the application's
// reads.
#include <algorithm>
#include <cstring>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

// Payload up to this size is copied behind the packet before it, rather than hold a whole buffer.
constexpr std::uint32_t kTiny = 256;

// Cuts what lies left of RCV.NXT and right of the window. False: nothing is left.
bool trim_to_window(Tcp& tcp, Connection& c, Segment& s) {
  const auto& h = c.hot;
  Stats& stats = tcp.stats;
  Packet* p = s.packet;
  if (before(s.seq, h.rcv_nxt)) {
    const std::uint32_t old = h.rcv_nxt - s.seq;
    tcp.note_duplicate(c, s.seq, earlier(s.seq + s.len, h.rcv_nxt));
    if (old > s.len || (old == s.len && !s.has(kFin))) return stats.add(Counter::duplicate_data), false;
    p->pull(old);
    s.seq += old;
    s.len -= old;
  }
  const Seq end = s.seq + s.len;
  if (s.len != 0 && after(end, h.rcv_adv)) {
    const std::uint32_t beyond = std::min(end - h.rcv_adv, s.len);
    stats.add(Counter::receive_buffer_full);
    s.len -= beyond;
    p->trim(s.len);
    s.flags &= static_cast<std::uint8_t>(~kFin);
    if (s.len == 0) return false;
  }
  p->seq = s.seq;
  return true;
}

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

}  // namespace

void Tcp::enqueue_in_order(Connection& c, Packet*& p) {
  auto& rx = c.rx;
  const std::uint32_t n = p->len;
  rx.queued += n;
  Packet* last = rx.queue.back();
  // Under pressure any packet that fits is merged, so that two neighbours always fill more than one buffer.
  if (last != nullptr && n <= last->tailroom() && (n <= kTiny || rx.memory > rx.buffer / 2 || memory.level() != MemoryBudget::Level::low)) {
    std::memcpy(last->end(), p->data, n);
    last->len += n;
    return;
  }
  if (memory.level() != MemoryBudget::Level::low) [[unlikely]] p = shrink(p);
  rx.queue.push_back(p);
  rx.memory += p->capacity;
  p = nullptr;
}

bool Tcp::on_payload(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  auto& rx = c.rx;
  if (!can_receive(h.state)) {
    send_ack(c, now);  // after the peer's FIN: it has not seen our ACK
    return true;
  }
  const bool nobody_reads = c.detached || (c.read_shut && h.state != State::established);
  if (nobody_reads && s.len != 0 && after(s.seq + s.len, h.rcv_nxt)) {
    // RFC 9293 3.6.1, RFC 1122 4.2.2.13: data that nobody will ever read.
    stats.add(Counter::data_after_close);
    send_reset(c, now);
    finish(c, Errc::connection_reset);
    return false;
  }
  if (!trim_to_window(*this, c, s)) {
    send_ack(c, now);
    return true;
  }
  if (s.has(kFin)) {
    rx.fin_pending = true;
    rx.fin_seq = s.seq + s.len;
  }
  if (s.seq != h.rcv_nxt) {
    if (s.len != 0) insert_out_of_order(c, s);
    send_ack(c, now);  // RFC 5681 section 4.2: each one is a duplicate ACK that the sender counts
    return true;
  }
  if (s.len != 0 && !accept_in_order(c, s, now)) return true;
  if (!rx.fin_pending || before(h.rcv_nxt, rx.fin_seq)) return true;
  return accept_fin(c, now);
}

// False: no memory, nothing was taken.
bool Tcp::accept_in_order(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  auto& rx = c.rx;
  if (rx.memory + s.packet->capacity > receive_limit(c)) {
    prune_out_of_order(c);
    const Packet* last = rx.queue.back();
    if (rx.memory + s.packet->capacity > receive_limit(c) && (last == nullptr || s.len > last->tailroom())) {
      stats.add(memory.exhausted() ? Counter::packets_low : Counter::receive_buffer_full);
      return false;
    }
  }
  if (s.len < rx.mss_estimate && rx.pushed < 2) ++rx.pushed;
  measure_peer(c, s, now);
  enqueue_in_order(c, s.packet);
  h.rcv_nxt += s.len;
  c.bytes_received += s.len;
  if (rx.out_of_order.empty()) {
    schedule_ack(c, now);
  } else {
    drain_out_of_order(c);
    request_ack(c);  // RFC 5681 section 4.2: at once when a gap is filled, in part or whole
  }
  if (rx.queued >= c.options.rcvlowat || rx.queued >= largest_window(c)) raise(c, SocketBase::kReadEdge);
  return true;
}

bool Tcp::accept_fin(Connection& c, Time now) {
  auto& h = c.hot;
  c.rx.fin_pending = false;
  h.rcv_nxt = c.rx.fin_seq + 1;
  h.fin_received = true;
  const State before_fin = h.state;
  on_fin_received(c, now);
  return before_fin != State::fin_wait_2;
}

// RFC 9293 3.8.6.3, RFC 5681 section 4.2: every second full segment at least, the others after the delay; at
// the start of a connection each one, so that the sender's window opens (as Linux does).
void Tcp::schedule_ack(Connection& c, Time now) {
  auto& h = c.hot;
  const std::uint32_t unacked = h.rcv_nxt - h.last_ack_sent;
  if (unacked > c.rx.mss_estimate || (c.rx.quickack_left > 0 && !h.pingpong)) {
    request_ack(c);
  } else if (!c.delayed_ack_timer.armed()) {
    wheel.arm(c.delayed_ack_timer, now + options.tcp.delayed_ack);
  }
}

Result<std::size_t> Tcp::receive(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now) {
  auto& rx = c.rx;
  if (rx.queued == 0) {
    // After the peer's FIN there is nothing that an error could have cut off.
    if (c.hot.fin_received) return std::size_t{0};
    if (c.error != Errc::ok) return std::exchange(c.error, Errc::ok);
    if (c.read_shut || c.hot.state == State::closed || c.hot.state == State::time_wait) return std::size_t{0};
    return Errc::would_block;
  }
  std::size_t done = 0;
  Packet* p = rx.queue.front();
  std::size_t offset = 0;  // in p; only MSG_PEEK leaves data behind that it has passed
  for (const iovec& v : data) {
    for (std::size_t filled = 0; filled < v.iov_len && p != nullptr;) {
      const std::size_t n = std::min<std::size_t>(v.iov_len - filled, p->len - offset);
      if (!flags.discard) std::memcpy(static_cast<std::byte*>(v.iov_base) + filled, p->data + offset, n);
      filled += n;
      done += n;
      offset += n;
      if (offset < p->len) break;
      offset = 0;
      p = p->next;
      if (p != nullptr) __builtin_prefetch(p->data);
      if (flags.peek) continue;
      Packet* empty = rx.queue.pop_front();
      rx.memory -= empty->capacity;
      cache.free(empty);
    }
  }
  if (flags.peek) return done;
  if (offset != 0) p->pull(offset);
  rx.queued -= static_cast<std::uint32_t>(done);
  after_read(c, static_cast<std::uint32_t>(done), now);
  return done;
}

}  // namespace mtcp::stack

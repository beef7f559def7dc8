// The application's writes: data is copied once, into packets of at most one segment that stay until they are
// ACKed.
#include <algorithm>
#include <cstring>

#include "stack/packet/external.hh"
#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/write.hh"
#include "stack/tcp/tcp.hh"
#include "stack/wire/checksum.hh"

namespace mtcp::stack {
namespace {

Seq queue_end(const Connection& c) {
  const Packet* last = c.tx.queue.back();
  return last != nullptr ? last->seq + last->payload_len : c.hot.snd_nxt;
}

// Bytes of payload that a packet is filled with. Where many segments fit it is of several, and is cut when they leave: with a packet for
// each, what has been written would use up the send buffer.
std::uint32_t bytes_of_packet(const Connection& c) {
  constexpr std::uint32_t kSmall = 256, kMany = 1024;
  const std::uint32_t mss = c.hot.mss;
  return mss > kSmall ? mss : kMany / mss * mss;
}

// Bytes that may still be added to the last packet: it must not have been sent, nor wait for the device.
std::uint32_t room_in_last(const Connection& c, std::uint32_t segment) {
  const Packet* p = c.tx.queue.back();
  if (c.tx.unsent == nullptr || p->transmissions != 0 || p->payload_len >= segment) return 0;
  if ((p->marks & kRecordEnd) != 0 || (p->flags & kExternal) != 0) return 0;
  const std::uint32_t tail = p->capacity - std::uint32_t{p->payload_offset} - p->payload_len;
  return std::min(segment - p->payload_len, tail);
}

std::byte* tail_of(Packet* p) { return p->buf + p->payload_offset + p->payload_len; }

// A write found too little room for more. Where all that is there has been sent and the congestion window would take more, the send
// buffer is the limit.
void await_room(Connection& c, Time now) {
  c.hot.wake_writer = true;
  if (c.tx.unsent == nullptr && c.hot.flight() + c.hot.mss <= c.hot.cwnd) Sender::note_wait(c, Connection::Waits::For::buffer, now);
}

// Copies from an iovec list in pieces.
class Source {
 public:
  Source(std::span<const iovec> v, bool sums) : v_(v), sums_(sums) {}
  // Returns the partial checksum of the n bytes, which are there; 0 where none is wanted.
  std::uint32_t copy(std::byte* dst, std::size_t n) {
    std::uint32_t sum = 0;
    for (std::size_t done = 0; done < n;) {
      const std::size_t part = std::min(n - done, v_.front().iov_len - offset_);
      const auto* src = static_cast<const std::byte*>(v_.front().iov_base) + offset_;
      if (part != 0 && sums_)
        sum = append_sum(sum, copy_and_sum(dst + done, src, part), done);
      else if (part != 0)
        std::memcpy(dst + done, src, part);
      done += part;
      offset_ += part;
      if (offset_ == v_.front().iov_len) {
        v_ = v_.subspan(1);
        offset_ = 0;
      }
    }
    return sum;
  }

 private:
  std::span<const iovec> v_;
  std::size_t offset_ = 0;
  const bool sums_;
};

std::size_t total(std::span<const iovec> v) {
  std::size_t n = 0;
  for (const iovec& e : v) n += e.iov_len;
  return n;
}

}  // namespace

// `n` bytes of another write have been put there: the one before does not end the segment any more.
void Sender::extend(Packet* p, std::uint32_t n) {
  p->payload_len = static_cast<std::uint16_t>(p->payload_len + n);
  p->marks = static_cast<std::uint8_t>(p->marks & ~kPush);
}

void Sender::append_packet(Connection& c, Packet* p, Time now) {
  p->seq = queue_end(c);
  if (c.tx.queue.empty()) c.waits.busy -= now.time_since_epoch();
  c.tx.queue.push_back(p);
  c.tx.memory += p->capacity;
  if (c.tx.unsent == nullptr) c.tx.unsent = p;
}

// As Linux: PSH where a write ends, and within a long one once for each half of the peer's window.
void Sender::mark_push(Connection& c, bool end_of_write) {
  Packet* p = c.tx.queue.back();
  const Seq end = p->seq + p->payload_len;
  if (!end_of_write && end - c.tx.pushed <= c.tx.max_window / 2) return;
  p->marks = static_cast<std::uint8_t>(p->marks | kPush);
  c.tx.pushed = end;
}

Errc Sender::cannot_send(Connection& c) {
  if (c.error != Errc::ok) return std::exchange(c.error, Errc::ok);
  const State s = c.hot.state;
  if (c.hot.fin_queued || s == State::closed || s == State::time_wait) return Errc::broken_pipe;
  return can_send(s) ? Errc::ok : Errc::would_block;  // not connected yet
}

// Of what was admitted, for want of packets. Those that are in the queue come back.
Errc Sender::nothing_taken(Connection& c) {
  stats.add(Counter::no_packets);
  if (c.tx.queue.empty()) return Errc::no_buffers;
  c.hot.wake_writer = true;
  return Errc::would_block;
}

// What has been queued is pushed, and the writer waits for room if there is too little.
void Sender::finish_write(Connection& c, bool more, Time now) {
  c.hot.more = more;
  if (!more) mark_push(c, true);
  if (c.stamped) [[unlikely]] request_stamp(c);
  push(c, now);
  tcp_.transmit_bursts(now);
  if (!is_writable(c)) await_room(c, now);
}

Result<std::size_t> Sender::send(Connection& c, std::span<const iovec> data, bool more, Time now) {
  const std::size_t wanted = total(data);
  const auto admitted = admit(c, wanted);
  if (!admitted) return admitted.error();
  const std::uint32_t n = *admitted;
  if (n == 0) return std::size_t{0};
  if (is_paced(c)) note_app_limited(c);
  const std::uint32_t segment = bytes_of_packet(c);
  Source source(data, sums_payload);
  std::uint32_t left = n;
  if (const std::uint32_t part = std::min(left, room_in_last(c, segment)); part != 0) {
    Packet* p = c.tx.queue.back();
    p->payload_sum = append_sum(p->payload_sum, source.copy(tail_of(p), part), p->payload_len);
    extend(p, part);
    left -= part;
    c.hot.snd_queued += part;
  }
  std::uint32_t unpushed = 0;  // packets
  // What may still grow has room for that.
  if (cache.scarce() && left - 1 < kLittlePayload && c.tx.unsent == nullptr && !more) [[unlikely]] cache.put_little_first();
  while (left > 0) {
    Packet* p = cache.alloc();
    if (p == nullptr) break;
    const std::uint32_t part = std::min({left, segment, std::uint32_t{p->capacity} - p->payload_offset});
    p->payload_sum = source.copy(tail_of(p), part);
    p->payload_len = static_cast<std::uint16_t>(part);
    if (sums_payload) p->flags |= kPayloadSum;
    append_packet(c, p, now);
    mark_push(c, false);
    left -= part;
    c.hot.snd_queued += part;
    // A long write sends as it goes, so that a packet is still in the cache when the device reads it.
    if (++unpushed == kTxBurst && left > segment) {
      unpushed = 0;
      push(c, now);
      tcp_.transmit_bursts(now);
    }
  }
  return end_write(c, n - left, n, more && n - left == wanted, now);
}

std::span<const std::byte> Sender::queue_syn_data(Connection& c, std::span<const iovec> data, std::uint32_t most, Time now) {
  const std::size_t n = std::min<std::size_t>(total(data), most);
  Packet* p = n != 0 ? cache.alloc() : nullptr;
  if (p == nullptr) return {};
  const auto length = static_cast<std::uint16_t>(std::min<std::size_t>(n, std::size_t{p->capacity} - p->payload_offset));
  Source source(data, sums_payload);
  p->payload_sum = source.copy(tail_of(p), length);
  p->payload_len = length;
  if (sums_payload) p->flags |= kPayloadSum;
  append_packet(c, p, now);
  mark_push(c, true);
  p->transmissions = 1;
  p->sent_at = latest_stamp_ = std::max(now, latest_stamp_ + Duration(1));
  c.tx.unsent = nullptr;
  c.hot.snd_queued += length;
  c.hot.snd_nxt += length;
  ++c.data_segments_sent;
  return {p->buf + p->payload_offset, length};
}

// What the peer has not taken with the SYN is data as any other.
void Sender::rewind_syn_data(Connection& c) {
  if (c.tx.queue.empty()) return;
  wheel.cancel(c.retransmit_timer);
  c.tx.unsent = c.tx.queue.front();
  for (Packet* p = c.tx.unsent; p != nullptr; p = p->next) p->transmissions = 0;
  c.hot.snd_nxt = c.hot.snd_una;
  ++c.retransmits;
}

void Sender::end_record(Connection& c) {
  if (Packet* last = c.tx.queue.back(); last != nullptr && c.tx.unsent != nullptr)
    last->marks = static_cast<std::uint8_t>(last->marks | kRecordEnd);
}

Result<std::size_t> Sender::reserve(Connection& c, std::size_t bytes, std::span<iovec> out, Time) {
  const auto admitted = admit(c, bytes);
  if (!admitted) return admitted.error();
  std::size_t left = *admitted, pieces = 0;
  const std::uint32_t segment = bytes_of_packet(c);
  if (const std::uint32_t room = room_in_last(c, segment); room != 0 && left != 0 && !out.empty()) {
    out[pieces++] = {tail_of(c.tx.queue.back()), std::min<std::size_t>(room, left)};
    left -= out[0].iov_len;
  }
  c.tx.lent_in_last = pieces != 0 ? static_cast<std::uint16_t>(out[0].iov_len) : std::uint16_t{0};
  while (left > 0 && pieces < out.size()) {
    Packet* p = cache.alloc();
    if (p == nullptr) break;
    const std::size_t part =
        std::min({left, std::size_t{segment}, std::size_t{p->capacity} - p->payload_offset});
    p->payload_len = static_cast<std::uint16_t>(part);
    c.tx.lent.push_back(p);
    out[pieces++] = {p->buf + p->payload_offset, part};
    left -= part;
  }
  if (pieces == 0 && bytes != 0 && !out.empty()) return nothing_taken(c);
  return pieces;
}

void Sender::commit(Connection& c, std::size_t bytes, bool more, Time now) {
  if (is_paced(c)) note_app_limited(c);
  auto left = static_cast<std::uint32_t>(bytes);
  if (const std::uint32_t part = std::min<std::uint32_t>(left, c.tx.lent_in_last); part != 0) {
    Packet* p = c.tx.queue.back();
    if (sums_payload)
      p->payload_sum = append_sum(p->payload_sum, partial_sum(tail_of(p), part), p->payload_len);
    extend(p, part);
    left -= part;
  }
  c.tx.lent_in_last = 0;
  while (Packet* p = c.tx.lent.pop_front()) {
    const std::uint32_t part = std::min<std::uint32_t>(left, p->payload_len);
    if (part == 0) {
      cache.free(p);
      continue;
    }
    p->payload_len = static_cast<std::uint16_t>(part);
    if (sums_payload) {
      p->payload_sum = partial_sum(p->buf + p->payload_offset, part);
      p->flags |= kPayloadSum;
    }
    append_packet(c, p, now);
    left -= part;
  }
  if (bytes == 0) return;
  c.hot.snd_queued += static_cast<std::uint32_t>(bytes);
  finish_write(c, more, now);
}

// Cuts `p` after `at` bytes; the rest goes into a packet of its own behind it. False: not possible now.
bool Sender::split(Connection& c, Packet* p, std::uint32_t at) {
  if (!cut(c, p, at)) return false;
  if (p->transmissions != 0) rebuild_scoreboard(c);
  return true;
}

// The same without the scoreboard.
bool Sender::cut(Connection& c, Packet* p, std::uint32_t at) {
  if (at == 0 || at >= p->payload_len) return true;
  if ((p->flags & kQueued) != 0) return false;
  Packet* rest = cache.alloc();
  if (rest == nullptr) return stats.add(Counter::no_packets), false;
  const std::uint32_t n = p->payload_len - at;
  if ((p->flags & kExternal) != 0) [[unlikely]] {
    refer(*rest, *external_of(*p).memory, p->external_offset + at);
    set_segment(*p, 0);
  } else {
    rest->payload_sum = copy_and_sum(rest->buf + rest->payload_offset, p->buf + p->payload_offset + at, n);
    rest->flags |= kPayloadSum;
  }
  rest->payload_len = static_cast<std::uint16_t>(n);
  rest->seq = p->seq + at;
  rest->transmissions = p->transmissions;
  rest->sent_at = p->sent_at;
  rest->marks = p->marks;
  p->marks = static_cast<std::uint8_t>(p->marks & ~(kPush | kRecordEnd));
  p->payload_len = static_cast<std::uint16_t>(at);
  p->flags = static_cast<std::uint16_t>(p->flags & ~kPayloadSum);
  c.tx.queue.insert_after(p, rest);
  c.tx.memory += rest->capacity;
  return true;
}

// Packets whose payload is elsewhere stay as they are.
void Sender::fill(Connection& c, Packet* p, std::uint32_t full) {
  full = std::min(full, std::uint32_t{p->capacity} - p->payload_offset);
  while (p->payload_len < full && p->next != nullptr) {
    Packet* next = p->next;
    if (((p->marks | next->marks) & (kRecordEnd | kUrgent)) != 0 || ((p->flags | next->flags) & (kQueued | kExternal)) != 0) return;
    const auto n = static_cast<std::uint16_t>(std::min<std::uint32_t>(full - p->payload_len, next->payload_len));
    const bool all = n == next->payload_len;
    if (all && c.tx.lent_in_last != 0) return;  // the application writes behind it
    std::memcpy(tail_of(p), next->buf + next->payload_offset, n);
    extend(p, n);
    p->flags = static_cast<std::uint16_t>(p->flags & ~kPayloadSum);
    if (all) {
      p->marks = static_cast<std::uint8_t>(p->marks | (next->marks & kPush));
      c.tx.memory -= next->capacity;
      release(c.tx.queue.remove_after(p));
      continue;
    }
    next->payload_offset = static_cast<std::uint16_t>(next->payload_offset + n);
    next->payload_len = static_cast<std::uint16_t>(next->payload_len - n);
    next->seq += n;
    next->flags = static_cast<std::uint16_t>(next->flags & ~kPayloadSum);
  }
}

void Sender::on_path_mtu(Connection& c, std::uint32_t mtu, Time now) {
  auto& h = c.hot;
  if (!is_synchronized(h.state)) return;
  // RFC 1191 section 3, RFC 5927 section 7.2: never below 576 - what a forger could do is to make us slow.
  const std::uint32_t floor = std::min(552U, c.path->mtu);
  mtu = std::max(mtu, floor);
  const std::uint32_t headers = (c.key.local.is_v4() ? 40U : 60U) + (h.timestamps ? 12U : 0U);
  if (mtu >= h.mss + headers) return;
  c.path_mtu = mtu;
  h.mss = static_cast<std::uint16_t>(mtu - headers);
  c.tx.cc->on_smaller_segments(c);
  // What was sent too large is lost, and not for congestion: again, with the window as it is.
  bool lost = false;
  for (Packet* p = c.tx.queue.front(); p != c.tx.unsent && p != nullptr; p = p->next) {
    if (p->payload_len <= h.mss || (p->marks & kSacked) != 0) continue;
    p->marks = static_cast<std::uint8_t>((p->marks | kLost) & ~kResent);
    lost = true;
    (void)cut(c, p, h.mss);
  }
  if (lost && (c.tx.scoreboard != nullptr ? (rebuild_scoreboard(c), true) : need_scoreboard(c)) && h.phase < Phase::recovery) {
    h.phase = Phase::loss;
    c.recovery.end = h.snd_nxt;
    c.recovery.undo_possible = c.recovery.frto = false;
  }
  count_left(c);
  push(c, now);
}

}  // namespace mtcp::stack

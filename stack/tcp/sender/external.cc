// Payload that stays where it is: packets refer to it, and the device gathers. Such a packet may be of many segments, which the
// device cuts it into; here it is cut when some of them may leave and others not, or when the peer lacks some of them.
#include "stack/packet/external.hh"

#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/write.hh"
#include "stack/tcp/tcp.hh"
#include "stack/tcp/urgent.hh"

namespace mtcp::stack {
namespace {

// Payload of a packet: whole segments that fit into an IP packet with its headers, and one to spare for what an application has
// written in front of a file.
std::uint32_t most_of_packet(std::uint32_t segment) { return std::max((UINT16_MAX - 120U) / segment, 2U) * segment - segment; }

std::uint32_t count_segments(std::uint32_t bytes, std::uint32_t segment) { return (bytes + segment - 1) / segment; }

// `memory` from `offset` on follows directly on what the packet has.
bool continues(const Packet& p, const ExternalMemory& memory, std::uint32_t offset) {
  return (p.flags & (kExternal | kQueued)) == kExternal && p.transmissions == 0 && (p.marks & kRecordEnd) == 0 &&
         external_of(p).memory == &memory && p.external_offset + p.payload_len == offset;
}

}  // namespace

bool Sender::takes_external(const Connection& c) const {
  return port != nullptr && !sums_payload && !c.path->local && !c.stamped && port->takes_external();
}

Result<std::size_t> Sender::send_external(Connection& c, ExternalMemory& memory, std::uint32_t offset, std::size_t bytes, bool more, Time now) {
  const auto admitted = admit(c, bytes);
  if (!admitted) return admitted.error();
  const std::uint32_t n = *admitted;
  if (n == 0) return std::size_t{0};
  if (is_paced(c)) note_app_limited(c);
  const std::uint32_t most = most_of_packet(c.hot.mss);
  std::uint32_t left = n;
  if (Packet* last = c.tx.queue.back(); last != nullptr && last->transmissions == 0) {
    const bool longer = last->payload_len < most && continues(*last, memory, offset);
    const std::uint32_t part = longer ? std::min(left, most - last->payload_len) : 0;
    extend(last, part);  // by nothing: what follows does not end there, either
    left -= part;
  }
  while (left > 0) {
    Packet* p = cache.alloc();
    if (p == nullptr) break;
    const std::uint32_t part = std::min(left, most);
    refer(*p, memory, offset + (n - left));
    p->payload_len = static_cast<std::uint16_t>(part);
    append_packet(c, p, now);
    mark_push(c, false);
    left -= part;
  }
  c.hot.snd_queued += n - left;
  return end_write(c, n - left, n, more && n - left == bytes, now);
}

// Bytes of `p`, more than a segment, that may leave at once: whole segments, at least one.
std::uint32_t Sender::whole_segments(const Connection& c, const Packet& p, std::uint32_t full) const {
  const auto& h = c.hot;
  // What is marked, paced or timed is so by segments, and each has an urgent pointer of its own.
  if ((p.flags & kExternal) == 0 || c.tx.scoreboard != nullptr || is_paced(c) || c.stamped || in_urgent_mode(c)) return full;
  if (!port->takes_external()) return full;
  const Seq edge = h.snd_una + h.snd_wnd;
  const std::uint32_t window = before(p.seq, edge) ? edge - p.seq : 0;
  const std::uint32_t cwnd = h.cwnd > h.flight() ? h.cwnd - h.flight() : 0;
  const std::uint32_t n = std::min({window, cwnd, std::uint32_t{p.payload_len}, most_of_packet(full)});
  return std::max(n / full, 1U) * full;
}

// Leaves as much in `p`, more than a segment, as may leave at once. False: not possible now.
bool Sender::cut_to_leave(Connection& c, Packet* p, std::uint32_t full) {
  const std::uint32_t n = whole_segments(c, *p, full);
  // By halves, so that each byte is copied as seldom as can be.
  while ((p->flags & kExternal) == 0 && p->payload_len > 2 * full) {
    if (!split(c, p, p->payload_len / full / 2 * full)) return false;
  }
  if (!split(c, p, n)) return false;
  if (n > full) {
    set_segment(*p, full);
    p->marks = static_cast<std::uint8_t>(p->marks | kPush);  // as Linux, for each such packet
  }
  return true;
}

// What is in flight is to be marked, by segments. One that the device does not have yet is cut when it has to go again.
void Sender::cut_into_segments(Connection& c) {
  for (Packet* p = c.tx.queue.front(); p != c.tx.unsent && p != nullptr; p = p->next) {
    if ((p->flags & kExternal) == 0 || p->payload_len <= c.hot.mss || !cut(c, p, c.hot.mss)) continue;
    p->sent_at -= Duration(count_segments(p->next->payload_len, c.hot.mss));  // each its own: note_segments()
  }
}

// `p` is about to be sent for the first time, in several segments.
void Sender::note_segments(Connection& c, const Packet& p, Time now) {
  const std::uint32_t more = count_segments(p.payload_len, external_of(p).segment) - 1;
  stats.add(Counter::segments_sent, more);
  c.data_segments_sent += more;
  latest_stamp_ = std::max(now, latest_stamp_) + Duration(more);
}

}  // namespace mtcp::stack

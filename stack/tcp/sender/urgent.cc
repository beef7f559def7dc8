// Urgent data of the application: RFC 9293 section 3.8.5, RFC 6093; urgent.hh.
#include "stack/tcp/urgent.hh"

#include <algorithm>

#include "stack/tcp/tcp.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {

Result<std::size_t> Sender::send_urgent(Connection& c, std::span<const iovec> data, bool more, Time now) {
  if (Tcp::need_extras(c) == nullptr) return Errc::no_buffers;
  // Nothing leaves before it is marked, not even as one of those that the device has room for by now.
  const bool was_blocked = c.hot.tx_blocked;
  c.push_hook.unlink();
  c.hot.tx_blocked = true;
  auto sent = send(c, data, more, now);
  c.hot.tx_blocked = was_blocked;
  if (was_blocked) blocked.push_back(c);
  if (!sent || *sent == 0) return sent;
  const Packet* last = c.tx.queue.back();
  Tcp::urgent_of(c)->end = last->seq + last->payload_len;
  // All that is sent from now on, and what is sent again, announces it.
  for (Packet* p = c.tx.queue.front(); p != nullptr; p = p->next) p->marks = static_cast<std::uint8_t>(p->marks | kUrgent);
  push(c, now, true);
  return sent;
}

// As Linux does it for a byte that is further away than the field can tell: to its greatest value if nothing beyond that
// has been sent, else not at all.
void Sender::point_at_urgent(const Connection& c, Packet& p, Seq seq) const {
  constexpr std::uint32_t kFarthest = 0xffff;
  const Urgent* u = Tcp::find_urgent(c);
  std::byte* header = p.data;
  const bool points = u != nullptr && before(seq, u->end);
  const std::uint32_t distance = points ? u->end - seq : 0;
  if (points && (distance <= kFarthest || after(seq + kFarthest, c.hot.snd_nxt)))
    store_be(header + kTcpUrgentOffset, static_cast<std::uint16_t>(std::min(distance, kFarthest)));
  else
    header[kTcpFlagsOffset] &= ~std::byte{kUrg};
}

// The peer's window is closed: it hears of the urgent byte all the same.
void Sender::send_urgent_probe(Connection& c, Time now) {
  Packet* p = cache.alloc_little();
  if (p == nullptr) return stats.add(Counter::no_packets);
  tcp_.write_header(c, *p, c.hot.snd_una, kAck | kUrg, now);
  point_at_urgent(c, *p, c.hot.snd_una);
  stats.add(Counter::segments_sent);
  network.output_tcp(p, c.key.local, c.key.remote, *c.path, TxPriority::ack, now);
}

}  // namespace mtcp::stack

// Out-of-order segments: a list sorted by sequence number, without overlap, bounded by the receive buffer.
#include <cstring>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kTiny = 256;

Seq end_of(const Packet* p) { return p->seq + p->len; }

// The last packet that begins at or before `seq`, null if none does. Looks at the end first: that is where
// segments behind a gap arrive.
Packet* find_before(const PacketList& list, Seq seq) {
  if (list.empty() || after(list.front()->seq, seq)) return nullptr;
  if (at_or_before(list.back()->seq, seq)) return list.back();
  Packet* p = list.front();
  while (p->next != nullptr && at_or_before(p->next->seq, seq)) p = p->next;
  return p;
}

}  // namespace

void Tcp::insert_out_of_order(Connection& c, Segment& s) {
  auto& rx = c.rx;
  Packet* p = s.packet;
  Packet* prev = find_before(rx.out_of_order, p->seq);
  if (prev != nullptr && after(end_of(prev), p->seq)) {
    const std::uint32_t known = std::min(end_of(prev) - p->seq, p->len);
    note_duplicate(c, p->seq, p->seq + known);
    if (known == p->len) {
      if (c.hot.sack_ok) rx.sack.add(p->seq, end_of(p));  // the block that it is in comes first
      return stats.add(Counter::duplicate_data);
    }
    p->pull(known);
    p->seq += known;
  }
  // Whatever the new one covers goes; at the first that reaches beyond it the new one ends.
  for (Packet* next = prev != nullptr ? prev->next : rx.out_of_order.front(); next != nullptr;) {
    if (at_or_after(next->seq, end_of(p))) break;
    note_duplicate(c, next->seq, earlier(end_of(next), end_of(p)));
    if (after(end_of(next), end_of(p))) {
      p->trim(next->seq - p->seq);
      break;
    }
    Packet* covered = rx.out_of_order.remove_after(prev);
    next = prev != nullptr ? prev->next : rx.out_of_order.front();
    rx.ooo_bytes -= covered->len;
    account_out_of_order(c, -std::int64_t{covered->capacity});
    cache.free(covered);
  }
  if (p->len == 0) return stats.add(Counter::duplicate_data);
  rx.ooo_bytes += p->len;
  stats.add(Counter::out_of_order_queued);
  if (prev != nullptr && end_of(prev) == p->seq && p->len <= kTiny && p->len <= prev->tailroom()) {
    std::memcpy(prev->end(), p->data, p->len);
    prev->len += p->len;
    if (c.hot.sack_ok) rx.sack.add(p->seq, end_of(p));
    return;
  }
  if (rx.memory + p->capacity > out_of_order_limit(c)) {
    rx.ooo_bytes -= p->len;
    return stats.add(Counter::out_of_order_pruned);
  }
  account_out_of_order(c, p->capacity);
  if (c.hot.sack_ok) rx.sack.add(p->seq, end_of(p));
  rx.out_of_order.insert_after(prev, p);
  s.packet = nullptr;
}

void Tcp::drain_out_of_order(Connection& c) {
  auto& rx = c.rx;
  auto& h = c.hot;
  while (Packet* p = rx.out_of_order.front()) {
    if (after(p->seq, h.rcv_nxt)) break;
    rx.out_of_order.pop_front();
    rx.ooo_bytes -= p->len;
    account_out_of_order(c, -std::int64_t{p->capacity});
    const std::uint32_t known = std::min(h.rcv_nxt - p->seq, p->len);
    p->pull(known);
    const std::uint32_t n = p->len;
    if (n != 0) {
      c.bytes_received += n;
      h.rcv_nxt += n;
      enqueue_in_order(c, p);
    }
    if (p != nullptr) cache.free(p);
  }
  rx.sack.advance(h.rcv_nxt);
}

void Tcp::note_duplicate(Connection& c, Seq begin, Seq end) {
  if (c.hot.sack_ok && options.tcp.dsack && before(begin, end)) c.rx.sack.add_duplicate(begin, end);
}

// Data in order comes before data out of order: the peer will send it again (RFC 2018 section 8 allows it).
void Tcp::prune_out_of_order(Connection& c) {
  for (const Packet* p = c.rx.out_of_order.front(); p != nullptr; p = p->next)
    stats.add(Counter::out_of_order_pruned);
  free_out_of_order(c);
}

void Tcp::free_out_of_order(Connection& c) {
  c.rx.sack.forget_blocks();
  while (Packet* p = c.rx.out_of_order.pop_front()) cache.free(p);
  account_out_of_order(c, -std::int64_t{c.rx.out_of_order_memory});
  c.rx.ooo_bytes = 0;
}

}  // namespace mtcp::stack

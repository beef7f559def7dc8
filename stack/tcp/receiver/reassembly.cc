// Segments out of order, until what precedes them has come. Bounded by the receive buffer and by the number of islands;
// the window that was offered is a promise, so what runs on without a gap fits whatever its segments' sizes are.
#include <algorithm>
#include <cstring>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kNone = Island::kNone;

}  // namespace

void Receiver::drop_island(Connection& c, std::uint32_t index) {
  Island& i = islands_.at(index);
  std::int64_t memory = 0;
  while (Packet* p = i.packets.pop_front()) {
    memory += p->capacity;
    cache_.free(p);
  }
  c.rx.ooo_bytes -= i.size();
  islands_.remove(c.rx.out_of_order, index);
  islands_.destroy(index);
  c.rx.memory -= std::uint32_t{sizeof(Island)};
  if (memory != 0) tcp_.account_out_of_order(c, -memory);
}

// Of data out of order the last is what the peer has to send again last: half of the last island goes, so that of a long
// one something stays.
void Receiver::drop_last(Connection& c) {
  auto& rx = c.rx;
  const std::uint32_t index = rx.out_of_order.last;
  Island& i = islands_.at(index);
  Seq from = i.begin;
  if (i.packets.front() == i.packets.back()) {
    drop_island(c, index);
  } else {
    Packet* middle = i.packets.front();
    for (Packet* p = middle->next; p != nullptr && p->next != nullptr; p = p->next->next)
      if (p->next->next != nullptr) middle = middle->next;
    PacketList rest = i.packets.cut_after(middle);
    from = middle->seq + middle->len;
    std::int64_t memory = 0;
    while (Packet* p = rest.pop_front()) {
      memory += p->capacity;
      cache_.free(p);
    }
    rx.ooo_bytes -= i.end - from;
    i.end = from;
    tcp_.account_out_of_order(c, -memory);
  }
  rx.sack.forget_from(from);
  stats_.add(Counter::out_of_order_pruned);
}

// Room for `bytes` more, at the cost of what is out of order behind `seq`. False: there is none.
bool Receiver::make_room(Connection& c, std::uint32_t bytes, std::uint32_t limit, Seq seq) {
  auto& rx = c.rx;
  while (rx.memory + bytes > limit) {
    if (rx.out_of_order.empty() || at_or_before(islands_.at(rx.out_of_order.last).end, seq)) return false;
    drop_last(c);
  }
  return true;
}

// Where there may be no more of them, at the cost of the last if that is behind `seq`.
std::uint32_t Receiver::create_island(Connection& c, Seq seq) {
  auto& set = c.rx.out_of_order;
  std::uint32_t index = islands_.create(set);
  if (index != kNone || set.empty() || before(islands_.at(set.last).begin, seq)) return index;
  c.rx.sack.forget_from(islands_.at(set.last).begin);
  drop_island(c, set.last);
  stats_.add(Counter::out_of_order_pruned);
  return islands_.create(set);
}

// Cuts off what is there already. False: nothing is left.
bool Receiver::trim_known(Connection& c, Packet& p) {
  auto& set = c.rx.out_of_order;
  const Seq seq = p.seq;
  if (const std::uint32_t prev = islands_.at_or_before(set, seq); prev != kNone) {
    const Island& i = islands_.at(prev);
    if (i.begin == seq && before(i.end, seq + p.len)) {  // as Linux: what comes later and has all of it replaces it
      note_duplicate(c, i.begin, i.end);
      drop_island(c, prev);
    } else if (after(i.end, seq)) {
      const std::uint32_t known = std::min(i.end - seq, p.len);
      note_duplicate(c, seq, seq + known);
      if (known == p.len) {
        note_sack(c, i.begin, i.end);  // the block that it is in comes first
        return false;
      }
      p.pull(known);
      p.seq += known;
    }
  }
  // Whatever the new one covers goes; at the first that reaches beyond it the new one ends.
  const Seq end = p.seq + p.len;
  for (std::uint32_t next; (next = islands_.after(set, seq)) != kNone;) {
    const Island& i = islands_.at(next);
    if (!before(i.begin, end)) break;
    note_duplicate(c, i.begin, earlier(i.end, end));
    if (after(i.end, end)) {
      p.trim(i.begin - p.seq);
      break;
    }
    drop_island(c, next);
  }
  return p.len != 0;
}

// Adds `p` at the end of an island; null afterwards if it was taken, else its bytes were copied. False: it can't be.
bool Receiver::append(Connection& c, Island& i, Packet*& p) {
  const std::uint32_t n = p->len;
  Packet* last = i.packets.back();
  if (last == nullptr && i.size() + n <= i.bytes.size()) {
    std::memcpy(i.bytes.data() + i.size(), p->data, n);
  } else if (last != nullptr && copies(c, *last, n)) {
    std::memcpy(last->end(), p->data, n);
    last->len += n;
    last->sent_at = p->sent_at;
  } else {
    if (last == nullptr && i.size() != 0) {  // what was too little for a packet goes in front
      if (i.size() > p->headroom()) return false;
      std::memcpy(p->push(i.size()), i.bytes.data(), i.size());
      p->seq = i.begin;
    }
    i.packets.push_back(p);
    tcp_.account_out_of_order(c, p->capacity);
    p = nullptr;
  }
  i.end += n;
  c.rx.ooo_bytes += n;
  return true;
}

// Makes one of an island and the next, which begins where it ends. Where that would take a packet they stay two.
void Receiver::join(Connection& c, std::uint32_t index, std::uint32_t next) {
  Island& a = islands_.at(index);
  Island& b = islands_.at(next);
  Packet* last = a.packets.back();
  if (b.packets.empty()) {
    if (last == nullptr && a.size() + b.size() <= a.bytes.size()) {
      std::memcpy(a.bytes.data() + a.size(), b.bytes.data(), b.size());
    } else if (last != nullptr && b.size() <= last->tailroom()) {
      std::memcpy(last->end(), b.bytes.data(), b.size());
      last->len += b.size();
    } else {
      return;
    }
  } else if (last == nullptr) {
    Packet* first = b.packets.front();
    if (a.size() > first->headroom()) return;
    std::memcpy(first->push(a.size()), a.bytes.data(), a.size());
    first->seq = a.begin;
    a.packets.splice_back(b.packets);
  } else {
    // As in append(), for a peer that fills the window from its end.
    Packet* first = b.packets.front();
    if (copies(c, *last, first->len)) {
      std::memcpy(last->end(), first->data, first->len);
      last->len += first->len;
      last->sent_at = first->sent_at;
      tcp_.account_out_of_order(c, -std::int64_t{first->capacity});
      cache_.free(b.packets.pop_front());
    }
    a.packets.splice_back(b.packets);
  }
  a.end = b.end;
  islands_.remove(c.rx.out_of_order, next);
  islands_.destroy(next);
  c.rx.memory -= std::uint32_t{sizeof(Island)};
}

// What it takes at most to keep `p`, which continues `island` if that is not null.
std::uint32_t Receiver::memory_for(const Packet& p, const Island* island) const {
  const Packet* last = island != nullptr ? island->packets.back() : nullptr;
  if (last != nullptr && p.len <= last->tailroom()) return 0;
  const bool few = p.len <= sizeof(Island::bytes) && island == nullptr;
  return (few ? 0U : p.capacity) + std::uint32_t{sizeof(Island)};
}

void Receiver::insert_out_of_order(Connection& c, Segment& s) {
  auto& rx = c.rx;
  Packet*& p = s.packet;
  ++rx.out_of_order_received;
  const std::uint32_t had = rx.out_of_order.count;
  // What it covered has made way for it, and is not here any more.
  const auto refuse = [&] {
    if (rx.out_of_order.count < had) rx.sack.forget_from(p->seq);
    stats_.add(Counter::out_of_order_pruned);
  };
  if (!trim_known(c, *p)) return stats_.add(Counter::duplicate_data);
  const Seq begin = p->seq, end = p->seq + p->len;
  std::uint32_t index = islands_.at_or_before(rx.out_of_order, begin);
  const bool adjoins = index != kNone && islands_.at(index).end == begin;
  if (!make_room(c, memory_for(*p, adjoins ? &islands_.at(index) : nullptr), out_of_order_limit(c), end))
    return refuse();
  if (!adjoins || !append(c, islands_.at(index), p)) {
    index = create_island(c, end);
    if (index == kNone) return refuse();
    Island& fresh = islands_.at(index);
    fresh.begin = fresh.end = begin;
    (void)append(c, fresh, p);
    islands_.insert(rx.out_of_order, index);
    rx.memory += std::uint32_t{sizeof(Island)};
  }
  if (const std::uint32_t next = islands_.after(rx.out_of_order, begin); next != kNone && islands_.at(next).begin == end)
    join(c, index, next);
  const Island& i = islands_.at(index);
  note_sack(c, i.begin, i.end);
  stats_.add(Counter::out_of_order_queued);
}

// Bytes that are in no packet. False: there is none for them.
bool Receiver::enqueue_bytes(Connection& c, std::span<const std::byte> bytes) {
  Packet* p = cache_.alloc();
  if (p == nullptr) return stats_.add(Counter::no_packets), false;
  std::memcpy(p->data, bytes.data(), bytes.size());
  p->len = static_cast<std::uint32_t>(bytes.size());
  if (const Packet* gap = c.rx.queue.back(); gap != nullptr) p->sent_at = gap->sent_at;  // when they were told apart from it is not kept
  enqueue_in_order(c, p);
  if (p != nullptr) cache_.free(p);
  return true;
}

void Receiver::drain_out_of_order(Connection& c) {
  auto& rx = c.rx;
  auto& h = c.hot;
  const auto advance = [&](std::uint32_t n) {
    h.rcv_nxt += n;
    c.bytes_received += n;
  };
  for (std::uint32_t index; (index = islands_.first(rx.out_of_order)) != kNone;) {
    Island& i = islands_.at(index);
    if (after(i.begin, h.rcv_nxt)) break;
    const std::uint32_t known = std::min(h.rcv_nxt - i.begin, i.size());
    note_duplicate(c, i.begin, i.begin + known);
    if (i.packets.empty() && known < i.size()) {
      const std::uint32_t n = i.size() - known;
      enqueue_bytes(c, std::span(i.bytes).subspan(known, n)) ? advance(n) : rx.sack.forget_blocks();
    }
    while (Packet* p = i.packets.pop_front()) {
      tcp_.account_out_of_order(c, -std::int64_t{p->capacity});
      const std::uint32_t old = std::min(h.rcv_nxt - p->seq, p->len);
      p->pull(old);
      if (const std::uint32_t n = p->len; n != 0) {
        enqueue_in_order(c, p);
        advance(n);
      }
      if (p != nullptr) cache_.free(p);
    }
    drop_island(c, index);
  }
  rx.sack.advance(h.rcv_nxt);
}

// With the FIN at the end, if it has come: it has a sequence number as well, and a segment of which only the data was reported would
// not count as arrived.
void Receiver::note_sack(Connection& c, Seq begin, Seq end) {
  if (!c.hot.sack_ok) return;
  if (c.rx.fin_pending && end == c.rx.fin_seq) end += 1;
  c.rx.sack.add(begin, end);
}

void Receiver::note_duplicate(Connection& c, Seq begin, Seq end) {
  if (c.hot.sack_ok && options_.tcp.dsack && before(begin, end)) c.rx.sack.add_duplicate(begin, end);
}

// The peer will send it again (RFC 2018 section 8 allows it).
void Receiver::prune_out_of_order(Connection& c) {
  stats_.add(Counter::out_of_order_pruned, c.rx.out_of_order.count);
  free_out_of_order(c);
}

void Receiver::free_out_of_order(Connection& c) {
  while (!c.rx.out_of_order.empty()) drop_island(c, c.rx.out_of_order.root);
  c.rx.sack.forget_blocks();
}

}  // namespace mtcp::stack

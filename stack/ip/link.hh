// What the files of this folder share: the way to the device, and back to the pool.
#pragma once

#include <cstring>

#include "stack/packet/external.hh"
#include "stack/packet/packet.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/stats.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

struct Link {
  PacketCache& cache;
  TxQueue& tx;
  Stats& stats;
  MacAddress mac;  // ours

  // Gives up a packet; one with kKeep stays the caller's.
  void release(Packet* p) {
    if ((p->flags & kKeep) == 0) cache.free(p);
  }
  void drop(Packet* p, Counter reason) {
    stats.add(reason);
    release(p);
  }
  void send(Packet* p, TxPriority priority) {
    if (!tx.add(p, priority)) drop(p, Counter::tx_queue_full);
  }
  [[nodiscard]] Packet* alloc() {
    Packet* p = cache.alloc();
    if (p == nullptr) stats.add(Counter::no_packets);
    return p;
  }
  // A packet of its own with the same bytes, and as much room in front; null when the pool is empty. For a
  // packet with kKeep, whose link belongs to someone else.
  [[nodiscard]] Packet* copy(const Packet& p) {
    Packet* q = alloc();
    if (q == nullptr) return nullptr;
    const bool external = (p.flags & kExternal) != 0;
    if (external && p.headroom() + p.len > q->capacity) return cache.free(q), nullptr;  // a device was to cut it
    assert(p.headroom() + p.len <= q->capacity);
    q->data = q->buf + p.headroom();
    q->len = p.len;
    q->seq = p.seq;
    q->tos = p.tos;
    q->ttl = p.ttl;
    if (external) [[unlikely]]
      std::memcpy(q->data, copy_of_frame(p).data(), p.len);
    else
      std::memcpy(q->data, p.data, p.len);
    return q;
  }
};

}  // namespace mtcp::stack

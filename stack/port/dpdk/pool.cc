#include "stack/port/dpdk/pool.hh"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_mempool.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "stack/port/dpdk/eal.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr unsigned kCache = 256;  // mbufs that a stack keeps in front of the shared ring
constexpr std::size_t kChunk = 64;

// Where the free mbufs are: a stack, so that what was freed last, and is still in the CPU's cache, is used
// first. DPDK's ring would lead through the whole pool, out of every cache, however few are in use. Not
// thread-safe, as the pool is not.
struct alignas(void*) FreeStack {
  unsigned count;
  void** objects() { return reinterpret_cast<void**>(this + 1); }
};

FreeStack* stack_of(const rte_mempool* mempool) { return static_cast<FreeStack*>(mempool->pool_data); }

int stack_alloc(rte_mempool* mempool) {
  mempool->pool_data =
      rte_zmalloc(nullptr, sizeof(FreeStack) + mempool->size * sizeof(void*), RTE_CACHE_LINE_SIZE);
  return mempool->pool_data != nullptr ? 0 : -ENOMEM;
}

void stack_free(rte_mempool* mempool) { rte_free(mempool->pool_data); }

int stack_enqueue(rte_mempool* mempool, void* const* objects, unsigned n) {
  FreeStack* s = stack_of(mempool);
  if (n > mempool->size - s->count) return -ENOBUFS;
  std::copy_n(objects, n, s->objects() + s->count);
  s->count += n;
  return 0;
}

int stack_dequeue(rte_mempool* mempool, void** objects, unsigned n) {
  FreeStack* s = stack_of(mempool);
  if (n > s->count) return -ENOBUFS;
  s->count -= n;
  std::copy_n(s->objects() + s->count, n, objects);
  return 0;
}

unsigned stack_count(const rte_mempool* mempool) { return stack_of(mempool)->count; }

constexpr const char* kOpsName = "mtcp_stack";

bool register_stack() {
  rte_mempool_ops ops{};
  std::strncpy(ops.name, kOpsName, sizeof ops.name - 1);
  ops.alloc = stack_alloc;
  ops.free = stack_free;
  ops.enqueue = stack_enqueue;
  ops.dequeue = stack_dequeue;
  ops.get_count = stack_count;
  return rte_mempool_register_ops(&ops) >= 0;
}

void init_packet(rte_mempool*, void* pool, void* object, unsigned) {
  auto* m = static_cast<rte_mbuf*>(object);
  Packet* p = packet_of(m);
  *p = {};
  p->buf = static_cast<std::byte*>(m->buf_addr);
  p->capacity = m->buf_len;
  p->pool = static_cast<MbufPool*>(pool);
  p->reset();
}

void reset_mbuf(rte_mempool* mempool, void* pool, void* object, unsigned index) {
  auto* m = static_cast<rte_mbuf*>(object);
  rte_mbuf_refcnt_set(m, 1);
  m->nb_segs = 1;
  m->next = nullptr;
  m->ol_flags = 0;
  init_packet(mempool, pool, object, index);
  rte_mempool_ops_enqueue_bulk(mempool, &object, 1);
}

}  // namespace

// Cards take whole KiB of a buffer (igb, ixgbe), and some drivers want room for VLAN tags or a header of
// their own (virtio) and refuse the queue without.
std::size_t MbufPool::data_room(std::size_t frame) {
  constexpr std::size_t kDriver = 32, kUnit = 1024;
  const std::size_t room = (std::max<std::size_t>(frame + kDriver, 2048) + kUnit - 1) / kUnit * kUnit;
  return std::min<std::size_t>(room + kHeadroom, UINT16_MAX & ~std::size_t{63});
}

std::size_t MbufPool::memory(std::size_t packets, std::size_t frame) {
  // An object's header, trailer and padding take up to 5 cache lines; the ring 16 bytes a packet after
  // rounding up; the caches of all thread numbers 2 MB.
  constexpr std::size_t kPerObject = sizeof(rte_mbuf) + sizeof(Packet) + 5 * 64 + 32;
  return packets * (kPerObject + data_room(frame)) + (std::size_t{3} << 20);
}

std::unique_ptr<MbufPool> MbufPool::create(const char* name, std::size_t packets, std::size_t frame) {
  // Unless a device needs physical addresses, an object may cross a page; otherwise each takes a 4 KB page of
  // its own when there are no huge ones.
  const unsigned flags = rte_eal_iova_mode() == RTE_IOVA_VA ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0;
  const std::size_t room = data_room(frame);
  rte_pktmbuf_pool_private sizes{};
  sizes.mbuf_data_room_size = static_cast<std::uint16_t>(room);
  sizes.mbuf_priv_size = sizeof(Packet);
  rte_mempool* mempool = rte_mempool_create_empty(
      name, static_cast<unsigned>(packets), static_cast<unsigned>(sizeof(rte_mbuf) + sizeof(Packet) + room),
      kCache, sizeof sizes, SOCKET_ID_ANY, flags);
  if (mempool == nullptr) return nullptr;
  rte_pktmbuf_pool_init(mempool, &sizes);
  static const bool registered = register_stack();
  if (!registered || rte_mempool_set_ops_byname(mempool, kOpsName, nullptr) != 0 ||
      rte_mempool_populate_default(mempool) < 0) {
    rte_mempool_free(mempool);
    return nullptr;
  }
  std::unique_ptr<MbufPool> pool(new MbufPool(mempool));
  rte_mempool_obj_iter(mempool, rte_pktmbuf_init, nullptr);
  rte_mempool_obj_iter(mempool, init_packet, pool.get());
  return pool;
}

std::size_t MbufPool::alloc(Packet** out, std::size_t n) {
  set_thread_number(number_);
  // All or nothing at a time: near exhaustion take what there is in smaller pieces.
  for (std::size_t want = n; want > 0; want /= 2) {
    if (rte_mempool_get_bulk(pool_, reinterpret_cast<void**>(out), static_cast<unsigned>(want)) != 0)
      continue;
    for (std::size_t i = 0; i < want; ++i) {
      out[i] = packet_of(reinterpret_cast<rte_mbuf*>(out[i]));
      out[i]->reset();
    }
    return want;
  }
  return 0;
}

void MbufPool::free(Packet* const* packets, std::size_t n) {
  set_thread_number(number_);
  std::array<void*, kChunk> mbufs;
  while (n > 0) {
    const std::size_t chunk = std::min(n, kChunk);
    for (std::size_t i = 0; i < chunk; ++i) mbufs[i] = mbuf_of(packets[i]);
    rte_mempool_put_bulk(pool_, mbufs.data(), static_cast<unsigned>(chunk));
    packets += chunk;
    n -= chunk;
  }
}

std::size_t MbufPool::capacity() const { return pool_->size; }

std::size_t MbufPool::available() const {
  return rte_mempool_ops_get_count(pool_) + rte_mempool_default_cache(pool_, number_)->len;
}

void MbufPool::reclaim() {
  for (unsigned i = 0; i < RTE_MAX_LCORE; ++i) rte_mempool_default_cache(pool_, i)->len = 0;
  stack_of(pool_)->count = 0;
  rte_mempool_obj_iter(pool_, reset_mbuf, this);
}

}  // namespace mtcp::stack::dpdk

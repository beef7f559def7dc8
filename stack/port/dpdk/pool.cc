#include "stack/port/dpdk/pool.hh"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "stack/port/dpdk/eal.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr unsigned kCache = 256;  // mbufs that a stack keeps in front of the shared ring
constexpr std::size_t kChunk = 64;

// Cards take whole KiB of a buffer (igb, ixgbe), and some drivers want room for VLAN tags or a header of
// their own (virtio) and refuse the queue without.
std::size_t data_room(std::size_t frame) {
  constexpr std::size_t kDriver = 32, kUnit = 1024;
  const std::size_t room = (std::max<std::size_t>(frame + kDriver, 2048) + kUnit - 1) / kUnit * kUnit;
  return std::min<std::size_t>(room + kHeadroom, UINT16_MAX & ~std::size_t{63});
}

// Where the free mbufs are: a stack, so that what was freed last, and is still in the CPU's cache, is used
// first. DPDK's ring would lead through the whole pool, out of every cache, however few are in use. Not
// thread-safe, as the pool is not.
struct alignas(void*) FreeStack {
  unsigned count;
  void** objects() { return reinterpret_cast<void**>(this + 1); }
};

int push(FreeStack& s, unsigned size, void* const* objects, unsigned n) {
  if (n > size - s.count) return -ENOBUFS;
  std::copy_n(objects, n, s.objects() + s.count);
  s.count += n;
  return 0;
}

int pop(FreeStack& s, void** objects, unsigned n) {
  if (n > s.count) return -ENOBUFS;
  s.count -= n;
  std::copy_n(s.objects() + s.count, n, objects);
  return 0;
}

// The list of a shared pool lies in shared memory.
FreeStack* stack_of(const rte_mempool* mempool) { return static_cast<FreeStack*>(mempool->pool_data); }

int stack_alloc(rte_mempool* mempool) {
  mempool->pool_data =
      rte_zmalloc(nullptr, sizeof(FreeStack) + mempool->size * sizeof(void*), RTE_CACHE_LINE_SIZE);
  return mempool->pool_data != nullptr ? 0 : -ENOMEM;
}

void stack_free(rte_mempool* mempool) { rte_free(mempool->pool_data); }

int stack_enqueue(rte_mempool* mempool, void* const* objects, unsigned n) {
  return push(*stack_of(mempool), mempool->size, objects, n);
}

int stack_dequeue(rte_mempool* mempool, void** objects, unsigned n) {
  return pop(*stack_of(mempool), objects, n);
}

unsigned stack_count(const rte_mempool* mempool) { return stack_of(mempool)->count; }

// That of a pool in private memory is found through a pointer in private memory, whose address alone is shared: each
// process has a list of its own there.
FreeStack* private_stack_of(const rte_mempool* mempool) { return *static_cast<FreeStack**>(mempool->pool_data); }

int private_alloc(rte_mempool*) { return 0; }
void private_free(rte_mempool*) {}

int private_enqueue(rte_mempool* mempool, void* const* objects, unsigned n) {
  return push(*private_stack_of(mempool), mempool->size, objects, n);
}

int private_dequeue(rte_mempool* mempool, void** objects, unsigned n) {
  return pop(*private_stack_of(mempool), objects, n);
}

unsigned private_count(const rte_mempool* mempool) { return private_stack_of(mempool)->count; }

constexpr const char* kShared = "mtcp_stack";
constexpr const char* kPrivate = "mtcp_private";

bool register_ops(const char* name, rte_mempool_ops ops) {
  std::strncpy(ops.name, name, sizeof ops.name - 1);
  return rte_mempool_register_ops(&ops) >= 0;
}

bool register_all() {
  rte_mempool_ops shared{}, own{};
  shared.alloc = stack_alloc;
  shared.free = stack_free;
  shared.enqueue = stack_enqueue;
  shared.dequeue = stack_dequeue;
  shared.get_count = stack_count;
  own.alloc = private_alloc;
  own.free = private_free;
  own.enqueue = private_enqueue;
  own.dequeue = private_dequeue;
  own.get_count = private_count;
  return register_ops(kShared, shared) && register_ops(kPrivate, own);
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

std::size_t MbufPool::memory(std::size_t packets, std::size_t frame) {
  // An object's header, trailer and padding take up to 5 cache lines; the ring 16 bytes a packet after
  // rounding up; the caches of all thread numbers 2 MB.
  constexpr std::size_t kPerObject = sizeof(rte_mbuf) + sizeof(Packet) + 5 * 64 + 32;
  return packets * (kPerObject + data_room(frame)) + (std::size_t{3} << 20);
}

namespace {

rte_mempool* make_mempool(const char* name, std::size_t packets, std::size_t frame, unsigned cache,
                          const char* ops) {
  // Unless a device needs physical addresses, an object may cross a page; otherwise each takes a 4 KB page of
  // its own when there are no huge ones.
  const unsigned flags = rte_eal_iova_mode() == RTE_IOVA_VA ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0;
  const std::size_t room = data_room(frame);
  rte_pktmbuf_pool_private sizes{};
  sizes.mbuf_data_room_size = static_cast<std::uint16_t>(room);
  sizes.mbuf_priv_size = sizeof(Packet);
  rte_mempool* mempool = rte_mempool_create_empty(
      name, static_cast<unsigned>(packets), static_cast<unsigned>(sizeof(rte_mbuf) + sizeof(Packet) + room),
      cache, sizeof sizes, SOCKET_ID_ANY, flags);
  if (mempool == nullptr) return nullptr;
  rte_pktmbuf_pool_init(mempool, &sizes);
  static const bool registered = register_all();
  if (registered && rte_mempool_set_ops_byname(mempool, ops, nullptr) == 0) return mempool;
  rte_mempool_free(mempool);
  return nullptr;
}

}  // namespace

std::unique_ptr<MbufPool> MbufPool::create(const char* name, std::size_t packets, std::size_t frame) {
  rte_mempool* mempool = make_mempool(name, packets, frame, kCache, kShared);
  if (mempool == nullptr) return nullptr;
  if (rte_mempool_populate_default(mempool) < 0) {
    rte_mempool_free(mempool);
    return nullptr;
  }
  std::unique_ptr<MbufPool> pool(new MbufPool(mempool));
  rte_mempool_obj_iter(mempool, rte_pktmbuf_init, nullptr);
  rte_mempool_obj_iter(mempool, init_packet, pool.get());
  return pool;
}

std::unique_ptr<MbufPool> MbufPool::create_empty(const char* name, std::size_t packets, std::size_t frame) {
  rte_mempool* mempool = make_mempool(name, packets, frame, 0, kPrivate);
  if (mempool == nullptr) return nullptr;
  std::unique_ptr<MbufPool> pool(new MbufPool(mempool));
  mempool->pool_data = &pool->free_;
  mempool->populated_size = mempool->size;
  pool->fresh_ = packets;
  return pool;
}

MbufPool::~MbufPool() { release(); }

void MbufPool::release() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
  memory_ = objects_ = nullptr;
  free_ = nullptr;
}

std::size_t MbufPool::stride() const {
  return std::size_t{pool_->header_size} + pool_->elt_size + pool_->trailer_size;
}

bool MbufPool::populate() {
  release();
  const std::size_t list = (sizeof(FreeStack) + pool_->size * sizeof(void*) + 4095) / 4096 * 4096;
  bytes_ = list + stride() * pool_->size;
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  memory_ = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
  if (memory_ == nullptr) return false;
  madvise(memory_, bytes_, MADV_HUGEPAGE);  // if the system has them to spare
  free_ = memory_;  // zero, so empty
  objects_ = memory_ + list;
  fresh_ = 0;
  return true;
}

// Makes up to n packets ready for their first use.
void MbufPool::take_fresh(std::size_t n) {
  n = fresh_ < pool_->size ? std::min<std::size_t>(n, pool_->size - fresh_) : 0;
  for (std::size_t i = 0; i < n; ++i, ++fresh_) {
    std::byte* at = objects_ + stride() * fresh_;
    auto* header = reinterpret_cast<rte_mempool_objhdr*>(at + pool_->header_size - sizeof(rte_mempool_objhdr));
    header->mp = pool_;
    void* object = at + pool_->header_size;
    header->iova = reinterpret_cast<rte_iova_t>(object);
    rte_pktmbuf_init(pool_, nullptr, object, static_cast<unsigned>(fresh_));
    init_packet(pool_, this, object, 0);
    private_enqueue(pool_, &object, 1);
  }
}

std::size_t MbufPool::alloc(Packet** out, std::size_t n) {
  set_thread_number(number_);
  // All or nothing at a time: near exhaustion take what there is in smaller pieces.
  if (fresh_ != SIZE_MAX && rte_mempool_ops_get_count(pool_) < n) take_fresh(std::max(n, kChunk));
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
  if (fresh_ != SIZE_MAX) return pool_->size - fresh_ + rte_mempool_ops_get_count(pool_);
  return rte_mempool_ops_get_count(pool_) + rte_mempool_default_cache(pool_, number_)->len;
}

void MbufPool::reclaim() {
  for (unsigned i = 0; i < RTE_MAX_LCORE; ++i) rte_mempool_default_cache(pool_, i)->len = 0;
  stack_of(pool_)->count = 0;
  rte_mempool_obj_iter(pool_, reset_mbuf, this);
}

}  // namespace mtcp::stack::dpdk

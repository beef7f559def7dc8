#include "stack/port/dpdk/pool.hh"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace mtcp::stack::dpdk {

namespace {

constexpr std::size_t kChunk = 64;

// Where the free mbufs are: a stack, so that what was freed last, and is still in the CPU's cache, is used
// first. DPDK's ring would lead through the whole pool, out of every cache, however few are in use. Not
// thread-safe, as the pool is not; and without DPDK's caches in front of it, which a process that is killed
// leaves with objects in them that it has given out already.
struct alignas(void*) FreeStack {
  unsigned count;
  unsigned lowest;  // of count since the driver was entered: what lies above came back from it since then
  bool marked;      // MbufPool::Use::device
  bool in_driver;
  void** objects() { return reinterpret_cast<void**>(this + 1); }
};

FreeStack* stack_of(const rte_mempool* mempool) { return static_cast<FreeStack*>(mempool->pool_data); }

int stack_alloc(rte_mempool* mempool) {
  mempool->pool_data =
      rte_zmalloc(nullptr, sizeof(FreeStack) + mempool->size * sizeof(void*), RTE_CACHE_LINE_SIZE);
  return mempool->pool_data != nullptr ? 0 : -ENOMEM;
}

void stack_free(rte_mempool* mempool) { rte_free(mempool->pool_data); }

bool push(FreeStack& s, unsigned size, void* const* objects, unsigned n) {
  if (n > size - s.count) return false;
  std::copy_n(objects, n, s.objects() + s.count);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  s.count += n;
  return true;
}

void pop(FreeStack& s, void** objects, unsigned n) {
  s.count -= n;
  s.lowest = std::min(s.lowest, s.count);
  std::copy_n(s.objects() + s.count, n, objects);
}

void mark(void* const* objects, unsigned n, MbufPool::Holder holder) {
  for (unsigned i = 0; i < n; ++i) MbufPool::set_holder(static_cast<rte_mbuf*>(objects[i]), holder);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// DPDK's way in and out: only drivers come by it. Should the process die in between, an mbuf is marked as the
// device's for too long, never for too short a time. What the device does not have comes from a driver in which a
// process died before it noted that it had given it back.
int stack_enqueue(rte_mempool* mempool, void* const* objects, unsigned n) {
  FreeStack& s = *stack_of(mempool);
  if (!s.marked) return push(s, mempool->size, objects, n) ? 0 : -ENOBUFS;
  for (unsigned i = 0; i < n; ++i) {
    if (MbufPool::holder(static_cast<rte_mbuf*>(objects[i])) != MbufPool::Holder::device) continue;
    if (!push(s, mempool->size, objects + i, 1)) return -ENOBUFS;
    mark(objects + i, 1, MbufPool::Holder::pool);
  }
  return 0;
}

int stack_dequeue(rte_mempool* mempool, void** objects, unsigned n) {
  FreeStack& s = *stack_of(mempool);
  if (n > s.count) return -ENOBUFS;
  if (s.marked) mark(s.objects() + s.count - n, n, MbufPool::Holder::device);
  pop(s, objects, n);
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

void reset(rte_mempool* mempool, void* pool, rte_mbuf* m, unsigned index) {
  rte_mbuf_refcnt_set(m, 1);
  m->nb_segs = 1;
  m->next = nullptr;
  m->ol_flags = 0;
  init_packet(mempool, pool, m, index);
  if (void* object = m; stack_of(mempool)->marked) mark(&object, 1, MbufPool::Holder::pool);
}

void give_back(rte_mempool* mempool, void* pool, void* object, unsigned index) {
  reset(mempool, pool, static_cast<rte_mbuf*>(object), index);
  push(*stack_of(mempool), mempool->size, &object, 1);
}

// What is free after a death. Packets from a stack's hands lie lowest, and are used last: a driver in which the
// process died may have been about to forget one of them.
struct Rebuilding {
  MbufPool* pool;
  unsigned from_hands, free;  // those lie below the first, these from the second on
};

// What the device has stays there, without the references of the dead. Can be done over if it was not done to the
// end.
void recover_mbuf(rte_mempool* mempool, void* context, void* object, unsigned index) {
  auto* m = static_cast<rte_mbuf*>(object);
  auto& r = *static_cast<Rebuilding*>(context);
  const auto holder = MbufPool::holder(m);
  const bool in_hand = holder == MbufPool::Holder::stack;
  if (holder == MbufPool::Holder::device || (in_hand && rte_mbuf_refcnt_read(m) > 1)) {
    mark(&object, 1, MbufPool::Holder::device);
    rte_mbuf_refcnt_set(m, 1);
    return;
  }
  reset(mempool, r.pool, m, index);
  stack_of(mempool)->objects()[in_hand ? r.from_hands++ : --r.free] = m;
}

// A byte in every mbuf, which drivers leave alone. Negative without.
int holder_field() {
  rte_mbuf_dynfield field{};
  std::strncpy(field.name, "mtcp_holder", sizeof field.name - 1);
  field.size = sizeof(MbufPool::Holder);
  field.align = alignof(MbufPool::Holder);
  return rte_mbuf_dynfield_register(&field);
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
  // An object's header, trailer and padding take up to 5 cache lines.
  constexpr std::size_t kPerObject = sizeof(rte_mbuf) + sizeof(Packet) + 5 * 64 + 32;
  return packets * (kPerObject + data_room(frame)) + (std::size_t{1} << 20);
}

std::unique_ptr<MbufPool> MbufPool::create(const char* name, std::size_t packets, std::size_t frame, Use use) {
  if (use == Use::device && holder_offset_ < 0 && (holder_offset_ = holder_field()) < 0) return nullptr;
  // Unless a device needs physical addresses, an object may cross a page; otherwise each takes a 4 KB page of
  // its own when there are no huge ones.
  const unsigned flags = rte_eal_iova_mode() == RTE_IOVA_VA ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0;
  const std::size_t room = data_room(frame);
  rte_pktmbuf_pool_private sizes{};
  sizes.mbuf_data_room_size = static_cast<std::uint16_t>(room);
  sizes.mbuf_priv_size = sizeof(Packet);
  rte_mempool* mempool = rte_mempool_create_empty(
      name, static_cast<unsigned>(packets), static_cast<unsigned>(sizeof(rte_mbuf) + sizeof(Packet) + room),
      0, sizeof sizes, SOCKET_ID_ANY, flags);
  if (mempool == nullptr) return nullptr;
  rte_pktmbuf_pool_init(mempool, &sizes);
  static const bool registered = register_stack();
  if (!registered || rte_mempool_set_ops_byname(mempool, kOpsName, nullptr) != 0 ||
      rte_mempool_populate_default(mempool) < 0) {
    rte_mempool_free(mempool);
    return nullptr;
  }
  std::unique_ptr<MbufPool> pool(new MbufPool(mempool, use));
  rte_mempool_obj_iter(mempool, rte_pktmbuf_init, nullptr);
  rte_mempool_obj_iter(mempool, init_packet, pool.get());
  stack_of(mempool)->marked = use == Use::device;
  return pool;
}

// To whoever rebuilds the pool after a death it does not matter what has been pushed and popped: the marks
// alone say what is free. So a mark is right at every instruction, and a death between two of these leaves a
// packet at worst as if it had come a moment earlier or later.
std::size_t MbufPool::alloc(Packet** out, std::size_t n) {
  FreeStack& s = *stack_of(pool_);
  n = std::min<std::size_t>(n, s.count);
  pop(s, reinterpret_cast<void**>(out), static_cast<unsigned>(n));
  for (std::size_t i = 0; i < n; ++i) {
    auto* m = reinterpret_cast<rte_mbuf*>(out[i]);
    if (use_ == Use::device) set_holder(m, Holder::stack);
    out[i] = packet_of(m);
    out[i]->reset();
  }
  return n;
}

// False if the device reads it still: then the driver gives it back when that is done.
bool MbufPool::let_go(rte_mbuf* m) {
  if (rte_mbuf_refcnt_read(m) == 1) {
    set_holder(m, Holder::pool);
    return true;
  }
  set_holder(m, Holder::device);
  rte_mbuf_refcnt_update(m, -1);
  return false;
}

void MbufPool::free(Packet* const* packets, std::size_t n) {
  std::array<void*, kChunk> mbufs;
  while (n > 0) {
    const std::size_t chunk = std::min(n, kChunk);
    unsigned back = 0;
    for (std::size_t i = 0; i < chunk; ++i) {
      rte_mbuf* m = mbuf_of(packets[i]);
      if (use_ != Use::device || let_go(m)) mbufs[back++] = m;
    }
    push(*stack_of(pool_), pool_->size, mbufs.data(), back);
    packets += chunk;
    n -= chunk;
  }
}

std::size_t MbufPool::capacity() const { return pool_->size; }

std::size_t MbufPool::available() const { return stack_of(pool_)->count; }

std::size_t MbufPool::buffer_size() const { return rte_pktmbuf_data_room_size(pool_); }

void MbufPool::enter_driver() {
  FreeStack& s = *stack_of(pool_);
  s.lowest = s.count;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  s.in_driver = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

void MbufPool::leave_driver() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  stack_of(pool_)->in_driver = false;
}

bool MbufPool::in_driver() const { return stack_of(pool_)->in_driver; }

void MbufPool::keep_from_children() {
  const auto keep = [](rte_mempool*, void*, rte_mempool_memhdr* part, unsigned) {
    // Whole pages only: what lies beside them may be anything.
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto start = reinterpret_cast<std::uintptr_t>(part->addr);
    const std::uintptr_t begin = (start + page - 1) / page * page, end = (start + part->len) / page * page;
    if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTFORK);
  };
  rte_mempool_mem_iter(pool_, keep, nullptr);
}

void MbufPool::reclaim() {
  FreeStack& s = *stack_of(pool_);
  s.count = 0;
  rte_mempool_obj_iter(pool_, give_back, this);
  s.in_driver = false;
}

void MbufPool::recover() {
  FreeStack& s = *stack_of(pool_);
  // The driver may have been about to forget these, and give them back once more.
  if (s.in_driver && s.lowest < s.count)
    mark(s.objects() + s.lowest, s.count - s.lowest, Holder::device);
  s.count = 0;
  Rebuilding r{this, 0, pool_->size};
  rte_mempool_obj_iter(pool_, recover_mbuf, &r);
  std::move(s.objects() + r.free, s.objects() + pool_->size, s.objects() + r.from_hands);
  s.count = r.from_hands + pool_->size - r.free;
  s.in_driver = false;
}

}  // namespace mtcp::stack::dpdk

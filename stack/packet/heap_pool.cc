#include "stack/packet/heap_pool.hh"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define MTCP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MTCP_ASAN 1
#endif
#endif
#ifdef MTCP_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace mtcp::stack {
namespace {

// With the address sanitizer, buffers that are free and the gaps between buffers cannot be touched.
void forbid([[maybe_unused]] const void* at, [[maybe_unused]] std::size_t n) {
#ifdef MTCP_ASAN
  __asan_poison_memory_region(at, n);
#endif
}

void allow([[maybe_unused]] const void* at, [[maybe_unused]] std::size_t n) {
#ifdef MTCP_ASAN
  __asan_unpoison_memory_region(at, n);
#endif
}

constexpr std::size_t kGap = 64;  // between a buffer and the next Packet: no two buffers a power of two apart

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

}  // namespace

HeapPool::HeapPool(std::size_t capacity, std::size_t buffer_size)
    : wanted_(capacity),
      capacity_(capacity),
      buffer_size_(std::clamp<std::size_t>(buffer_size, kHeadroom, UINT16_MAX)),
      stride_(sizeof(Packet) + round_up(buffer_size_, 64) + kGap) {
  chunks_.reserve(capacity / kChunkPackets + 1);
}

HeapPool::~HeapPool() {
  assert(in_use_ == 0);
  for (std::byte* chunk : chunks_) {
    allow(chunk, kChunkPackets * stride_);
    munmap(chunk, kChunkPackets * stride_);
  }
}

bool HeapPool::grow() {
  void* memory = mmap(nullptr, kChunkPackets * stride_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    // Then the pool is as large as it has become, and says so: who counts on more would wait for ever. It asks again when
    // as many packets as that would bring have come back.
    capacity_ = chunks_.size() * kChunkPackets;
    return false;
  }
  // Packets belong to the process that has the stack: its children neither use them nor copy pages for them.
  (void)madvise(memory, kChunkPackets * stride_, MADV_DONTFORK);
  chunks_.push_back(static_cast<std::byte*>(memory));
  capacity_ = wanted_;
  forbid(memory, kChunkPackets * stride_);
  fresh_ = 0;
  return true;
}

Packet* HeapPool::take_fresh() {
  if (fresh_ == kChunkPackets && !grow()) return nullptr;
  std::byte* at = chunks_.back() + fresh_++ * stride_;
  allow(at, sizeof(Packet));
  auto* p = new (at) Packet{};
  p->buf = at + sizeof(Packet);
  p->capacity = static_cast<std::uint16_t>(buffer_size_);
  p->pool = this;
  return p;
}

std::size_t HeapPool::alloc(Packet** out, std::size_t n) {
  n = std::min(n, capacity_ - in_use_);
  for (std::size_t i = 0; i < n; ++i) {
    Packet* p = free_;
    if (p != nullptr)
      free_ = p->next;
    else
      p = take_fresh();
    if (p == nullptr) return i;
    allow(p->buf, p->capacity);
    p->reset();
    out[i] = p;
    ++in_use_;
  }
  return n;
}

void HeapPool::free(Packet* const* packets, std::size_t n) {
  assert(n <= in_use_);
  in_use_ -= n;
  for (std::size_t i = 0; i < n; ++i) {
    assert(packets[i]->pool == this);
    packets[i]->next = free_;
    free_ = packets[i];
    forbid(packets[i]->buf, packets[i]->capacity);
  }
  if (capacity_ == wanted_) [[likely]] return;
  returned_ += n;
  if (returned_ < kChunkPackets) return;
  returned_ = 0;
  (void)grow();
}

}  // namespace mtcp::stack

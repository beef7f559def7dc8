// Fixed-size objects in chunks: an object keeps its address and its 32-bit index as long as it lives, freed
// slots are used again last-in first-out (they are the ones still in the cache), and memory is touched only
// when used.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // NOLINT: as g++ says it
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

namespace mtcp::stack {

template <typename T>
class Slab {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  // At most `limit` objects. Chunks for the first `prepared` of them are allocated now, the others when
  // needed.
  explicit Slab(std::uint32_t limit, std::uint32_t prepared = 0) : limit_(limit) {
    chunks_.reserve((std::size_t{limit} + kPerChunk - 1) / kPerChunk);
    while (chunks_.size() * kPerChunk < prepared && chunks_.size() < chunks_.capacity() && add_chunk()) {
    }
    words_.resize((std::size_t{limit} + 63) / 64);
  }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() {
    for_each([](T& object, std::uint32_t) { object.~T(); });
  }

  // A new default-constructed object's index, or kNone at the limit or without memory.
  [[nodiscard]] std::uint32_t create() {
    std::uint32_t index = free_head_;
    if (index != kNone) {
      ASAN_UNPOISON_MEMORY_REGION(slot(index), sizeof(Slot));
      free_head_ = slot(index)->next_free;
    } else {
      if (fresh_ >= limit_ || (fresh_ >= chunks_.size() * kPerChunk && !add_chunk())) return kNone;
      index = fresh_++;
    }
    ::new (static_cast<void*>(slot(index)->storage)) T;
    words_[index / 64] |= std::uint64_t{1} << (index % 64);
    ++count_;
    return index;
  }
  void destroy(std::uint32_t index) {
    assert(live(index));
    at(index).~T();
    words_[index / 64] &= ~(std::uint64_t{1} << (index % 64));
    slot(index)->next_free = free_head_;
    free_head_ = index;
    ASAN_POISON_MEMORY_REGION(slot(index), sizeof(Slot));  // who still uses it is found out at once
    --count_;
  }

  [[nodiscard]] T& at(std::uint32_t index) {
    return *std::launder(reinterpret_cast<T*>(slot(index)->storage));
  }
  [[nodiscard]] const T& at(std::uint32_t index) const { return const_cast<Slab*>(this)->at(index); }
  [[nodiscard]] bool live(std::uint32_t index) const {
    return index < fresh_ && (words_[index / 64] >> (index % 64) & 1) != 0;
  }
  [[nodiscard]] std::uint32_t size() const { return count_; }
  [[nodiscard]] std::uint32_t limit() const { return limit_; }
  [[nodiscard]] bool full() const { return count_ >= limit_; }

  // Calls visit(T&, index) for every object; visit may destroy the one it is given.
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (std::uint32_t w = 0; w * 64 < fresh_; ++w)
      for (std::uint64_t bits = words_[w]; bits != 0; bits &= bits - 1) {
        const std::uint32_t index = w * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
        visit(at(index), index);
      }
  }
  template <typename Visit>
  void for_each(Visit&& visit) const {
    const_cast<Slab*>(this)->for_each(
        [&visit](T& object, std::uint32_t index) { visit(static_cast<const T&>(object), index); });
  }

 private:
  // The union of an object and the free list's link; a destroyed object's bytes are left alone but for the
  // link.
  union Slot {
    Slot() {}   // NOLINT: chunks are allocated raw
    ~Slot() {}  // NOLINT
    std::uint32_t next_free;
    alignas(T) std::byte storage[sizeof(T)];
  };
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
  static constexpr std::uint32_t floor_power(std::size_t n) {
    std::uint32_t p = 1;
    while (std::size_t{p} * 2 <= n) p *= 2;
    return p;
  }
  static constexpr std::uint32_t kPerChunk = floor_power(kChunkBytes / sizeof(Slot));
  struct Free {
    void operator()(Slot* p) const {
      ASAN_UNPOISON_MEMORY_REGION(p, sizeof(Slot) * kPerChunk);
      std::free(p);
    }
  };

  [[nodiscard]] Slot* slot(std::uint32_t index) {
    return chunks_[index / kPerChunk].get() + index % kPerChunk;
  }
  bool add_chunk() {
    // Page-aligned and of a size that the allocator maps afresh: untouched pages cost nothing.
    void* memory = std::aligned_alloc(4096, (sizeof(Slot) * kPerChunk + 4095) / 4096 * 4096);
    if (memory == nullptr) return false;
    chunks_.emplace_back(static_cast<Slot*>(memory));
    return true;
  }

  std::vector<std::unique_ptr<Slot, Free>> chunks_;
  std::vector<std::uint64_t> words_;  // which indices live
  std::uint32_t free_head_ = kNone;
  std::uint32_t fresh_ = 0;  // indices from here on have never been used
  std::uint32_t count_ = 0;
  std::uint32_t limit_;
};

}  // namespace mtcp::stack

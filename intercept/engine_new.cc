// The engine's own operator new, libstdc++ (linked statically) included: see memory.hh. Not seen outside of the engine.
#include <cstdint>
#include <cstdlib>
#include <new>

#include "intercept/support/memory.hh"

// NOLINTBEGIN: these are the standard's signatures
void* operator new(std::size_t n) {
  if (void* p = std::malloc(n == 0 ? 1 : n)) [[likely]]
    return p;
  return mtcp::intercept::memory_of_last_resort(n);
}
void* operator new[](std::size_t n) { return operator new(n); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return std::malloc(n == 0 ? 1 : n); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return std::malloc(n == 0 ? 1 : n); }
void* operator new(std::size_t n, std::align_val_t to) {
  const auto alignment = static_cast<std::size_t>(to);
  const std::size_t size = (n + alignment - 1) / alignment * alignment;
  if (void* p = std::aligned_alloc(alignment, size)) [[likely]]
    return p;
  std::free(mtcp::intercept::memory_of_last_resort(size));  // the reserve is free now, in one piece
  if (void* p = std::aligned_alloc(alignment, size)) return p;
  return mtcp::intercept::memory_of_last_resort(SIZE_MAX);
}
void* operator new[](std::size_t n, std::align_val_t to) { return operator new(n, to); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
// NOLINTEND

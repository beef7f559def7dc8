#include "intercept/support/memory.hh"

#include <atomic>
#include <cstdlib>

#include "intercept/support/log.hh"

namespace mtcp::intercept {
namespace {

// Far more than any call needs; address space only, because nobody touches it. The process's, as its heap is.
constexpr std::size_t kReserve = std::size_t{1} << 20;
std::atomic<void*> reserve;

}  // namespace

bool memory_to_spare() {
  if (reserve.load(std::memory_order_relaxed) != nullptr) [[likely]]
    return true;
  void* fresh = std::malloc(kReserve);
  void* none = nullptr;
  if (fresh != nullptr && !reserve.compare_exchange_strong(none, fresh)) std::free(fresh);
  return fresh != nullptr;
}

bool memory_available(std::size_t bytes) {
  void* const volatile probe = std::malloc(bytes);  // volatile: clang takes a malloc() whose memory nobody uses for one that succeeds
  void* const got = probe;
  std::free(got);
  return got != nullptr;
}

void* memory_of_last_resort(std::size_t bytes) {
  std::free(reserve.exchange(nullptr));
  if (void* p = std::malloc(bytes)) return p;
  log(LogLevel::error, "out of memory: no %zu bytes for a call that has begun", bytes);
  std::abort();
}

}  // namespace mtcp::intercept

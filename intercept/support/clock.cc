#include "intercept/support/clock.hh"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include <atomic>
#include <cstdint>

#include "intercept/support/clock_line.hh"

namespace mtcp::intercept {
namespace {

// The line is read by every thread and drawn anew by whichever finds that its life is over: a sequence lock.
struct Shared {
  std::atomic<std::uint32_t> version{0};  // 0: there is none yet; odd: it is being written
  std::atomic<std::uint64_t> origin_tsc{0}, scale{0}, life{0};
  std::atomic<std::int64_t> origin_ns{0};
};
alignas(64) Shared shared;
ClockLine line;  // the whole of it, for who writes
std::atomic_flag drawing;
constexpr int kPatience = 1000;  // turns; who writes may have been interrupted, or left behind by a fork

std::int64_t monotonic_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

bool invariant_tsc() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1U << 8)) != 0;
}

// The closest pair of a few tries.
ClockPair read_pair() {
  ClockPair pair;
  std::uint64_t best = UINT64_MAX;
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t before = __rdtsc();
    const std::int64_t t = monotonic_ns();
    const std::uint64_t width = __rdtsc() - before;
    if (width >= best) continue;
    best = width;
    pair = {before + width / 2, t};
  }
  return pair;
}

// A sequence lock: the numbers are written between an odd version and an even one. No fences, which ThreadSanitizer does not know.
void publish(const ClockLine& l) {
  line = l;
  const std::uint32_t version = shared.version.load(std::memory_order_relaxed) | 1U;
  shared.version.store(version, std::memory_order_relaxed);
  // Not before the odd version: each is a release.
  shared.origin_tsc.store(l.origin.tsc, std::memory_order_release);
  shared.origin_ns.store(l.origin.ns, std::memory_order_release);
  shared.scale.store(l.scale, std::memory_order_release);
  shared.life.store(l.life, std::memory_order_release);
  shared.version.store(version + 1 != 0 ? version + 1 : 2, std::memory_order_release);
}

bool read_line(std::uint64_t& cycles, std::uint64_t& life, std::uint64_t& scale, std::int64_t& ns) {
  const std::uint32_t version = shared.version.load(std::memory_order_acquire);
  // Before the second look at the version: each is an acquire.
  ns = shared.origin_ns.load(std::memory_order_acquire);
  scale = shared.scale.load(std::memory_order_acquire);
  life = shared.life.load(std::memory_order_acquire);
  cycles = __rdtsc() - shared.origin_tsc.load(std::memory_order_acquire);
  return version % 2 == 0 && version == shared.version.load(std::memory_order_relaxed);
}

// The line's life is over, or another thread is just writing one, or there is none.
[[gnu::noinline]] stack::Time slow_now() {
  for (int i = 0; i < kPatience; ++i) {
    if (shared.version.load(std::memory_order_acquire) == 0) break;
    std::uint64_t cycles = 0, life = 0, scale = 0;
    std::int64_t ns = 0;
    if (read_line(cycles, life, scale, ns)) {
      // Another processor's TSC may be a little behind.
      if (static_cast<std::int64_t>(cycles) < 0 && static_cast<std::int64_t>(cycles) > -1'000'000) cycles = 0;
      if (cycles <= life) return stack::Time(stack::Duration(ns + ClockLine::ns_of(cycles, scale)));
      if (!drawing.test_and_set(std::memory_order_acquire)) {
        publish(line.next(read_pair()));
        drawing.clear(std::memory_order_release);
        continue;
      }
    }
    _mm_pause();
  }
  return stack::Time(stack::Duration(monotonic_ns()));
}

}  // namespace

void clock_start() {
  if (!invariant_tsc()) return;
  if (shared.version.load(std::memory_order_acquire) != 0) {
    // In the child of a fork another thread of the parent may have been at it: nobody will ever finish that.
    for (int i = 0; i < kPatience && drawing.test(std::memory_order_relaxed); ++i) _mm_pause();
    if (!drawing.test(std::memory_order_relaxed)) return;
  }
  const ClockPair a = read_pair();
  while (monotonic_ns() - a.ns < 2'000'000) {
  }
  const ClockLine first = ClockLine::first(a, read_pair());
  if (first.scale == 0) return;
  publish(first);
  drawing.clear(std::memory_order_release);
}

stack::Time now() {
  std::uint64_t cycles = 0, life = 0, scale = 0;
  std::int64_t ns = 0;
  if (!read_line(cycles, life, scale, ns) || cycles > life) [[unlikely]] return slow_now();
  return stack::Time(stack::Duration(ns + ClockLine::ns_of(cycles, scale)));
}

}  // namespace mtcp::intercept

#include "intercept/clock.hh"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include <atomic>
#include <cstdint>

namespace mtcp::intercept {
namespace {

// ns = origin_ns + ((tsc - origin_tsc) * scale >> 32). Written once, before `ready`.
struct Calibration {
  std::uint64_t origin_tsc = 0;
  std::int64_t origin_ns = 0;
  std::uint64_t scale = 0;
};
Calibration calibration;
std::atomic<bool> ready{false};

std::int64_t monotonic_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

bool invariant_tsc() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1U << 8)) != 0;
}

// The TSC and the kernel's clock at one moment: the closest pair of a few tries.
void read_pair(std::uint64_t& tsc, std::int64_t& ns) {
  std::uint64_t best = UINT64_MAX;
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t before = __rdtsc();
    const std::int64_t t = monotonic_ns();
    const std::uint64_t width = __rdtsc() - before;
    if (width >= best) continue;
    best = width;
    tsc = before + width / 2;
    ns = t;
  }
}

}  // namespace

void clock_start() {
  if (ready.load(std::memory_order_acquire) || !invariant_tsc()) return;
  std::uint64_t tsc0 = 0, tsc1 = 0;
  std::int64_t ns0 = 0, ns1 = 0;
  read_pair(tsc0, ns0);
  while (monotonic_ns() - ns0 < 2'000'000) {
  }
  read_pair(tsc1, ns1);
  if (tsc1 <= tsc0 || ns1 <= ns0) return;
  __extension__ using U128 = unsigned __int128;
  calibration.scale = static_cast<std::uint64_t>((static_cast<U128>(ns1 - ns0) << 32) / (tsc1 - tsc0));
  calibration.origin_tsc = tsc1;
  calibration.origin_ns = ns1;
  ready.store(true, std::memory_order_release);
}

stack::Time now() {
  if (!ready.load(std::memory_order_acquire)) return stack::Time(stack::Duration(monotonic_ns()));
  __extension__ using U128 = unsigned __int128;
  const std::uint64_t cycles = __rdtsc() - calibration.origin_tsc;
  const auto ns = static_cast<std::int64_t>(
      static_cast<std::uint64_t>(static_cast<U128>(cycles) * calibration.scale >> 32));
  return stack::Time(stack::Duration(calibration.origin_ns + ns));
}

}  // namespace mtcp::intercept

// Counters of one stack. Written by whoever holds the stack's lock, read by anybody at any time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/probes.hh"

namespace mtcp::stack {

enum class Counter : std::uint16_t {
#define COUNTER(name, severity, text) name,
#include "stack/stats.def"
#undef COUNTER
  count_
};

enum class Severity : std::uint8_t { info, drop, error };

struct CounterInfo {
  const char* name;
  Severity severity;
  const char* text;
};

// Of the counters that are dropped packets: their names; of the others null.
inline constexpr const char* kDropNames[] = {
#define COUNTER(name, severity, text) Severity::severity == Severity::drop ? #name : nullptr,
#include "stack/stats.def"
#undef COUNTER
};

class Stats {
 public:
  void add(Counter c, std::uint64_t n = 1) {
    // Relaxed store, not fetch_add: there is one writer at a time.
    auto& v = values_[static_cast<std::size_t>(c)];
    __atomic_store_n(&v, v + n, __ATOMIC_RELAXED);
    // Decided by the compiler wherever the counter is a constant.
    if (const char* reason = kDropNames[static_cast<std::size_t>(c)]; reason != nullptr) probe::drop(reason);
  }
  [[nodiscard]] std::uint64_t get(Counter c) const {
    return __atomic_load_n(&values_[static_cast<std::size_t>(c)], __ATOMIC_RELAXED);
  }
  [[nodiscard]] static const CounterInfo& info(Counter c);

 private:
  std::uint64_t values_[static_cast<std::size_t>(Counter::count_)] = {};
};

}  // namespace mtcp::stack

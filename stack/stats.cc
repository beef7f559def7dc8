#include "stack/stats.hh"

namespace mtcp::stack {

const CounterInfo& Stats::info(Counter c) {
  static constexpr CounterInfo table[] = {
#define COUNTER(name, severity, text) {#name, Severity::severity, text},
#include "stack/stats.def"
#undef COUNTER
  };
  return table[static_cast<std::size_t>(c)];
}

}  // namespace mtcp::stack

// What instructions are counted of, for perf/instructions.json. All of it on a virtual clock and with fixed keys: the same
// instructions in every run.
#pragma once

#include <cstdint>
#include <span>

namespace mtcp::perf {

struct Scenario {
  const char* name;
  const char* what;  // is done once for each of the operations
  std::uint64_t (*run)();  // returns how many were counted; 0: it failed
};

[[nodiscard]] std::span<const Scenario> stack_scenarios();   // two stacks on a wire of memory
[[nodiscard]] std::span<const Scenario> packet_scenarios();  // single packets
[[nodiscard]] std::span<const Scenario> part_scenarios();    // parts of the stack
[[nodiscard]] std::span<const Scenario> socket_scenarios();  // the socket layer on the loopback wire

}  // namespace mtcp::perf

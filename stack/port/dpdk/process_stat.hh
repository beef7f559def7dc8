// What /proc says of a process (proc(5)).
#pragma once

#include <cstdint>
#include <optional>

namespace mtcp::stack::dpdk {

struct ProcessStat {
  char state;           // 'Z' and 'X': it is dead
  std::uint64_t start;  // in clock ticks since the machine was started: with it, a number that is used again is another process
};

// Nothing without such a process, or without a /proc that shows it.
[[nodiscard]] std::optional<ProcessStat> read_stat(std::uint32_t pid);
// Of this process, also where /proc is that of another PID namespace.
[[nodiscard]] std::optional<ProcessStat> read_own_stat();

}  // namespace mtcp::stack::dpdk

// How many CPUs the program may run on.
#pragma once

#include <sched.h>
#include <unistd.h>

#include <cstdint>

namespace mtcp::intercept {

// Those of the first thread: the calling one may have chosen its own by now.
[[nodiscard]] inline std::uint32_t program_cpus() {
  cpu_set_t set;
  return sched_getaffinity(::getpid(), sizeof set, &set) == 0 ? static_cast<std::uint32_t>(CPU_COUNT(&set)) : 1;
}

}  // namespace mtcp::intercept

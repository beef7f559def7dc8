// Which of a program's processes this one is: what {worker} in the port string of a private device stands
// for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "intercept/kernel.hh"

namespace mtcp::intercept {

inline constexpr std::string_view kWorkerPlaceholder = "{worker}";

// `port` with every {worker} replaced by `number`.
std::string with_worker_number(std::string port, std::uint32_t number);

// A number is held by a lock on a file in the user's own directory (own_directory.hh): so it needs no memory in common, works
// for processes that are no kin, nobody else can take it, and it is free again as soon as its owner is gone, however it
// went. It counts within the network namespace, as memif's own abstract sockets do, and among the processes of a user.
struct WorkerNumber {
  int fd = -1;  // holds the lock; close-on-exec. Whoever claims it moves it to a high number and closes it
                // after a fork
  std::uint32_t number = 0;
  [[nodiscard]] bool held() const { return fd >= 0; }

  // The lowest number below `count` that no living process has for this port string. 0, -EBUSY if all are
  // taken, or -errno of the kernel.
  int claim(Kernel& kernel, const std::string& port, std::uint32_t count);
};

}  // namespace mtcp::intercept

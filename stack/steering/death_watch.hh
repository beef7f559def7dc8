// Tells a stack of the deaths of other processes, so that it need not look for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mtcp::stack {

class DeathWatch {
 public:
  static constexpr std::size_t kMost = 2;  // processes that one stack watches
  virtual ~DeathWatch() = default;
  // These from now on (SharedDevice::self), at most kMost. False if it can't: then it watches nobody, and is not asked again.
  virtual bool watch(std::span<const std::uint64_t> processes) = 0;
  // Readable once a process that is watched has died.
  [[nodiscard]] virtual std::span<const int> descriptors() const = 0;
  // One of them has died; also one that had before it was watched.
  [[nodiscard]] virtual bool told() const = 0;
};

}  // namespace mtcp::stack

// How long a process that ends waits for its peers. A kernel would go on sending after its end; a stack ends with it.
#pragma once

#include "stack/base/time.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

// To be asked after each poll, from the moment on when the application has let go of all that it had.
class Delivery {
 public:
  // `device`: the worker's.
  Delivery(const Worker& worker, const Attachment& device, Duration at_most, Time now);
  // All have everything, or nobody is left for whom a longer wait is likely to do anything: who has not answered what was sent
  // again several times, nor said within some seconds that he reads slowly, or, while the link is down, anybody.
  [[nodiscard]] bool is_over(Time now);
  // When that may change though nothing comes.
  [[nodiscard]] Time until() const { return until_; }

 private:
  const Worker& worker_;
  const Attachment device_;
  const Duration patience_;
  const Time end_;
  std::uint64_t least_ = UINT64_MAX;  // of what was still to be delivered, so far
  Time until_;
};

}  // namespace mtcp::stack

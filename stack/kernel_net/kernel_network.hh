// The kernel's networking as a stack follows it whose configuration says address = "kernel": addresses, routes and neighbours
// of an interface are the kernel's, and it is the kernel that asks neighbours for their MAC addresses.
#pragma once

#include "stack/base/time.hh"
#include "stack/kernel_net/view.hh"

namespace mtcp::stack {

class KernelNetwork {
 public:
  virtual ~KernelNetwork() = default;
  // Takes up what has changed. Costs nothing to speak of while nothing has: may be called every millisecond.
  virtual void update(Time now) = 0;
  [[nodiscard]] virtual const KernelView& view() const = 0;
  [[nodiscard]] virtual KernelNeighbour neighbour(const IpAddress& a) const = 0;
  // Neighbours of which something else is known than before, one at a time.
  virtual bool next_change(KernelNeighbour& out) = 0;
  // The neighbour is being used: the kernel asks for its MAC address, or whether it is still there, as it sees fit. What
  // comes of it is a change.
  virtual void use(const IpAddress& neighbour, Time now) = 0;
};

}  // namespace mtcp::stack

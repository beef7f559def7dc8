// Starts DPDK's environment, once per process.
#pragma once

#include <cstddef>
#include <string>

namespace mtcp::stack::dpdk {

struct EalConfig {
  std::size_t memory = 0;  // bytes that pools and rings will take
  int hugepages = -1;      // -1 automatic, 0 off, 1 required
  std::string pci;         // address of the one PCI device to bind, or empty
};

// False and `message` if it cannot be started (or cannot be enlarged: memory is reserved by the first call).
// Keeps the affinity of the calling thread.
bool start_eal(const EalConfig& config, std::string& message);
[[nodiscard]] bool uses_huge_pages();

// DPDK keeps per-thread state by a small number. Threads that call in on behalf of one queue use the queue's (they
// hold its stack's lock): two users of one number at a time would corrupt a cache of a driver's.
void set_thread_number(unsigned number);

}  // namespace mtcp::stack::dpdk

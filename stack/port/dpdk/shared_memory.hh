// Memory that the processes which share a device map: those that are forked later have it, and it can be passed to others.
#pragma once

#include <cstddef>
#include <span>

namespace mtcp::stack::dpdk {

// A descriptor of so many zeroed bytes, or -1.
[[nodiscard]] int create_shared_memory(const char* name, std::size_t bytes);
// From `offset` on, a multiple of the page size. Empty if the descriptor has less, or there is no address space.
[[nodiscard]] std::span<std::byte> map_shared_memory(int fd, std::size_t offset, std::size_t bytes);

}  // namespace mtcp::stack::dpdk

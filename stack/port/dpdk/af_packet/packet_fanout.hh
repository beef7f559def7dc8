// The packet sockets of an interface as a group in which each frame comes on the socket of the stack that it belongs to: a
// program in the kernel reads the steering table (fanout.bpf.c). A stack that has no socket adds one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/steering/flow_hash.hh"

struct mtcp_fanout;

namespace mtcp::stack::dpdk {

class PacketFanout {
 public:
  // Null, and errno, if the kernel does not let this process have such a program.
  static std::unique_ptr<PacketFanout> create();
  // The same in a process that was forked before: `map` is what descriptor() is there, and stays the caller's. Null without memory.
  static std::unique_ptr<PacketFanout> adopt(int map);
  ~PacketFanout();
  PacketFanout(const PacketFanout&) = delete;
  PacketFanout& operator=(const PacketFanout&) = delete;

  [[nodiscard]] int descriptor() const { return map_; }
  // What the first socket of the group is given (PACKET_FANOUT_DATA); -1 once it has been.
  [[nodiscard]] int program() const { return program_; }
  void close_program();
  // `hash` and `entries`: the steering table's; `queues`: how many sockets are in the group.
  void begin(const FlowHash& hash, std::uint32_t entries, std::uint32_t queues);

  // --- any process of the device, at any time
  // Of the `sockets` those that are in the group, the first ones. Whoever has the map may have written anything there.
  [[nodiscard]] std::uint32_t queues(std::size_t sockets) const;
  // The next of `rings` gets its ring and joins the group. False if there is none, or the kernel refuses.
  bool add(std::span<const PacketRing> rings);
  // From now on the frames of entry i come on queue queues[i].
  void direct(std::span<const std::uint8_t> queues);
  // SharedDevice's.
  void point_flow(std::uint32_t hash, std::uint32_t queue);
  void unpoint_flow(std::uint32_t hash, std::uint32_t queue);
  // No flow is pointed to `queue` any more: it has a new owner.
  void forget_flows(std::uint32_t queue);

 private:
  PacketFanout(int map, bool owner) : map_(map), owner_(owner) {}
  bool map_memory();
  int map_, program_ = -1;
  bool owner_;
  mtcp_fanout* state_ = nullptr;
};

// Packet sockets on no interface so far, for PacketFanout::add(); as many as can be had of `n`. `like`: of the same group, whose
// rings have more slots, or as many as `slots` and what fills the last block.
[[nodiscard]] std::vector<PacketRing> open_spare_rings(const PacketRing& like, std::uint32_t slots, std::size_t n);

// The memory of a socket's ring in this process, mapped at the first call. Null if it can't be. The kernel would copy the entries for
// its thousands of pages at each fork, so children do not have it, and who polls the ring maps it for itself.
std::byte* map_ring(PacketRing& ring);
void unmap_ring(PacketRing& ring);

}  // namespace mtcp::stack::dpdk

// What steering needs of a device that several stacks share: stack/port/dpdk implements it, and the simulation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "stack/port/port.hh"
#include "stack/steering/control_block.hh"
#include "stack/steering/death_watch.hh"

namespace mtcp::stack {

class SharedDevice {
 public:
  virtual ~SharedDevice() = default;

  // The same memory in every process that shares the device.
  [[nodiscard]] virtual ControlBlock& control() = 0;
  // Which process this is; never 0, and never the same again after its death.
  [[nodiscard]] virtual std::uint64_t self() const = 0;
  [[nodiscard]] virtual bool alive(std::uint64_t process) const = 0;
  // For a stack of the calling process. Null if it has to ask alive().
  [[nodiscard]] virtual std::unique_ptr<DeathWatch> watch_deaths() { return nullptr; }

  // Which program the calling process belongs to: the same in all that it forks. Connections that nobody has accepted stay in theirs.
  [[nodiscard]] virtual std::uint64_t program() const { return 0; }

  // How many stacks can run at a time.
  [[nodiscard]] virtual std::uint32_t cpus() const { return kMaxStacks; }

  [[nodiscard]] virtual std::uint32_t queues() const = 0;
  // Makes one more, for a stack that would have none. False if that can't be.
  virtual bool add_queue() { return false; }
  // Queue `queue` for stack number `stack` of the calling process, which receives into pool(stack). Null while
  // a living process has it. Destroying the port gives the queue back, with what it holds.
  virtual std::unique_ptr<Port> claim_queue(std::uint32_t queue, std::uint32_t stack) = 0;
  // From now on packets whose hash falls on entry i of the control block's table are to come on queue queues[i]; there is one
  // caller at a time, in all processes. False if the device can't do that: then it is not asked again.
  virtual bool redirect(std::span<const std::uint8_t> /*queues*/) { return false; }
  // From now on packets of flows with this hash are to come on `queue`, whatever the table says. A device that can't does nothing,
  // and two flows with hashes of which it sees no difference share what was said last.
  virtual void point_flow(std::uint32_t /*hash*/, std::uint32_t /*queue*/) {}
  // As the table says again, unless another stack has pointed them elsewhere in the meantime.
  virtual void unpoint_flow(std::uint32_t /*hash*/, std::uint32_t /*queue*/) {}
  // Connections to this local port wait on the control block for a stack that will have their listener: their segments are still to come
  // to the stacks, though none has the port. Or (not `on`) no more do. Only a device that the stacks share with somebody else needs it.
  virtual void keep_port(std::uint16_t /*port*/, bool /*on*/) {}
  // The packets of stack `stack`, which the calling process has just joined as: all of them are free. Null without
  // memory.
  virtual PacketPool* pool(std::uint32_t stack) = 0;

  // Becomes readable with wake(stack), from any process, until that stack calls clear_wake(stack).
  [[nodiscard]] virtual int wake_descriptor(std::uint32_t stack) const = 0;
  virtual void wake(std::uint32_t stack) = 0;
  virtual void clear_wake(std::uint32_t stack) = 0;

  [[nodiscard]] virtual MacAddress mac() const = 0;
  [[nodiscard]] virtual std::uint32_t mtu() const = 0;  // IP packet size, bytes
  [[nodiscard]] virtual bool tx_checksum_offload() const = 0;
};

}  // namespace mtcp::stack

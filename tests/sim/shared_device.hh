// A device of the simulated wire that several stacks share, each in a "process" that lives until it is killed or
// leaves. Frames are spread over the queues by flow, but not as steering does it: so nearly all need to be passed on.
// Unless it is a card whose table follows steering's.
#pragma once

#include <deque>
#include <set>

#include "stack/steering/steering_port.hh"
#include "tests/sim/wire.hh"

namespace mtcp::sim {

class SimSharedDevice final : public SharedDevice {
 public:
  SimSharedDevice(Wire& wire, std::uint8_t number, std::uint32_t queues, std::uint32_t slots, std::uint64_t seed);
  ~SimSharedDevice() override;

  ControlBlock& control() override { return control_; }
  [[nodiscard]] std::uint64_t self() const override { return process; }
  [[nodiscard]] bool alive(std::uint64_t p) const override { return !dead.contains(p); }
  [[nodiscard]] std::uint32_t queues() const override { return static_cast<std::uint32_t>(queues_.size()); }
  std::unique_ptr<Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override;
  PacketPool* pool(std::uint32_t stack) override;
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const override { return static_cast<int>(stack); }
  void wake(std::uint32_t) override {}
  void clear_wake(std::uint32_t) override {}
  [[nodiscard]] MacAddress mac() const override { return mac_; }
  [[nodiscard]] std::uint32_t mtu() const override { return 1500; }
  [[nodiscard]] bool tx_checksum_offload() const override { return false; }

  // Something waits for a stack that lives: it is to have a turn.
  [[nodiscard]] bool busy() const;
  // The packets that stack `stack` received into last.
  [[nodiscard]] HeapPool& pool_of(std::uint32_t stack) { return *pools_[stack]; }
  // The stack's process is killed: what its port has in hand ends with its memory.
  void lose_pool(std::uint32_t stack);

  bool redirect(std::span<const std::uint8_t> queues) override;

  // From now on it is a card with a table: it spreads by our hash, to the queues that it is told.
  void become_card(bool on = true) { is_card_ = on; }
  [[nodiscard]] std::uint64_t times_redirected() const { return times_redirected_; }
  [[nodiscard]] std::uint32_t queue_for(std::span<const std::byte> frame) const;

  [[nodiscard]] std::uint64_t program() const override { return next_program; }
  void keep_port(std::uint16_t port, bool on) override { on ? (void)kept.insert(port) : (void)kept.erase(port); }

  std::uint64_t next_program = 0;  // of who joins
  std::uint64_t process = 0;  // who joins, leaves or ends just now
  std::set<std::uint64_t> dead;
  std::set<std::uint16_t> kept;  // as keep_port() said

 private:
  friend class SimQueue;
  struct Queue {
    std::deque<Wire::Frame> waiting;
    std::uint64_t owner = 0;
  };
  void spread();  // what has arrived, over the queues

  Wire& wire_;
  std::size_t number_;
  MacAddress mac_;
  std::vector<Queue> queues_;
  std::vector<std::unique_ptr<HeapPool>> pools_;  // by stack: a process brings a new one
  bool is_card_ = false;
  std::vector<std::uint8_t> table_;
  std::uint64_t times_redirected_ = 0;
  const ControlBlock::Shape shape_;
  std::byte* memory_;
  ControlBlock control_;
  FlowHash hash_;
};

}  // namespace mtcp::sim

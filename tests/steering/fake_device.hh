// A device with queues of frames in memory, and "processes" that are numbers which live until they are killed.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/steering/shared_device.hh"
#include "stack/steering/steering_port.hh"

namespace mtcp::test {

using namespace mtcp::stack;
using Frame = std::vector<std::byte>;

struct FakeDevice;

struct FakeWatch : DeathWatch {
  explicit FakeWatch(FakeDevice& d) : device(d) {}
  bool watch(std::span<const std::uint64_t> processes) override;
  [[nodiscard]] std::span<const int> descriptors() const override { return {&descriptor, watched.empty() ? 0U : 1U}; }
  [[nodiscard]] bool told() const override;
  FakeDevice& device;
  std::vector<std::uint64_t> watched;
  int descriptor = 300;
};

struct FakeDevice : SharedDevice {
  explicit FakeDevice(std::uint32_t queue_count = 1, std::uint32_t slots = 16, std::uint32_t entries = 128);
  ~FakeDevice() override;

  ControlBlock& control() override { return control_; }
  [[nodiscard]] std::uint64_t self() const override { return process; }
  [[nodiscard]] bool alive(std::uint64_t p) const override {
    ++questions;
    return !dead.contains(p) || hidden.contains(p);
  }
  std::unique_ptr<DeathWatch> watch_deaths() override {
    return tells_of_deaths ? std::make_unique<FakeWatch>(*this) : nullptr;
  }
  [[nodiscard]] std::uint32_t queues() const override { return static_cast<std::uint32_t>(waiting.size()); }
  std::unique_ptr<Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override;
  PacketPool* pool(std::uint32_t stack) override { return &pools[stack]; }
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const override { return 100 + static_cast<int>(stack); }
  void wake(std::uint32_t stack) override {
    awake.insert(stack);
    ++wakes;
  }
  void clear_wake(std::uint32_t stack) override { awake.erase(stack); }
  [[nodiscard]] MacAddress mac() const override { return {{2, 0, 0, 0, 0, 1}}; }
  [[nodiscard]] std::uint32_t mtu() const override { return 1500; }
  [[nodiscard]] bool tx_checksum_offload() const override { return false; }

  bool redirect(std::span<const std::uint8_t> queues) override {
    if (is_card) table.assign(queues.begin(), queues.end());
    return is_card;
  }

  // As process `p`: joins, or does something.
  std::unique_ptr<SteeringPort> join(std::uint64_t p);
  // kill -9: the port's memory is gone without a word, its packets with it.
  void kill(std::unique_ptr<SteeringPort> port, std::uint64_t p);

  std::uint64_t process = 1;
  std::set<std::uint64_t> dead;
  std::set<std::uint64_t> hidden;             // of the dead: nobody sees it
  mutable std::uint64_t questions = 0;        // whether a process lives
  bool tells_of_deaths = false;
  std::size_t watchable = 100;                // processes, in all
  std::set<std::uint32_t> awake;
  int wakes = 0;
  std::vector<std::deque<Frame>> waiting;     // received, by queue
  std::vector<std::uint64_t> queue_owner;     // by queue; 0: nobody
  std::vector<Frame> sent;
  bool is_card = false;                       // it takes a table
  std::vector<std::uint8_t> table;            // queues; empty: not told
  std::deque<std::uint32_t> hashes;           // what it says of the next frames that are received
  std::deque<HeapPool> pools;

 private:
  const ControlBlock::Shape shape_;
  std::byte* const memory_;
  ControlBlock control_;
  std::vector<SteeringPort*> killed_;
};

// A TCP frame from 10.0.0.`host`:`port` to 10.0.0.1:80.
Frame tcp_frame(std::uint8_t host, std::uint16_t port);
// The key of that flow, seen from 10.0.0.1.
FlowKey flow(std::uint8_t host, std::uint16_t port);

}  // namespace mtcp::test

// A port of a wire in memory: what it is asked besides frames has the plainest answer. For tests and benchmarks.
#pragma once

#include "stack/port/port.hh"

namespace mtcp::test {

class BarePort : public stack::Port {
 public:
  // `pool` outlives it.
  explicit BarePort(stack::PacketPool& pool) : pool_(pool) {}

  std::size_t rx(stack::Packet** /*out*/, std::size_t /*max*/) override { return 0; }
  [[nodiscard]] bool busy(const stack::Packet& /*p*/) const override { return false; }
  [[nodiscard]] TxState tx_state() const override { return {}; }
  void service(stack::Time /*now*/) override {}
  bool arm() override { return true; }
  void disarm() override {}
  [[nodiscard]] std::span<const int> pollable() const override { return {}; }
  [[nodiscard]] stack::Duration max_sleep() const override { return stack::Duration::max(); }
  [[nodiscard]] Link link() const override { return {true}; }
  [[nodiscard]] stack::MacAddress mac() const override { return {{2, 0, 0, 0, 0, 1}}; }
  [[nodiscard]] std::uint32_t mtu() const override { return 1500; }
  [[nodiscard]] bool tx_checksum_offload() const override { return false; }
  [[nodiscard]] stack::PacketPool& pool() override { return pool_; }
  [[nodiscard]] std::size_t packets_held() const override { return 0; }
  [[nodiscard]] Status status() const override { return {.packets_free = pool_.available()}; }
  Notice notice() override { return {}; }

 protected:
  stack::PacketPool& pool_;
};

}  // namespace mtcp::test

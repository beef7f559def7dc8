// A queue pair of any DPDK device.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>

#include "stack/port/dpdk/device_state.hh"
#include "stack/port/dpdk/pool.hh"
#include "stack/port/port.hh"

struct rte_mbuf;

namespace mtcp::stack::dpdk {

class EthdevPort : public Port {
 public:
  // `index` has been claimed for this process; the destructor releases it. `pool` is this queue's. Both
  // outlive the port.
  EthdevPort(DeviceState& state, std::uint16_t index, MbufPool& pool);
  ~EthdevPort() override;
  EthdevPort(const EthdevPort&) = delete;
  EthdevPort& operator=(const EthdevPort&) = delete;

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] bool busy(const Packet& p) const override;
  [[nodiscard]] bool takes_any_pool() const override { return false; }
  [[nodiscard]] TxState tx_state() const override { return {}; }
  void service(Time now) override;
  // A device that tells nothing: sleep for a moment only.
  bool arm() override { return true; }
  void disarm() override {}
  [[nodiscard]] std::span<const int> pollable() const override { return {}; }
  [[nodiscard]] Duration max_sleep() const override { return milliseconds(1); }
  [[nodiscard]] Link link() const override { return {link_up_}; }
  [[nodiscard]] MacAddress mac() const override { return state_.mac; }
  [[nodiscard]] std::uint32_t mtu() const override { return state_.mtu; }
  [[nodiscard]] bool tx_checksum_offload() const override { return state_.tx_checksum; }
  [[nodiscard]] PacketPool& pool() override { return pool_; }
  [[nodiscard]] std::size_t packets_held() const override { return state_.ring_packets; }
  [[nodiscard]] Status status() const override {
    return {.rx_dropped = dropped_, .packets_free = pool_.available()};
  }
  Notice notice() override { return {}; }

 protected:
  static constexpr std::size_t kBurst = 64;

  // Once a millisecond at most.
  virtual void control(Time now);
  void update_link();
  // False in a child that was forked after the claim: then the packets are not this process's.
  [[nodiscard]] bool in_owner() const;

  DeviceState& state_;
  const std::uint16_t index_;
  MbufPool& pool_;
  const unsigned number_;
  bool link_up_ = false;
  std::uint64_t dropped_ = 0;

 private:
  // The mbuf's data as the packet's; false if it cannot be one (then it has been freed).
  bool import(rte_mbuf* m);
  static bool gather(rte_mbuf* m);
  static void request_checksum(rte_mbuf* m, Packet* p);

  const pid_t owner_;
  Time next_control_{};
  Time next_link_{};
};

}  // namespace mtcp::stack::dpdk

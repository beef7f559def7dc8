// Shared-memory ports between two processes. What the driver leaves to its user is added here: it reconnects,
// and it sleeps.
#pragma once

#include <span>
#include <string>

#include "stack/port/device.hh"
#include "stack/port/dpdk/ethdev_port.hh"
#include "stack/port/dpdk/memif/memif_ring.hh"

namespace mtcp::stack::dpdk {

// The device string with what the user left out: ring and buffer size, and a hardware address that stays the
// same when the process is started again.
std::string memif_arguments(const DeviceConfig& config);
// False if the buffers that the user wants hold no packet of the MTU: what does not fit is dropped.
bool memif_check(const DeviceConfig& config, std::string& message);
// Why the driver may have refused, to follow its own words; empty if nothing is known.
std::string memif_hint(const DeviceConfig& config);

class MemifPort final : public EthdevPort {
 public:
  using EthdevPort::EthdevPort;

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  // What we copy ourselves the driver never holds.
  [[nodiscard]] bool busy(const Packet& /*p*/) const override { return false; }
  [[nodiscard]] TxState tx_state() const override { return {.delivered = !sender_.attached() || sender_.empty()}; }
  [[nodiscard]] bool takes_any_pool() const override { return true; }
  [[nodiscard]] std::size_t tx_burst() const override { return 8; }
  void service(Time now) override;
  bool arm() override;
  void disarm() override;
  [[nodiscard]] std::span<const int> pollable() const override {
    return {&descriptor_, descriptor_ >= 0 ? 1u : 0u};
  }
  [[nodiscard]] Duration max_sleep() const override;
  Notice notice() override;
  [[nodiscard]] Link link() const override { return {link_up_, peers_ended_}; }

 private:
  std::size_t send(Packet* const* packets, std::size_t n);
  void control(Time now) override;
  void look();
  bool connected();
  void disconnected();
  void restart();
  void complain(Time now);

  int descriptor_ = -1;
  Time next_attempt_{};
  bool armed_ = false;
  // While connected; null otherwise.
  MemifRing* rx_ring_ = nullptr;
  MemifRing* tx_ring_ = nullptr;
  int rx_event_ = -1;
  int tx_event_ = -1;
  std::uint32_t peers_ended_ = 0;
  bool is_between_peers_ = false;  // one has ended, and service() has not been called since then
  MemifSender sender_;
  MemifReceiver receiver_;

  std::string notice_, refusal_;  // to be told; of the guard, told
  Time down_since_{};
  bool complained_ = false;
};

}  // namespace mtcp::stack::dpdk

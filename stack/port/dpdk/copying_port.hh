// A queue whose packets are not the stack's: it came from another stack, or will go to one. Its pool belongs
// to the queue, because the device holds packets of it all the time; what goes in and out is copied.
#pragma once

#include <memory>

#include "stack/port/port.hh"

namespace mtcp::stack::dpdk {

class CopyingPort final : public Port {
 public:
  // `pool`: the stack's, which outlives the port.
  CopyingPort(std::unique_ptr<Port> queue, PacketPool& pool) : queue_(std::move(queue)), pool_(pool) {}

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] bool busy(const Packet&) const override { return false; }
  [[nodiscard]] TxState tx_state() const override { return queue_->tx_state(); }
  void service(Time now) override { queue_->service(now); }
  bool arm() override { return queue_->arm(); }
  void disarm() override { queue_->disarm(); }
  [[nodiscard]] std::span<const int> pollable() const override { return queue_->pollable(); }
  [[nodiscard]] Duration max_sleep() const override { return queue_->max_sleep(); }
  [[nodiscard]] Link link() const override { return queue_->link(); }
  [[nodiscard]] MacAddress mac() const override { return queue_->mac(); }
  [[nodiscard]] std::uint32_t mtu() const override { return queue_->mtu(); }
  [[nodiscard]] bool tx_checksum_offload() const override { return queue_->tx_checksum_offload(); }
  [[nodiscard]] PacketPool& pool() override { return pool_; }
  [[nodiscard]] std::size_t packets_held() const override { return 0; }  // none of pool()'s
  [[nodiscard]] Status status() const override {
    Status s = queue_->status();
    s.rx_dropped += dropped_;
    return s;
  }
  Notice notice() override { return queue_->notice(); }

 private:
  static constexpr std::size_t kBurst = 64;

  std::unique_ptr<Port> queue_;
  PacketPool& pool_;
  std::uint64_t dropped_ = 0;
};

}  // namespace mtcp::stack::dpdk

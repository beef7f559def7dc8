// A port that is another one, but for what a derived class changes.
#pragma once

#include <memory>
#include <utility>

#include "stack/port/port.hh"

namespace mtcp::stack {

class ForwardingPort : public Port {
 public:
  explicit ForwardingPort(std::unique_ptr<Port> inner) : inner_(std::move(inner)) {}

  std::size_t rx(Packet** out, std::size_t max) override { return inner_->rx(out, max); }
  std::size_t tx(Packet* const* packets, std::size_t n) override { return inner_->tx(packets, n); }
  [[nodiscard]] bool busy(const Packet& p) const override { return inner_->busy(p); }
  [[nodiscard]] TxState tx_state() const override { return inner_->tx_state(); }
  void service(Time now) override { inner_->service(now); }
  bool arm() override { return inner_->arm(); }
  void disarm() override { inner_->disarm(); }
  [[nodiscard]] std::span<const int> pollable() const override { return inner_->pollable(); }
  [[nodiscard]] Duration max_sleep() const override { return inner_->max_sleep(); }
  [[nodiscard]] Link link() const override { return inner_->link(); }
  [[nodiscard]] MacAddress mac() const override { return inner_->mac(); }
  [[nodiscard]] std::uint32_t mtu() const override { return inner_->mtu(); }
  [[nodiscard]] bool tx_checksum_offload() const override { return inner_->tx_checksum_offload(); }
  [[nodiscard]] PacketPool& pool() override { return inner_->pool(); }
  [[nodiscard]] bool takes_external() const override { return inner_->takes_external(); }
  [[nodiscard]] bool takes_any_pool() const override { return inner_->takes_any_pool(); }
  [[nodiscard]] std::size_t tx_burst() const override { return inner_->tx_burst(); }
  [[nodiscard]] std::size_t packets_held() const override { return inner_->packets_held(); }
  [[nodiscard]] Status status() const override { return inner_->status(); }
  Notice notice() override { return inner_->notice(); }

 protected:
  [[nodiscard]] Port& inner() const { return *inner_; }

 private:
  std::unique_ptr<Port> inner_;
};

}  // namespace mtcp::stack

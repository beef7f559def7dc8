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
  [[nodiscard]] bool congested() const override { return inner_->congested(); }
  [[nodiscard]] bool delivered() const override { return inner_->delivered(); }
  [[nodiscard]] bool crowded() const override { return inner_->crowded(); }
  void service(Time now) override { inner_->service(now); }
  bool arm() override { return inner_->arm(); }
  void disarm() override { inner_->disarm(); }
  [[nodiscard]] std::span<const int> pollable() const override { return inner_->pollable(); }
  [[nodiscard]] Duration max_sleep() const override { return inner_->max_sleep(); }
  [[nodiscard]] bool link_up() const override { return inner_->link_up(); }
  bool take_peer_end() override { return inner_->take_peer_end(); }
  [[nodiscard]] MacAddress mac() const override { return inner_->mac(); }
  [[nodiscard]] std::uint32_t mtu() const override { return inner_->mtu(); }
  [[nodiscard]] bool tx_checksum_offload() const override { return inner_->tx_checksum_offload(); }
  [[nodiscard]] PacketPool& pool() override { return inner_->pool(); }
  [[nodiscard]] std::uint64_t rx_dropped() const override { return inner_->rx_dropped(); }
  [[nodiscard]] std::uint64_t tx_dropped() const override { return inner_->tx_dropped(); }
  [[nodiscard]] std::uint64_t tx_merged() const override { return inner_->tx_merged(); }
  Notice notice() override { return inner_->notice(); }
  [[nodiscard]] std::size_t packets_held() const override { return inner_->packets_held(); }
  [[nodiscard]] std::size_t packets_free() override { return inner_->packets_free(); }

  [[nodiscard]] bool shared() const override { return inner_->shared(); }
  bool forward_unknown(Packet* p, const FlowKey& key, bool opens, Time now) override {
    return inner_->forward_unknown(p, key, opens, now);
  }
  [[nodiscard]] bool may_open(const FlowKey& key) const override { return inner_->may_open(key); }
  bool publish(const FlowKey& key, FlowKind kind) override { return inner_->publish(key, kind); }
  void withdraw(const FlowKey& key) override { inner_->withdraw(key); }
  bool settle(const FlowKey& key, bool here) override { return inner_->settle(key, here); }
  [[nodiscard]] bool is_home(const FlowKey& key) const override { return inner_->is_home(key); }
  [[nodiscard]] bool must_publish() const override { return inner_->must_publish(); }
  void all_published() override { inner_->all_published(); }
  [[nodiscard]] bool has_others() const override { return inner_->has_others(); }
  bool reserve_flow(const FlowKey& key) override { return inner_->reserve_flow(key); }
  void release_flow(const FlowKey& key) override { inner_->release_flow(key); }
  [[nodiscard]] bool receives(const IpAddress& local) override { return inner_->receives(local); }
  void leave_opens_of(const IpAddress& remote) override { inner_->leave_opens_of(remote); }
  void forget_left() override { inner_->forget_left(); }
  void leave_to_parent() override { inner_->leave_to_parent(); }
  void set_serving(bool on) override { inner_->set_serving(on); }
  void note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, Listening how) override {
    inner_->note_listener(index, local, v6_only, how);
  }
  [[nodiscard]] bool others_listen(const Endpoint& local) const override { return inner_->others_listen(local); }
  void offer(const Endpoint& local) override { inner_->offer(local); }
  void set_offering(bool on) override { inner_->set_offering(on); }
  bool migrate(const FlowKey& key, Messages messages, std::uint32_t to) override { return inner_->migrate(key, messages, to); }
  bool migrate_away(const FlowKey& key, Messages messages, bool may_wait) override {
    return inner_->migrate_away(key, messages, may_wait);
  }
  void set_closing(bool on) override { inner_->set_closing(on); }
  [[nodiscard]] bool must_give_way() const override { return inner_->must_give_way(); }
  void has_given_way() override { inner_->has_given_way(); }
  void take_all_unclaimed() override { inner_->take_all_unclaimed(); }
  void note_flow(std::uint32_t index, const FlowKey& key) override { inner_->note_flow(index, key); }
  void forget_flow(std::uint32_t index) override { inner_->forget_flow(index); }
  bool share(Share& out) const override { return inner_->share(out); }
  bool next_orphan(FlowKey& key, std::uint32_t& number) override { return inner_->next_orphan(key, number); }
  void orphan_told(std::uint32_t number) override { inner_->orphan_told(number); }

 protected:
  [[nodiscard]] Port& inner() const { return *inner_; }

 private:
  std::unique_ptr<Port> inner_;
};

}  // namespace mtcp::stack

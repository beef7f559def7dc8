// What a test says in place of other stacks on a host's device, and what they would be told.
#pragma once

#include <deque>
#include <functional>
#include <map>

#include "stack/port/steering.hh"

namespace mtcp::sim {

using namespace mtcp::stack;

class FakeSteering final : public Steering {
 public:
  std::function<bool(Packet*)> take_unknown;
  std::function<bool(const FlowKey&)> home;
  std::deque<FlowKey> orphans;
  std::uint64_t orphans_told = 0;
  std::map<std::uint32_t, FlowKey> flows;  // as noted, by index
  bool serving = false;                    // as set_serving() said
  std::uint64_t calls = 0;                 // of set_serving

  [[nodiscard]] bool has_others() const override { return false; }
  [[nodiscard]] bool crowded() const override { return false; }
  [[nodiscard]] Share share() const override { return {}; }
  bool forward_unknown(Packet* p, const FlowKey&, bool, Time) override { return take_unknown && take_unknown(p); }
  void announce() override {}
  [[nodiscard]] bool may_open(const FlowKey& key) const override { return !home || home(key); }
  [[nodiscard]] bool is_home(const FlowKey&) const override { return true; }
  bool publish(const FlowKey&, FlowKind) override { return false; }
  void withdraw(const FlowKey&) override {}
  bool settle(const FlowKey&, bool) override { return false; }
  void point(const FlowKey&, bool) override {}
  [[nodiscard]] bool must_publish() const override { return false; }
  void all_published() override {}
  void set_serving(bool on) override {
    serving = on;
    ++calls;
  }
  void note_listener(std::uint32_t, const Endpoint&, bool, Listening) override {}
  [[nodiscard]] bool others_listen(const Endpoint&) const override { return false; }
  void offer(const Endpoint&) override {}
  void set_offering(bool) override {}
  bool migrate(const FlowKey&, Messages, std::uint32_t) override { return false; }
  bool pass_to(const FlowKey&, Messages, std::uint32_t) override { return false; }
  bool migrate_away(const FlowKey&, Messages, bool) override { return false; }
  void take_all_unclaimed() override {}
  void set_closing(bool) override {}
  [[nodiscard]] bool must_give_way() const override { return false; }
  void has_given_way() override {}
  void note_flow(std::uint32_t index, const FlowKey& key) override { flows[index] = key; }
  void forget_flow(std::uint32_t index) override { flows.erase(index); }
  bool next_orphan(FlowKey& key, std::uint32_t&) override {
    if (orphans.empty()) return false;
    key = orphans.front();
    orphans.pop_front();
    return true;
  }
  void orphan_told(std::uint32_t) override { ++orphans_told; }
};

}  // namespace mtcp::sim

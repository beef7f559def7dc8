// The kernel on a host's interface, as a test plays it: it lets the stack do everything.
#pragma once

#include "stack/port/kernel_share.hh"

namespace mtcp::sim {

using namespace mtcp::stack;

class FakeKernelShare final : public KernelShare {
 public:
  void note_listener(std::uint32_t, const Endpoint&, bool, bool) override {}
  void note_flow(std::uint32_t, const FlowKey&) override {}
  void forget_flow(std::uint32_t) override {}
  bool reserve_flow(const FlowKey&) override { return true; }
  void release_flow(const FlowKey&) override {}
  [[nodiscard]] bool receives(const IpAddress&) override { return true; }
  void leave_opens_of(const IpAddress&) override {}
  void forget_left() override {}
  void leave_to_parent() override {}
};

}  // namespace mtcp::sim

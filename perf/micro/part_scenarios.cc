// Parts of the stack by themselves.
#include <random>
#include <vector>

#include "perf/micro/flow_keys.hh"
#include "perf/micro/meter.hh"
#include "perf/micro/scenarios.hh"
#include "stack/timer/wheel.hh"

namespace mtcp::perf {
namespace {

constexpr std::uint32_t kNumber = 20'000;

// As connections do it: armed, postponed with each segment, mostly cancelled; one of eight runs out.
std::uint64_t timers() {
  std::mt19937 random(1);
  std::vector<stack::TimerNode> nodes(kNumber);
  stack::Time now = stack::Time{} + stack::seconds(1);
  stack::TimerWheel wheel(now);
  std::uint64_t fired = 0;
  const Meter meter;
  const Count count;
  for (std::uint32_t i = 0; i < kNumber; i++) {
    const auto after = stack::milliseconds(200 + random() % 1000);
    wheel.arm(nodes[i], now + after);
    wheel.arm(nodes[i], now + after + stack::milliseconds(1));
    if (i % 8 != 0) wheel.cancel(nodes[i]);
    now += stack::microseconds(100);
    while (wheel.expire(now) != nullptr) fired++;
  }
  now += stack::seconds(2);
  while (wheel.expire(now) != nullptr) fired++;
  return fired == kNumber / 8 ? kNumber : 0;
}

std::uint64_t flow_table() {
  constexpr std::uint32_t kFlows = 100'000;
  stack::FlowTable table({1, 2});
  std::vector<stack::FlowKey> keys(kFlows);
  for (std::uint32_t i = 0; i < kFlows; i++) {
    keys[i] = key_of(i);
    if (!table.insert(table.hash(keys[i]), {stack::FlowRef::Kind::connection, i})) return 0;
  }
  std::mt19937 random(1);
  const Meter meter;
  const Count count;
  for (std::uint32_t n = 0; n < kNumber; n++) {
    const auto i = static_cast<std::uint32_t>(random() % kFlows);
    const std::uint32_t hash = table.hash(keys[i]);
    if (table.find(hash, [&](stack::FlowRef r) { return keys[r.index()] == keys[i]; }).index() != i) return 0;
    table.erase(hash, {stack::FlowRef::Kind::connection, i});
    if (!table.insert(hash, {stack::FlowRef::Kind::connection, i})) return 0;
  }
  return kNumber;
}

constexpr Scenario kScenarios[] = {
    {"timer", "a timer is armed, postponed, and cancelled or runs out", timers},
    {"flow", "one of 100,000 flows is hashed, found, removed and entered again", flow_table},
};

}  // namespace

std::span<const Scenario> part_scenarios() { return kScenarios; }

}  // namespace mtcp::perf

// Up to 64 stacks that join, leave, die, serve and stop serving in any order, and an oracle that knows who is there,
// whose every flow is, and who is to see a frame.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <random>

#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

class Crowd {
 public:
  Crowd(std::uint64_t s, std::uint32_t queues, std::uint32_t entries)
      : seed(s), random(s), device(queues, kMaxStacks, entries) {}
  ~Crowd() {
    for (auto& [number, m] : members) end(m);
  }
  struct Member {
    std::unique_ptr<SteeringPort> port;
    std::uint64_t process;
    bool serving = false;
  };

  // --- what may happen
  void join() {
    auto port = device.join(++last_process);
    REQUIRE((port == nullptr) == (members.size() == kMaxStacks));
    if (port == nullptr) return;
    const std::uint32_t number = port->number();
    REQUIRE(members.try_emplace(number, Member{std::move(port), last_process}).second);
  }
  void leave() {
    const auto at = any();
    end(at->second);
    members.erase(at);
  }
  void die() {
    const auto at = any();
    device.kill(std::move(at->second.port), at->second.process);
    members.erase(at);
  }
  void serve(bool on) {
    Member& m = any()->second;
    device.process = m.process;
    m.port->set_serving(on);
    m.serving = on;
  }
  // Everybody has a turn, in any order, every 25 ms.
  void settle(int rounds) {
    for (int i = 0; i < rounds; ++i) {
      now += milliseconds(25);
      std::vector<std::uint32_t> order;
      for (const auto& [number, m] : members) order.push_back(number);
      std::ranges::shuffle(order, random);
      for (const std::uint32_t number : order) {
        Member& m = members.at(number);
        device.process = m.process;
        m.port->service(now);
        if (m.port->must_publish()) m.port->all_published();
        FlowKey key;
        std::uint32_t orphan = 0;
        while (m.port->next_orphan(key, orphan)) {
          m.port->orphan_told(orphan);
        }
      }
    }
  }

  // --- what must be so then
  void check_table() {
    const ControlBlock& control = device.control();
    StackSet all, takers;
    for (const auto& [number, m] : members) {
      all.add(number);
      if (m.serving) takers.add(number);
    }
    if (takers.empty()) takers = all;
    REQUIRE(control.members() == all);
    std::array<std::uint32_t, kMaxStacks> has{};
    for (std::uint32_t i = 0; i < control.entries(); ++i) {
      const std::uint8_t owner = control.home(i);
      REQUIRE(takers.has(owner));
      ++has[owner];
    }
    const std::uint32_t share = control.entries() / takers.size();
    for (const std::uint32_t stack : takers) REQUIRE((has[stack] == share || has[stack] == share + 1));
  }
  void check_queues() {
    const std::uint32_t queues = device.queues();
    const auto most = (queues + members.size() - 1) / members.size();
    StackSet polled;
    for (const auto& [number, m] : members) {
      const StackSet its(device.control().slot(number).queues);
      REQUIRE(its.size() == m.port->queues());
      REQUIRE(its.size() <= most);
      REQUIRE((polled - its) == polled);
      polled = polled | its;
    }
    REQUIRE(polled.size() == queues);
    if (!device.is_card) return;
    REQUIRE(device.table.size() == device.control().entries());
    for (std::uint32_t i = 0; i < device.table.size(); ++i) {
      const StackSet its(device.control().slot(device.control().home(i)).queues);
      REQUIRE((its.empty() || its.has(device.table[i])));
      REQUIRE(device.table[i] < queues);
    }
  }
  // A frame that comes in anywhere is seen by its owner, and by nobody else.
  void check_frames(int n) {
    for (int i = 0; i < n; ++i) {
      const auto port = static_cast<std::uint16_t>(1 + random() % 65535);
      const auto host = static_cast<std::uint8_t>(2 + random() % 250);
      std::uint32_t owner = kMaxStacks;
      for (const auto& [number, m] : members) {
        FlowKey key = flow(host, port);
        const bool takes = !m.serving && any_serves();
        if (!takes && m.port->may_open(key) && has_share(number)) {
          REQUIRE(owner == kMaxStacks);
          owner = number;
        }
      }
      device.waiting[random() % device.queues()].push_back(tcp_frame(host, port));
      std::map<std::uint32_t, std::size_t> seen;
      for (int round = 0; round < 2; ++round)
        for (auto& [number, m] : members) {
          const std::size_t got = receive(m);
          if (got > 0) seen[number] += got;
        }
      REQUIRE(seen.size() == 1);
      const std::uint32_t by = seen.begin()->first;
      REQUIRE(seen.begin()->second == 1);
      if (owner != kMaxStacks) REQUIRE(by == owner);
    }
  }
  // A frame of a flow that nobody knows: its home says so, and nobody else.
  void check_unknown() {
    const auto port = static_cast<std::uint16_t>(1 + random() % 65535);
    const FlowKey key = flow(9, port);
    device.waiting[random() % device.queues()].push_back(tcp_frame(9, port));
    int seen = 0, told = 0;
    for (int round = 0; round < 3; ++round)
      for (auto& [number, m] : members) {
        device.process = m.process;
        Packet* p = nullptr;
        if (m.port->rx(&p, 1) == 0) continue;
        ++seen;
        REQUIRE(m.port->is_home(key));
        if (m.port->forward_unknown(p, key, false, now)) {
          m.port->announce();
          continue;
        }
        ++told;
        m.port->pool().free(&p, 1);
      }
    REQUIRE(told == 1);
    REQUIRE(seen == 1);
  }
  void check_packets() {
    for (const auto& [number, m] : members) REQUIRE(m.port->pool().available() == m.port->pool().capacity());
  }

  const std::uint64_t seed;
  std::mt19937_64 random;
  FakeDevice device;
  std::map<std::uint32_t, Member> members;
  std::uint64_t last_process = 0;
  Time now{};

 private:
  std::map<std::uint32_t, Member>::iterator any() {
    return std::next(members.begin(), static_cast<std::ptrdiff_t>(random() % members.size()));
  }
  void end(Member& m) {
    device.process = m.process;
    m.port.reset();
  }
  [[nodiscard]] bool any_serves() const {
    return std::ranges::any_of(members, [](const auto& m) { return m.second.serving; });
  }
  [[nodiscard]] bool has_share(std::uint32_t stack) {
    for (std::uint32_t i = 0; i < device.control().entries(); ++i)
      if (device.control().home(i) == stack) return true;
    return false;
  }
  std::size_t receive(Member& m) {
    device.process = m.process;
    std::array<Packet*, 32> packets;
    const std::size_t n = m.port->rx(packets.data(), packets.size());
    m.port->pool().free(packets.data(), n);
    return n;
  }
};

std::uint64_t seed() {
  const char* s = std::getenv("MTCP_SEED");
  return s != nullptr ? std::strtoull(s, nullptr, 10) : std::random_device{}();
}

}  // namespace

TEST_CASE("thousands of joins, leaves, deaths and changes of who serves, with up to 64 stacks", "[many]") {
  const std::uint32_t queues = GENERATE(1u, 12u, 64u);
  Crowd c(seed(), queues, queues == 12 ? 128 : kMaxSteeringEntries);
  c.device.is_card = queues > 1;
  INFO("MTCP_SEED=" << c.seed << ", " << queues << " queues");
  std::size_t most = 0;
  for (int i = 0; i < 2000; ++i) {
    // Tides: it fills up to the last slot, and empties again.
    const bool rising = i / 250 % 2 == 0;
    const std::uint64_t dice = c.random() % 10;
    if (c.members.size() < 2 || dice < (rising ? 5u : 2u))
      c.join();
    else if (dice < (rising ? 6u : 5u))
      c.leave();
    else if (dice < 7)
      c.die();
    else
      c.serve(c.random() % 3 != 0);
    most = std::max(most, c.members.size());
    if (c.members.empty() || c.random() % 4 != 0) continue;
    c.settle(4);
    c.check_table();
    c.check_queues();
    c.check_frames(4);
    c.check_unknown();
    c.check_packets();
  }
  CHECK(most == kMaxStacks);
}

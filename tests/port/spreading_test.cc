// The table of a card that spreads (DPDK's null device has one, in memory): it follows steering's.
#include <rte_ethdev.h>

#include <array>
#include <catch2/catch.hpp>
#include <map>

#include "stack/port/dpdk/dpdk_device.hh"
#include "tests/port/device.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

constexpr std::uint32_t kQueues = 4;

std::unique_ptr<dpdk::DpdkDevice> open() {
  auto c = config("net_null0");
  c.queues = kQueues;
  auto device = std::make_unique<dpdk::DpdkDevice>(dpdk::Kind::other, c);
  std::string message;
  if (!device->open(message)) fprintf(stderr, "%s\n", message.c_str());
  return device;
}

std::vector<std::uint32_t> card_table() {
  rte_eth_dev_info info{};
  EXPECT(rte_eth_dev_info_get(0, &info) == 0 && info.reta_size >= 64);
  std::vector<rte_eth_rss_reta_entry64> groups(info.reta_size / RTE_ETH_RETA_GROUP_SIZE);
  for (auto& g : groups) g.mask = UINT64_MAX;
  EXPECT(rte_eth_dev_rss_reta_query(0, groups.data(), info.reta_size) == 0);
  std::vector<std::uint32_t> table;
  for (const auto& g : groups) table.insert(table.end(), std::begin(g.reta), std::end(g.reta));
  return table;
}

void have_turns(std::vector<std::unique_ptr<Port>>& stacks) {
  for (int i = 0; i < 4; ++i) {
    usleep(25'000);
    for (auto& s : stacks)
      if (s != nullptr) s->service(now());
  }
}

// Every entry is on a queue of its owner's if that has one, and all queues are used.
bool follows(dpdk::DpdkDevice& device) {
  const auto table = card_table();
  std::map<std::uint32_t, int> used;
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    const StackSet queues(device.control().slot(device.control().home(i)).queues);
    if (!queues.empty() && !queues.has(table[i])) return false;
    ++used[table[i]];
  }
  return used.size() == kQueues;
}

}  // namespace

TEST_CASE("a card's table spreads evenly at first, and then as the stacks that are there") {
  Process p([](Process&) {
    const auto device = open();
    auto table = card_table();
    EXPECT(device->control().entries() == (table.size() >= 2 * device->control().slots() ? table.size() : kMaxSteeringEntries));
    for (std::uint32_t i = 0; i < table.size(); ++i) EXPECT(table[i] == i % kQueues);
    if (device->control().entries() > table.size()) return;  // too few for as many stacks as this machine may have
    std::vector<std::unique_ptr<Port>> stacks;
    for (int i = 0; i < 3; ++i) stacks.push_back(device->join().port);
    have_turns(stacks);
    EXPECT(follows(*device));
    EXPECT(card_table() != table);
    stacks[0].reset();  // who told the card
    have_turns(stacks);
    EXPECT(follows(*device));
    stacks[0] = device->join().port;
    stacks.push_back(device->join().port);
    have_turns(stacks);
    EXPECT(follows(*device));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("the child of a fork leaves the driver alone unless it works by registers, and then nobody asks again") {
  Process p([](Process&) {
    const auto device = open();
    std::vector<std::unique_ptr<Port>> stacks;
    for (int i = 0; i < 3; ++i) stacks.push_back(device->join().port);
    have_turns(stacks);
    stacks.clear();
    const auto table = card_table();
    Process child([&](Process&) {
      EXPECT(!device->redirect(std::vector<std::uint8_t>(device->control().entries())));
      std::vector<std::unique_ptr<Port>> its;
      its.push_back(device->join().port);
      have_turns(its);
    });
    EXPECT(child.join() == 0);
    EXPECT(card_table() == table);
    for (int i = 0; i < 2; ++i) stacks.push_back(device->join().port);
    have_turns(stacks);
    EXPECT(card_table() == table);
    EXPECT(device->redirect(std::vector<std::uint8_t>(device->control().entries())) ==
           (device->control().entries() <= table.size()));
  });
  CHECK(p.join() == 0);
}

#include <catch2/catch.hpp>
#include <random>
#include <set>
#include <vector>

#include "stack/steering/control_block.hh"

using namespace mtcp::stack;

TEST_CASE("a set of stacks says what a set of numbers says, also of the first and the last", "[stack_set]") {
  const auto seed = GENERATE(1u, 2u, 3u);
  std::mt19937 random(seed);
  StackSet set;
  std::set<std::uint32_t> oracle;
  for (int i = 0; i < 2000; ++i) {
    const std::uint32_t stack = random() % 8 == 0 ? (random() % 2) * (kMaxStacks - 1) : random() % kMaxStacks;
    if (random() % 2 == 0)
      set.add(stack), oracle.insert(stack);
    else
      set.remove(stack), oracle.erase(stack);
    REQUIRE(set.size() == oracle.size());
    REQUIRE(set.empty() == oracle.empty());
    REQUIRE(set.has(stack) == oracle.contains(stack));
    REQUIRE(std::vector<std::uint32_t>(oracle.begin(), oracle.end()) == [&] {
      std::vector<std::uint32_t> all;
      for (const std::uint32_t s : set) all.push_back(s);
      return all;
    }());
    if (oracle.empty()) continue;
    REQUIRE(set.first() == *oracle.begin());
    const std::uint32_t from = random() % kMaxStacks;
    const auto next = oracle.upper_bound(from);
    REQUIRE(set.after(from) == (next == oracle.end() ? *oracle.begin() : *next));
  }
}

TEST_CASE("what is no stack's number is in no set", "[stack_set]") {
  const StackSet all(~std::uint64_t{0});
  CHECK(all.size() == kMaxStacks);
  CHECK_FALSE(all.has(kMaxStacks));
  CHECK_FALSE(all.has(ControlBlock::kNobody));
  CHECK((all - StackSet::of(63)).size() == 63);
  CHECK((StackSet::of(0) | StackSet::of(63)).bits() == 0x8000'0000'0000'0001);
}

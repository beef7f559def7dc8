// The tree of what is out of order, against a sorted map.
#include "stack/tcp/receiver/islands.hh"

#include <catch2/catch.hpp>
#include <map>
#include <random>

using namespace mtcp::stack;

namespace {

std::uint32_t depth(Islands& islands, std::uint32_t tree) {
  if (tree == Island::kNone) return 0;
  const Island& i = islands.at(tree);
  return 1 + std::max(depth(islands, i.left), depth(islands, i.right));
}

}  // namespace

TEST_CASE("Islands are found as in a sorted map, whatever is put in and taken out, across the wrap") {
  const unsigned seed = GENERATE(range(1U, 9U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  Islands islands(10000, seed);
  IslandSet set;
  std::map<std::uint32_t, std::uint32_t> model;  // offset from `start`: index
  const Seq start(0xffff0000);
  for (int step = 0; step < 20000; ++step) {
    const std::uint32_t at = random() % 200000;
    if (random() % 2 == 0 && !model.contains(at)) {
      const std::uint32_t index = islands.create(set);
      if (index == Island::kNone) continue;
      islands.at(index).begin = islands.at(index).end = start + at;
      islands.insert(set, index);
      model[at] = index;
    } else if (const auto found = model.lower_bound(at); found != model.end()) {
      islands.remove(set, found->second);
      islands.destroy(found->second);
      model.erase(found);
    }
    const std::uint32_t where = random() % 200000;
    const auto behind = model.upper_bound(where);
    REQUIRE(islands.after(set, start + where) == (behind == model.end() ? Island::kNone : behind->second));
    REQUIRE(islands.at_or_before(set, start + where) ==
            (behind == model.begin() ? Island::kNone : std::prev(behind)->second));
    REQUIRE(islands.first(set) == (model.empty() ? Island::kNone : model.begin()->second));
    REQUIRE(set.last == (model.empty() ? Island::kNone : model.rbegin()->second));
    REQUIRE(set.count == model.size());
  }
}

TEST_CASE("A tree stays flat in whatever order a peer fills it") {
  for (const bool ascending : {true, false}) {
    Islands islands(1 << 20, 7);
    IslandSet set;
    for (std::uint32_t i = 0; i < 4096; ++i) {
      const std::uint32_t index = islands.create(set);
      REQUIRE(index != Island::kNone);
      islands.at(index).begin = islands.at(index).end = Seq(ascending ? i : 100000 - i);
      islands.insert(set, index);
    }
    CHECK(depth(islands, set.root) < 48);
  }
}

TEST_CASE("Of the islands that there may be one connection does not take all") {
  Islands islands(4096, 7);
  IslandSet first, second;
  std::uint32_t index = 0, at = 0;
  while ((index = islands.create(first)) != Island::kNone) {
    islands.at(index).begin = islands.at(index).end = Seq(2 * at++);
    islands.insert(first, index);
  }
  CHECK(first.count > 200);
  CHECK(first.count < 300);
  CHECK(islands.create(second) != Island::kNone);
}

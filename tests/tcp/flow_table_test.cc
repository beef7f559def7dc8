#include "stack/tcp/flow_table.hh"

#include <catch2/catch.hpp>
#include <random>
#include <unordered_map>
#include <vector>

using namespace mtcp::stack;

namespace {
constexpr SipKey kKey{1, 2};
FlowRef ref(std::uint32_t i) { return {FlowRef::Kind::connection, i}; }
FlowRef lookup(const FlowTable& t, std::uint32_t hash, FlowRef wanted) {
  return t.find(hash, [&](FlowRef r) { return r == wanted; });
}
}  // namespace

TEST_CASE("a reference keeps kind and index", "[flow_table]") {
  const FlowRef r(FlowRef::Kind::time_wait, FlowRef::kMaxIndex);
  CHECK(r.kind() == FlowRef::Kind::time_wait);
  CHECK(r.index() == FlowRef::kMaxIndex);
  CHECK(r);
  CHECK_FALSE(FlowRef());
  CHECK(FlowRef(FlowRef::Kind::connection, 0));
}

TEST_CASE("the table agrees with a map through a million random insertions, removals and growth",
          "[flow_table]") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  FlowTable table(kKey, 16);
  std::unordered_map<std::uint32_t, std::uint32_t> model;  // index -> hash
  std::vector<std::uint32_t> living;
  std::uint32_t next = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const bool growing = (i / 200'000) % 2 == 0;
    if (living.empty() || random() % 100 < (growing ? 70U : 40U)) {
      // A few hashes collide in full, many in their low bits.
      const std::uint32_t hash = random() % 100 == 0 ? random() % 64 * 0x01000000U : random();
      REQUIRE(table.insert(hash, ref(next)));
      model[next] = hash;
      living.push_back(next++);
    } else {
      const std::size_t at = random() % living.size();
      const std::uint32_t index = living[at];
      if (lookup(table, model[index], ref(index)) != ref(index)) FAIL("lost " << index);
      table.erase(model[index], ref(index));
      if (lookup(table, model[index], ref(index))) FAIL("still there " << index);
      model.erase(index);
      living[at] = living.back();
      living.pop_back();
    }
  }
  CHECK(table.size() == model.size());
  std::size_t lost = 0;
  for (auto [index, hash] : model) lost += lookup(table, hash, ref(index)) == ref(index) ? 0 : 1;
  CHECK(lost == 0);
}

TEST_CASE("find asks only about references with the same hash", "[flow_table]") {
  FlowTable table(kKey);
  REQUIRE(table.insert(5, ref(1)));
  REQUIRE(table.insert(5 + (1U << 20), ref(2)));  // the same home
  REQUIRE(table.insert(5, ref(3)));
  std::vector<FlowRef> asked;
  CHECK_FALSE(table.find(5, [&](FlowRef r) { return asked.push_back(r), false; }));
  CHECK(asked == std::vector<FlowRef>{ref(1), ref(3)});
}

TEST_CASE("replace keeps the place of a flow", "[flow_table]") {
  FlowTable table(kKey);
  REQUIRE(table.insert(9, ref(1)));
  table.replace(9, ref(1), FlowRef(FlowRef::Kind::time_wait, 4));
  CHECK_FALSE(lookup(table, 9, ref(1)));
  CHECK(table.find(9, [](FlowRef r) { return r.kind() == FlowRef::Kind::time_wait; }));
  CHECK(table.size() == 1);
}

TEST_CASE("every part of the 4-tuple and the key change the hash", "[flow_table]") {
  FlowTable table(kKey), other({3, 4});
  FlowKey a{IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, 2), 80, 40000};
  const auto h = table.hash(a);
  CHECK(table.hash(a) == h);
  CHECK(other.hash(a) != h);
  const auto differs = [&](auto change) {
    FlowKey b = a;
    change(b);
    return table.hash(b) != h;
  };
  CHECK(differs([](FlowKey& k) { k.local = IpAddress::v4(10, 0, 0, 3); }));
  CHECK(differs([](FlowKey& k) { k.remote = IpAddress::v4(10, 0, 0, 3); }));
  CHECK(differs([](FlowKey& k) { k.local_port = 81; }));
  CHECK(differs([](FlowKey& k) { k.remote_port = 40001; }));
  CHECK(differs([](FlowKey& k) { std::swap(k.local, k.remote); }));
  CHECK(differs([](FlowKey& k) { std::swap(k.local_port, k.remote_port); }));
  CHECK(differs([](FlowKey& k) { k.local.bytes[0] = 0x20; }));
}

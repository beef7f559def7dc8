#include "stack/steering/reservations.hh"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <vector>

using namespace mtcp::stack;

TEST_CASE("a flow that one stack has reserved no other one gets before it is given back", "[reservations]") {
  std::vector<std::byte> memory(Reservations::kMemory);
  Reservations r(memory.data());
  REQUIRE(r.take(12345, 3));
  CHECK_FALSE(r.take(12345, 4));
  CHECK_FALSE(r.take(12345, 3));
  r.give_back(12345, 4);  // not its own
  CHECK_FALSE(r.take(12345, 4));
  r.give_back(12345, 3);
  CHECK(r.take(12345, 4));
}

TEST_CASE("what a dead stack had reserved is free again, and nothing else", "[reservations]") {
  std::vector<std::byte> memory(Reservations::kMemory);
  Reservations r(memory.data());
  std::mt19937 random(1);
  std::map<std::uint32_t, std::uint8_t> taken;
  for (std::uint32_t i = 0; i < 5000; ++i) {
    // They differ in the upper bits only, as the flows of one entry of the table do.
    const std::uint32_t hash = static_cast<std::uint32_t>(random()) & ~127U;
    const auto stack = static_cast<std::uint8_t>(i % 2);
    if (r.take(hash, stack)) taken[hash] = stack;
  }
  CHECK(taken.size() > 4900);
  r.forget(1);
  for (const auto& [hash, stack] : taken) CHECK(r.take(hash, 7) == (stack == 1));
}

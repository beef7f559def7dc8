#include "stack/base/slab.hh"

#include <catch2/catch.hpp>
#include <set>

using namespace mtcp::stack;

namespace {
struct Tracked {
  static inline int living = 0;
  Tracked() { ++living; }
  ~Tracked() { --living; }
  std::uint64_t value = 7;
  std::byte ballast[1000];
};
}  // namespace

TEST_CASE("a slab hands out constructed objects up to its limit, and not one more", "[slab]") {
  Slab<Tracked> slab(3000);
  for (std::uint32_t i = 0; i < 3000; ++i) REQUIRE(slab.create() == i);
  CHECK(slab.full());
  CHECK(slab.create() == Slab<Tracked>::kNone);
  CHECK(slab.at(2999).value == 7);
  CHECK(Tracked::living == 3000);
}

TEST_CASE("a slab destroys what still lives when it goes", "[slab]") {
  {
    Slab<Tracked> slab(10);
    slab.destroy(slab.create());
    const auto kept = slab.create();
    CHECK(kept == 0);
  }
  CHECK(Tracked::living == 0);
}

TEST_CASE("addresses do not change while a slab grows by chunks", "[slab]") {
  Slab<Tracked> slab(5000, 10);
  Tracked* first = &slab.at(slab.create());
  for (int i = 1; i < 5000; ++i) REQUIRE(slab.create() != Slab<Tracked>::kNone);
  CHECK(first == &slab.at(0));
}

TEST_CASE("the slot freed last is used first, and comes back as new", "[slab]") {
  Slab<Tracked> slab(100);
  const auto a = slab.create(), b = slab.create();
  slab.at(a).value = 1;
  slab.destroy(b);
  slab.destroy(a);
  CHECK_FALSE(slab.live(a));
  CHECK(slab.create() == a);
  CHECK(slab.at(a).value == 7);
  CHECK(slab.create() == b);
}

TEST_CASE("for_each visits exactly the living, and may destroy them", "[slab]") {
  Slab<Tracked> slab(300);
  for (std::uint32_t i = 0; i < 200; ++i) REQUIRE(slab.create() == i);
  for (std::uint32_t i = 0; i < 200; i += 3) slab.destroy(i);
  std::set<std::uint32_t> seen;
  slab.for_each([&](Tracked&, std::uint32_t i) {
    seen.insert(i);
    slab.destroy(i);
  });
  CHECK(seen.size() == 133);
  for (auto i : seen) CHECK(i % 3 != 0);
  CHECK(slab.size() == 0);
}

#include "stack/steering/directory.hh"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <thread>
#include <vector>

using namespace mtcp::stack;
using State = Directory::State;

namespace {

struct Shared {
  explicit Shared(std::uint32_t n = 1024) : words(n), memory((Directory::memory(n) + 63) / 64) {}
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::uint32_t words;
  std::vector<Line> memory;
  Directory directory{memory.front().bytes, words, {1, 2}};
};

FlowKey v6(std::uint16_t port) {
  FlowKey key{{}, {}, 443, port};
  key.local.bytes[0] = 0x20;
  key.remote.bytes[15] = 7;
  return key;
}

}  // namespace

TEST_CASE("a flow is one stack's only, until that gives it back, hands it over or has gone", "[directory]") {
  Shared s;
  Directory& d = s.directory;
  const std::uint64_t h = d.hash(v6(9));
  CHECK(d.find(h).state == State::none);
  REQUIRE(d.claim(h, {State::owned, 3}));
  CHECK(d.find(h) == Directory::Entry{State::owned, 3});
  CHECK(d.claim(h, {State::owned, 3}));
  CHECK_FALSE(d.claim(h, {State::owned, 4}));
  d.erase(h, {State::owned, 4});  // not its own
  CHECK(d.find(h) == Directory::Entry{State::owned, 3});
  REQUIRE(d.set(h, {State::in_transit, 63}));
  CHECK_FALSE(d.claim(h, {State::owned, 3}));
  d.erase(h, {State::owned, 3});  // it has it no more
  CHECK(d.find(h) == Directory::Entry{State::in_transit, 63});
  d.begin_generation(63);
  CHECK(d.find(h).state == State::none);
  REQUIRE(d.claim(h, {State::owned, 5}));
  // What waits, waits on whoever has the slot.
  REQUIRE(d.set(h, {State::waiting, 5}));
  d.begin_generation(5);
  CHECK(d.find(h) == Directory::Entry{State::waiting, 5});
  d.erase(h, {State::waiting, 5});
  CHECK(d.find(h).state == State::none);
}

TEST_CASE("a TIME-WAIT gives way to what the peer opens anew, whoever says so first, and to nothing else", "[directory]") {
  Shared s;
  Directory& d = s.directory;
  const std::uint64_t h = d.hash(v6(9));
  const Directory::Entry rests{State::resting, 3}, has{State::owned, 4};
  REQUIRE(d.claim(h, rests));
  CHECK(d.claim(h, rests));
  CHECK_FALSE(d.claim(h, has));  // one that is opened from here chooses another port
  CHECK_FALSE(d.claim(h, {State::resting, 5}));
  CHECK(d.find(h) == rests);
  REQUIRE(d.claim(h, has, true));
  CHECK(d.find(h) == has);
  d.withdraw(h, 3);  // it ends, and knows nothing of that
  CHECK(d.find(h) == has);
  CHECK_FALSE(d.claim(h, rests));
  CHECK_FALSE(d.claim(h, {State::owned, 5}, true));
  d.withdraw(h, 4);
  CHECK(d.find(h).state == State::none);
  REQUIRE(d.claim(h, rests));
  d.withdraw(h, 3);
  CHECK(d.find(h).state == State::none);
}

TEST_CASE("addresses of either kind, ports and a VLAN tell flows apart", "[directory]") {
  Shared s;
  const std::uint64_t h = s.directory.hash(v6(9));
  CHECK(h != s.directory.hash(v6(10)));
  CHECK(h != s.directory.hash(v6(9), 1));
  FlowKey other = v6(9);
  other.local.bytes[7] = 1;
  CHECK(h != s.directory.hash(other));
  CHECK(h != s.directory.hash({IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, 2), 443, 9}));
}

TEST_CASE("seven tenths of it can be used, and what no longer counts makes room", "[directory]") {
  Shared s(1 << 16);
  Directory& d = s.directory;
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> flows;
  const std::size_t most = s.words * 70 / 100;
  std::size_t refused = 0;
  for (std::size_t i = 0; i < most; ++i) {
    flows.push_back(random());
    if (!d.claim(flows.back(), {State::owned, static_cast<std::uint8_t>(i % 2)})) ++refused, flows.pop_back();
  }
  CHECK(refused < most / 100);
  for (const std::uint64_t h : flows) REQUIRE(d.find(h).state == State::owned);
  while (d.claim(random(), {State::owned, 0})) {  // full: it is said, and nothing is lost
  }
  for (const std::uint64_t h : flows) REQUIRE(d.find(h).state == State::owned);
  d.begin_generation(1);
  for (int i = 0; i < 1000; ++i) CHECK(d.claim(random(), {State::owned, 2}));
}

TEST_CASE("an entry is erased also behind another one that looks the same", "[directory]") {
  Shared s;
  Directory& d = s.directory;
  const std::uint64_t h = d.hash(v6(9));
  REQUIRE(d.claim(h, {State::owned, 2}));
  // Two that set it at the same time may both have written a word.
  auto* words = reinterpret_cast<std::uint64_t*>(s.memory.data()) + (Directory::memory(0) / sizeof(std::uint64_t));
  std::uint64_t* first = std::find_if(words, words + s.words, [](std::uint64_t w) { return w != 0; });
  REQUIRE(first != words + s.words);
  first[1] = *first;
  REQUIRE(d.set(h, {State::owned, 1}));
  d.erase(h, {State::owned, 2});
  d.erase(h, {State::owned, 1});
  CHECK(d.find(h).state == State::none);
}

TEST_CASE("of those who claim one flow at the same time one has it at most", "[directory]") {
  Shared s;
  Directory& d = s.directory;
  constexpr std::uint32_t kFlows = 20000, kStacks = 3;
  std::vector<std::atomic<int>> owners(kFlows);
  std::vector<std::thread> threads;
  for (std::uint8_t stack = 0; stack < kStacks; ++stack)
    threads.emplace_back([&, stack] {
      for (std::uint32_t i = 0; i < kFlows; ++i) {
        const std::uint64_t h = d.hash(v6(static_cast<std::uint16_t>(i)));
        if (!d.claim(h, {State::owned, stack})) continue;
        if (owners[i].fetch_add(1) != 0) owners[i].store(1000);
        owners[i].fetch_sub(1);
        d.erase(h, {State::owned, stack});
      }
    });
  for (auto& t : threads) t.join();
  int twice = 0;
  for (auto& o : owners) twice += o.load() >= 900 ? 1 : 0;
  CHECK(twice == 0);
}

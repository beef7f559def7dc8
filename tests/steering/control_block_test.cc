#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

std::map<std::uint8_t, int> shares(const ControlBlock& control) {
  std::map<std::uint8_t, int> count;
  for (std::uint32_t i = 0; i < control.entries(); ++i) ++count[control.home(i)];
  return count;
}

bool even(const ControlBlock& control, std::size_t stacks) {
  const auto s = shares(control);
  const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto [least, most] = std::minmax_element(s.begin(), s.end(), by_count);
  return s.size() == stacks && most->second - least->second <= 1;
}

double jain(const ControlBlock& control) {
  double sum = 0, squares = 0;
  const auto all = shares(control);
  for (const auto& [stack, n] : all) sum += n, squares += double(n) * n;
  return sum * sum / (static_cast<double>(all.size()) * squares);
}

IpAddress v6_address(std::uint8_t last) {
  IpAddress a;
  a.bytes[0] = 0xfd;
  a.bytes[15] = last;
  return a;
}

struct World {
  explicit World(std::uint32_t slots = 16, std::uint32_t entries = 128) : device(1, slots, entries) {}
  FakeDevice device;
  ControlBlock& control = device.control();
  std::uint8_t join(std::uint64_t process) {
    device.process = process;
    return control.join(device);
  }
};

}  // namespace

TEST_CASE("the table is shared out evenly, and a change moves as few entries as it can", "[control_block]") {
  const std::uint32_t slots = GENERATE(16u, kMaxStacks);
  World w(slots, GENERATE(128u, kMaxSteeringEntries));
  const ControlBlock& control = w.control;
  for (std::uint8_t n = 1; n <= slots; ++n) {
    std::array<std::uint8_t, kMaxSteeringEntries> before{};
    for (std::uint32_t i = 0; i < control.entries(); ++i) before[i] = w.control.home(i);
    REQUIRE(w.join(n) == n - 1);
    REQUIRE(even(w.control, n));
    std::uint32_t moved = 0;
    for (std::uint32_t i = 0; i < control.entries(); ++i) {
      if (w.control.home(i) == before[i]) continue;
      ++moved;
      CHECK(w.control.home(i) == n - 1);  // only to the new one
      if (n > 1) CHECK(w.control.yielding(i).has(before[i]));
    }
    CHECK(moved <= control.entries() / n + 1);
  }
  CHECK(w.join(99) == ControlBlock::kNobody);
}

TEST_CASE("flows are shared among the stacks that serve, if there are any", "[control_block]") {
  World w;
  for (std::uint64_t p = 1; p <= 4; ++p) (void)w.join(p);
  w.control.set_serving(1, true, w.device);
  CHECK(even(w.control, 1));
  w.control.set_serving(3, true, w.device);
  CHECK(even(w.control, 2));
  CHECK(shares(w.control).contains(3));
  // A reload: the new ones come, the old ones stop serving; the entries remember them.
  w.control.set_serving(0, true, w.device);
  w.control.set_serving(2, true, w.device);
  w.control.set_serving(1, false, w.device);
  w.control.set_serving(3, false, w.device);
  CHECK(even(w.control, 2));
  int remembered = 0;
  for (std::uint32_t i = 0; i < w.control.entries(); ++i) {
    CHECK((w.control.home(i) == 0 || w.control.home(i) == 2));
    remembered += w.control.yielding(i).has(1) || w.control.yielding(i).has(3);
  }
  CHECK(remembered > 0);
  w.control.set_serving(0, false, w.device);
  w.control.set_serving(2, false, w.device);
  CHECK(even(w.control, 4));
}

TEST_CASE("one caller reaps a dead stack and gets its flows; a living one is not reaped", "[control_block]") {
  World w;
  (void)w.join(1);
  (void)w.join(2);
  w.control.records(1)[7].set(flow(2, 4));
  w.control.slot(1).records_end = 8;
  const std::uint64_t hash = w.control.directory().hash(flow(2, 4));
  REQUIRE(w.control.directory().claim(hash, {Directory::State::owned, 1}));
  w.control.note_listener(1, 0, {IpAddress::any_v4(), 80}, false, Listening::yes);
  w.device.process = 1;
  CHECK_FALSE(w.control.reap(1, 0, w.device));
  w.device.dead.insert(2);
  CHECK(w.control.reap(1, 0, w.device));
  REQUIRE(w.control.slot(0).untold_end == 1);
  CHECK(w.control.untold(0)[0].key == flow(2, 4));
  CHECK(w.control.directory().find(hash).state == Directory::State::none);
  CHECK_FALSE(w.control.reap(1, 0, w.device));
  CHECK(w.control.members() == StackSet::of(0));
  CHECK(even(w.control, 1));
  CHECK(w.join(3) == 1);
  CHECK_FALSE(w.control.records(1)[7].is_used());
  CHECK(w.control.listening(1, {IpAddress::v4(10, 0, 0, 1), 80}) == Listening::no);
}

TEST_CASE("the shares are fair (Jain's index of 0.95) whatever the number of stacks, up to the last slot", "[control_block]") {
  World w(kMaxStacks, GENERATE(128u, 256u, kMaxSteeringEntries));
  double least = 1;
  for (std::uint64_t p = 1; p <= kMaxStacks; ++p) {
    REQUIRE(w.join(p) == p - 1);
    least = std::min(least, jain(w.control));
  }
  CHECK(least >= 0.95);
  CHECK(w.control.members() == StackSet(~std::uint64_t{0}));
}

TEST_CASE("at capacity: deaths and leaves of all but the last, in any order, and the slots are used again", "[control_block]") {
  World w(kMaxStacks, GENERATE(128u, kMaxSteeringEntries));
  for (std::uint64_t p = 1; p <= kMaxStacks; ++p) (void)w.join(p);
  // 17 is not a divisor: every slot is met once.
  for (std::uint32_t i = 0, stack = 5; i < kMaxStacks - 1; ++i, stack = (stack + 17) % kMaxStacks) {
    w.device.process = 1000;
    if (i % 2 == 0) {
      w.device.dead.insert(stack + 1);
      REQUIRE(w.control.reap(static_cast<std::uint8_t>(stack), ControlBlock::kNobody, w.device));
    } else {
      w.control.leave(static_cast<std::uint8_t>(stack), w.device);
    }
    REQUIRE_FALSE(w.control.members().has(stack));
    REQUIRE(even(w.control, kMaxStacks - 1 - i));
    for (std::uint32_t e = 0; e < w.control.entries(); ++e) {
      REQUIRE(w.control.members().has(w.control.home(e)));
      REQUIRE((w.control.yielding(e) - w.control.members()).empty());
    }
  }
  w.device.dead.clear();
  for (std::uint64_t p = 2001; p < 2000 + kMaxStacks; ++p) REQUIRE(w.join(p) != ControlBlock::kNobody);
  CHECK(w.join(3000) == ControlBlock::kNobody);
  CHECK(even(w.control, kMaxStacks));
}

TEST_CASE("what a dead stack was to tell is its successor's, and waits for one if nobody is there", "[control_block]") {
  World w;
  (void)w.join(1);
  (void)w.join(2);
  (void)w.join(3);
  w.control.untold(2)[1].set(flow(2, 4));  // [0] has been told
  w.control.slot(2).untold_end = 2;
  const bool dies = GENERATE(true, false);
  if (dies) {
    w.device.dead.insert(3);
  } else {
    w.device.process = 3;
    w.control.leave(2, w.device);
  }
  w.device.process = 2;
  CHECK(w.control.reap(2, 1, w.device));
  CHECK(w.control.slot(2).untold_end == 0);
  REQUIRE(w.control.slot(1).untold_end == 1);
  CHECK(w.control.untold(1)[0].key == flow(2, 4));
  w.device.dead.insert(2);
  w.device.process = 4;
  CHECK(w.control.reap(1, ControlBlock::kNobody, w.device));
  CHECK(w.join(4) == 1);
  CHECK(w.control.slot(1).untold_end == 1);
}

TEST_CASE("the control block tells listeners of one family from those of both", "[control_block]") {
  World w;
  (void)w.join(1);
  const Endpoint v4{IpAddress::v4(10, 0, 0, 1), 80}, v6{v6_address(1), 80}, any_v4{IpAddress::any_v4(), 80}, any_v6{IpAddress::any_v6(), 80};
  w.control.note_listener(0, 0, any_v6, true, Listening::yes);
  CHECK(w.control.listening(0, v4) == Listening::no);
  CHECK(w.control.listening(0, any_v4) == Listening::no);
  CHECK(w.control.listening(0, v6) == Listening::yes);
  CHECK(w.control.listening(0, any_v6) == Listening::yes);
  w.control.note_listener(0, 0, any_v4, false, Listening::yes);
  CHECK(w.control.listening(0, v4) == Listening::yes);
  CHECK(w.control.listening(0, v6) == Listening::no);
  w.control.note_listener(0, 0, any_v6, false, Listening::yes);
  CHECK(w.control.listening(0, v4) == Listening::yes);
  CHECK(w.control.listening(0, v6) == Listening::yes);
  w.control.note_listener(0, 0, v6, false, Listening::yes);
  CHECK(w.control.listening(0, v6) == Listening::yes);
  CHECK(w.control.listening(0, {v6_address(2), 80}) == Listening::no);
  CHECK(w.control.listening(0, any_v4) == Listening::no);
}

TEST_CASE("the control block says who has which listener; those beyond its list count for all that is not in it", "[control_block]") {
  World w;
  (void)w.join(1);
  const Endpoint web{IpAddress::v4(10, 0, 0, 1), 80}, other{IpAddress::v4(10, 0, 0, 2), 80};
  CHECK(w.control.listening(0, web) == Listening::no);
  w.control.note_listener(0, 3, web, false, Listening::yes);
  CHECK(w.control.listening(0, web) == Listening::yes);
  CHECK(w.control.listening(0, other) == Listening::no);
  CHECK(w.control.listening(0, {web.address, 81}) == Listening::no);
  w.control.note_listener(0, 200, {IpAddress::any_v6(), 80}, false, Listening::accepting);
  CHECK(w.control.listening(0, other) == Listening::accepting);
  CHECK(w.control.listening(0, web) == Listening::accepting);
  w.control.note_listener(0, 200, {IpAddress::any_v6(), 80}, false, Listening::no);
  CHECK(w.control.listening(0, web) == Listening::yes);
  w.control.slot(0).unlisted = Listening::left;
  CHECK(w.control.listening(0, other) == Listening::left);
  CHECK(w.control.listening(0, web) == Listening::yes);
}

TEST_CASE("no bit of the hash decides alone whose a flow is: not even the consecutive ports of one client go to one stack", "[control_block]") {
  World w(16, GENERATE(128u, kMaxSteeringEntries));
  const auto stacks = GENERATE(2u, 4u, 8u);
  CAPTURE(stacks, w.control.entries());
  for (std::uint64_t p = 1; p <= stacks; ++p) (void)w.join(p);
  for (std::uint32_t bit = 1; bit < w.control.entries(); bit *= 2) {
    std::map<std::uint8_t, std::uint32_t> with;
    for (std::uint32_t i = 0; i < w.control.entries(); ++i)
      if ((i & bit) != 0) ++with[w.control.home(i)];
    CAPTURE(bit);
    REQUIRE(with.size() == stacks);
    for (const auto& [stack, n] : with) {
      CHECK(n > w.control.entries() / stacks / 4);
      CHECK(n < w.control.entries() / stacks * 3 / 4);
    }
  }
}

TEST_CASE("who loses entries is asked for their flows until it has said which it has, as of the last change", "[control_block]") {
  World w;
  (void)w.join(1);
  (void)w.join(2);
  const auto asked = [&](std::uint32_t stack) {
    int n = 0;
    for (std::uint32_t i = 0; i < w.control.entries(); ++i) n += w.control.yielding(i).has(stack) ? 1 : 0;
    return n;
  };
  CHECK(asked(0) == 64);
  CHECK(asked(1) == 0);
  const std::uint32_t seen = w.control.version();
  (void)w.join(3);
  CHECK(asked(0) > 64);
  CHECK_FALSE(w.control.yielded(0, seen, w.device));
  CHECK(asked(0) > 64);
  const std::uint32_t now = w.control.version();
  CHECK(w.control.yielded(0, now, w.device));
  CHECK(asked(0) == 0);
  CHECK(asked(1) > 0);
  CHECK(w.control.version() == now);  // nobody has to look again
  // What comes back to it, it need not tell.
  w.control.leave(2, w.device);
  w.control.leave(1, w.device);
  CHECK(asked(0) == 0);
}

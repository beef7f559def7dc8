#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <ranges>

#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

std::map<std::uint8_t, int> shares(const Board& board) {
  std::map<std::uint8_t, int> count;
  for (std::uint32_t i = 0; i < board.entries(); ++i) ++count[board.home(i)];
  return count;
}

bool even(const Board& board, std::size_t stacks) {
  const auto s = shares(board);
  const auto [least, most] = std::ranges::minmax(s | std::views::values);
  return s.size() == stacks && most - least <= 1;
}

double jain(const Board& board) {
  double sum = 0, squares = 0;
  const auto all = shares(board);
  for (const int n : all | std::views::values) sum += n, squares += double(n) * n;
  return sum * sum / (static_cast<double>(all.size()) * squares);
}

struct World {
  explicit World(std::uint32_t places = 16, std::uint32_t entries = 128) : device(1, places, entries) {}
  FakeDevice device;
  Board& board = device.board();
  std::uint8_t join(std::uint64_t process) {
    device.process = process;
    return board.join(device);
  }
};

}  // namespace

TEST_CASE("the table is shared out evenly, and a change moves as few entries as it can", "[board]") {
  const std::uint32_t places = GENERATE(16u, kMaxStacks);
  World w(places, GENERATE(128u, kMaxSteeringEntries));
  const Board& board = w.board;
  for (std::uint8_t n = 1; n <= places; ++n) {
    std::array<std::uint8_t, kMaxSteeringEntries> before{};
    for (std::uint32_t i = 0; i < board.entries(); ++i) before[i] = w.board.home(i);
    REQUIRE(w.join(n) == n - 1);
    REQUIRE(even(w.board, n));
    std::uint32_t moved = 0;
    for (std::uint32_t i = 0; i < board.entries(); ++i) {
      if (w.board.home(i) == before[i]) continue;
      ++moved;
      CHECK(w.board.home(i) == n - 1);  // only to the new one
      if (n > 1) CHECK(w.board.yielding(i).has(before[i]));
    }
    CHECK(moved <= board.entries() / n + 1);
  }
  CHECK(w.join(99) == Board::kNobody);
}

TEST_CASE("flows are shared among the stacks that serve, if there are any", "[board]") {
  World w;
  for (std::uint64_t p = 1; p <= 4; ++p) (void)w.join(p);
  w.board.set_serving(1, true, w.device);
  CHECK(even(w.board, 1));
  w.board.set_serving(3, true, w.device);
  CHECK(even(w.board, 2));
  CHECK(shares(w.board).contains(3));
  // A reload: the new ones come, the old ones stop serving; the entries remember them.
  w.board.set_serving(0, true, w.device);
  w.board.set_serving(2, true, w.device);
  w.board.set_serving(1, false, w.device);
  w.board.set_serving(3, false, w.device);
  CHECK(even(w.board, 2));
  int remembered = 0;
  for (std::uint32_t i = 0; i < w.board.entries(); ++i) {
    CHECK((w.board.home(i) == 0 || w.board.home(i) == 2));
    remembered += w.board.yielding(i).has(1) || w.board.yielding(i).has(3);
  }
  CHECK(remembered > 0);
  w.board.set_serving(0, false, w.device);
  w.board.set_serving(2, false, w.device);
  CHECK(even(w.board, 4));
}

TEST_CASE("one caller buries a dead stack and gets its flows; a living one is not buried", "[board]") {
  World w;
  (void)w.join(1);
  (void)w.join(2);
  w.board.records(1)[7].set(flow(2, 4));
  w.board.place(1).records_end = 8;
  const std::uint64_t hash = w.board.directory().hash(flow(2, 4));
  REQUIRE(w.board.directory().claim(hash, 1));
  w.board.note_listener(1, 0, {IpAddress::any_v4(), 80}, Listening::yes);
  w.device.process = 1;
  CHECK_FALSE(w.board.bury(1, 0, w.device));
  w.device.dead.insert(2);
  CHECK(w.board.bury(1, 0, w.device));
  REQUIRE(w.board.place(0).untold_end == 1);
  CHECK(w.board.untold(0)[0].key == flow(2, 4));
  CHECK(w.board.directory().find(hash).state == Directory::State::none);
  CHECK_FALSE(w.board.bury(1, 0, w.device));
  CHECK(w.board.members() == StackSet::of(0));
  CHECK(even(w.board, 1));
  CHECK(w.join(3) == 1);
  CHECK_FALSE(w.board.records(1)[7].is_used());
  CHECK(w.board.listening(1, {IpAddress::v4(10, 0, 0, 1), 80}) == Listening::no);
}

TEST_CASE("the shares are fair (Jain's index of 0.95) whatever the number of stacks, up to the last place", "[board]") {
  World w(kMaxStacks, GENERATE(128u, 256u, kMaxSteeringEntries));
  double least = 1;
  for (std::uint64_t p = 1; p <= kMaxStacks; ++p) {
    REQUIRE(w.join(p) == p - 1);
    least = std::min(least, jain(w.board));
  }
  CHECK(least >= 0.95);
  CHECK(w.board.members() == StackSet(~std::uint64_t{0}));
}

TEST_CASE("at capacity: deaths and leaves of all but the last, in any order, and the places are used again", "[board]") {
  World w(kMaxStacks, GENERATE(128u, kMaxSteeringEntries));
  for (std::uint64_t p = 1; p <= kMaxStacks; ++p) (void)w.join(p);
  // 17 is not a divisor: every place is met once.
  for (std::uint32_t i = 0, stack = 5; i < kMaxStacks - 1; ++i, stack = (stack + 17) % kMaxStacks) {
    w.device.process = 1000;
    if (i % 2 == 0) {
      w.device.dead.insert(stack + 1);
      REQUIRE(w.board.bury(static_cast<std::uint8_t>(stack), Board::kNobody, w.device));
    } else {
      w.board.leave(static_cast<std::uint8_t>(stack), w.device);
    }
    REQUIRE_FALSE(w.board.members().has(stack));
    REQUIRE(even(w.board, kMaxStacks - 1 - i));
    for (std::uint32_t e = 0; e < w.board.entries(); ++e) {
      REQUIRE(w.board.members().has(w.board.home(e)));
      REQUIRE((w.board.yielding(e) - w.board.members()).empty());
    }
  }
  w.device.dead.clear();
  for (std::uint64_t p = 2001; p < 2000 + kMaxStacks; ++p) REQUIRE(w.join(p) != Board::kNobody);
  CHECK(w.join(3000) == Board::kNobody);
  CHECK(even(w.board, kMaxStacks));
}

TEST_CASE("what a dead stack was to tell is its heir's, and waits for one if nobody is there", "[board]") {
  World w;
  (void)w.join(1);
  (void)w.join(2);
  (void)w.join(3);
  w.board.untold(2)[1].set(flow(2, 4));  // [0] has been told
  w.board.place(2).untold_end = 2;
  const bool dies = GENERATE(true, false);
  if (dies) {
    w.device.dead.insert(3);
  } else {
    w.device.process = 3;
    w.board.leave(2, w.device);
  }
  w.device.process = 2;
  CHECK(w.board.bury(2, 1, w.device));
  CHECK(w.board.place(2).untold_end == 0);
  REQUIRE(w.board.place(1).untold_end == 1);
  CHECK(w.board.untold(1)[0].key == flow(2, 4));
  w.device.dead.insert(2);
  w.device.process = 4;
  CHECK(w.board.bury(1, Board::kNobody, w.device));
  CHECK(w.join(4) == 1);
  CHECK(w.board.place(1).untold_end == 1);
}

TEST_CASE("the board says who has which listener; those beyond its list count for all that is not in it", "[board]") {
  World w;
  (void)w.join(1);
  const Endpoint web{IpAddress::v4(10, 0, 0, 1), 80}, other{IpAddress::v4(10, 0, 0, 2), 80};
  CHECK(w.board.listening(0, web) == Listening::no);
  w.board.note_listener(0, 3, web, Listening::yes);
  CHECK(w.board.listening(0, web) == Listening::yes);
  CHECK(w.board.listening(0, other) == Listening::no);
  CHECK(w.board.listening(0, {web.address, 81}) == Listening::no);
  w.board.note_listener(0, 200, {IpAddress::any_v6(), 80}, Listening::accepting);
  CHECK(w.board.listening(0, other) == Listening::accepting);
  CHECK(w.board.listening(0, web) == Listening::accepting);
  w.board.note_listener(0, 200, {IpAddress::any_v6(), 80}, Listening::no);
  CHECK(w.board.listening(0, web) == Listening::yes);
  w.board.place(0).unlisted = Listening::left;
  CHECK(w.board.listening(0, other) == Listening::left);
  CHECK(w.board.listening(0, web) == Listening::yes);
}

TEST_CASE("no bit of the hash decides alone whose a flow is: not even the consecutive ports of one client go to one stack", "[board]") {
  World w(16, GENERATE(128u, kMaxSteeringEntries));
  const auto stacks = GENERATE(2u, 4u, 8u);
  CAPTURE(stacks, w.board.entries());
  for (std::uint64_t p = 1; p <= stacks; ++p) (void)w.join(p);
  for (std::uint32_t bit = 1; bit < w.board.entries(); bit *= 2) {
    std::map<std::uint8_t, std::uint32_t> with;
    for (std::uint32_t i = 0; i < w.board.entries(); ++i)
      if ((i & bit) != 0) ++with[w.board.home(i)];
    CAPTURE(bit);
    REQUIRE(with.size() == stacks);
    for (const auto& [stack, n] : with) {
      CHECK(n > w.board.entries() / stacks / 4);
      CHECK(n < w.board.entries() / stacks * 3 / 4);
    }
  }
}

TEST_CASE("who loses entries is asked for their flows until it has said which it has, as of the last change", "[board]") {
  World w;
  (void)w.join(1);
  (void)w.join(2);
  const auto asked = [&](std::uint32_t stack) {
    int n = 0;
    for (std::uint32_t i = 0; i < w.board.entries(); ++i) n += w.board.yielding(i).has(stack) ? 1 : 0;
    return n;
  };
  CHECK(asked(0) == 64);
  CHECK(asked(1) == 0);
  const std::uint32_t seen = w.board.version();
  (void)w.join(3);
  CHECK(asked(0) > 64);
  CHECK_FALSE(w.board.yielded(0, seen, w.device));
  CHECK(asked(0) > 64);
  const std::uint32_t now = w.board.version();
  CHECK(w.board.yielded(0, now, w.device));
  CHECK(asked(0) == 0);
  CHECK(asked(1) > 0);
  CHECK(w.board.version() == now);  // nobody has to look again
  // What comes back to it, it need not tell.
  w.board.leave(2, w.device);
  w.board.leave(1, w.device);
  CHECK(asked(0) == 0);
}

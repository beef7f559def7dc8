#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <ranges>

#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

std::map<std::uint8_t, int> shares(const Board& board) {
  std::map<std::uint8_t, int> count;
  for (std::uint32_t i = 0; i < kSteeringEntries; ++i) ++count[board.owners(i).present];
  return count;
}

bool even(const Board& board, std::size_t stacks) {
  const auto s = shares(board);
  const auto [least, most] = std::ranges::minmax(s | std::views::values);
  return s.size() == stacks && most - least <= 1;
}

struct World {
  FakeDevice device;
  Board& board = device.board();
  std::uint8_t join(std::uint64_t process) {
    device.process = process;
    return board.join(device);
  }
};

}  // namespace

TEST_CASE("the table is shared out evenly, and a change moves as few entries as it can", "[board]") {
  World w;
  for (std::uint8_t n = 1; n <= kMaxStacks; ++n) {
    std::array<std::uint8_t, kSteeringEntries> before{};
    for (std::uint32_t i = 0; i < kSteeringEntries; ++i) before[i] = w.board.owners(i).present;
    REQUIRE(w.join(n) == n - 1);
    REQUIRE(even(w.board, n));
    std::uint32_t moved = 0;
    for (std::uint32_t i = 0; i < kSteeringEntries; ++i) {
      const Board::Owners o = w.board.owners(i);
      if (o.present == before[i]) continue;
      ++moved;
      CHECK(o.present == n - 1);  // only to the new one
      if (n > 1) CHECK(o.previous == before[i]);
    }
    CHECK(moved <= kSteeringEntries / n + 1);
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
  for (std::uint32_t i = 0; i < kSteeringEntries; ++i) {
    const Board::Owners o = w.board.owners(i);
    CHECK((o.present == 0 || o.present == 2));
    remembered += o.previous == 1 || o.previous == 3;
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
  w.board.ledger(1)[7] = {1, 2, 3, 4};
  w.board.place(1).ledger_end = 8;
  std::vector<LedgerEntry> flows;
  w.device.process = 1;
  CHECK_FALSE(w.board.bury(1, w.device, flows));
  w.device.dead.insert(2);
  CHECK(w.board.bury(1, w.device, flows));
  REQUIRE(flows.size() == 1);
  CHECK(flows[0].remote_port == 4);
  CHECK_FALSE(w.board.bury(1, w.device, flows));
  CHECK(w.board.members() == 1);
  CHECK(even(w.board, 1));
  CHECK(w.join(3) == 1);
  CHECK(w.board.ledger(1)[7].local == 0);
}

// The right to change a board's members and table.
#pragma once

#include <cstdint>
#include <thread>

#include "stack/steering/board.hh"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack {

// Whoever finds it with a dead process takes it.
class Board::Lock {
 public:
  Lock(Board& board, const SharedDevice& device) : board_(board) {
    std::atomic<std::uint64_t>& changer = board_.head().changer;
    // Nobody takes so long; but one that has been stopped in there, or has gone mad, must not stop all others.
    constexpr std::uint32_t kPatience = 1'000'000;
    for (std::uint32_t tries = 1; tries < kPatience; ++tries) {
      std::uint64_t holder = 0;
      if (changer.compare_exchange_strong(holder, device.self(), std::memory_order_acquire)) return;
      constexpr std::uint32_t kBetweenLooks = 64;
      if (tries % kBetweenLooks == 0 && !device.alive(holder) &&
          changer.compare_exchange_strong(holder, device.self(), std::memory_order_acquire))
        return;
      std::this_thread::yield();
    }
  }
  ~Lock() { board_.head().changer.store(0, std::memory_order_release); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Board& board_;
};

// The same for one that changes them: share_out() completes it, whatever was half done.
class Board::Change {
 public:
  Change(Board& board, const SharedDevice& device) : board_(board), lock_(board, device) {}
  ~Change() {
    board_.share_out();
    board_.head().version.fetch_add(1, std::memory_order_release);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  Board& board_;
  const Lock lock_;
};

}  // namespace mtcp::stack

// A hierarchical timer wheel with a tick of one millisecond. Nodes are intrusive; arming, cancelling and
// firing are O(1). Postponing a timer that is armed only writes its deadline: the node is moved when its old
// slot comes up.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/time.hh"

namespace mtcp::stack {

// Part of the object that the timer is for. Not copyable; cancelled when destroyed.
class TimerNode {
 public:
  explicit TimerNode(std::uint8_t kind = 0) : kind_(kind) {}
  TimerNode(const TimerNode&) = delete;
  TimerNode& operator=(const TimerNode&) = delete;
  ~TimerNode() { unlink(); }

  [[nodiscard]] bool armed() const { return armed_; }
  [[nodiscard]] std::uint64_t deadline_tick() const { return deadline_; }
  // What the owner uses to tell its timers apart.
  [[nodiscard]] std::uint8_t kind() const { return kind_; }

 private:
  friend class TimerWheel;
  void unlink() {
    if (link_ == nullptr) return;
    *link_ = next_;
    if (next_ != nullptr) next_->link_ = link_;
    next_ = nullptr;
    link_ = nullptr;
  }
  TimerNode* next_ = nullptr;
  TimerNode** link_ = nullptr;  // what points to this node; null: in no slot
  std::uint64_t deadline_ = 0;  // tick at which it is due
  std::uint64_t slotted_ = 0;   // tick that its place in the wheel stands for (<= deadline_)
  std::uint8_t kind_;
  bool armed_ = false;  // false while linked: cancelled lazily, dropped when its slot comes up
};

class TimerWheel {
 public:
  explicit TimerWheel(Time now);
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;
  ~TimerWheel();

  // Due at `when`, rounded up to the next tick; never before. Re-arms a node that is armed.
  void arm(TimerNode& node, Time when);
  void cancel(TimerNode& node) { node.armed_ = false; }
  // Unlinks everything due at or before `now`, one node at a time: returns null when nothing is left. A node
  // is no longer armed when it is returned, and may be armed again by the caller.
  TimerNode* expire(Time now);
  // No timer fires before this; a lower bound (a cascade or a postponed timer may make it early). kNever if
  // none.
  [[nodiscard]] Time next_deadline() const;

  [[nodiscard]] static std::uint64_t tick_of(Time t) {
    return static_cast<std::uint64_t>(t.time_since_epoch().count()) / 1'000'000U;
  }

 private:
  static constexpr unsigned kLevels = 4, kBits = 8, kSlots = 1U << kBits;  // 2^32 ms
  void link(TimerNode& node);
  static void push(TimerNode*& head, TimerNode& node);
  void cascade();
  bool advance(std::uint64_t target);
  [[nodiscard]] unsigned next_slot(unsigned level, unsigned from) const;
  [[nodiscard]] bool idle() const;

  std::array<std::array<TimerNode*, kSlots>, kLevels> slots_{};
  std::array<std::array<std::uint64_t, kSlots / 64>, kLevels> occupied_{};
  TimerNode* due_ = nullptr;   // nodes of the tick that is being worked through
  std::uint64_t current_ = 0;  // every tick before this one has been worked through
};

}  // namespace mtcp::stack

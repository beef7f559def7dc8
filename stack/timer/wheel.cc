#include "stack/timer/wheel.hh"

#include <algorithm>

namespace mtcp::stack {

namespace {
constexpr std::uint64_t kSlotMask = 255;
constexpr std::uint64_t kFarthest = 0xffffffffU;  // ticks that the wheel can tell apart
}  // namespace

TimerWheel::TimerWheel(Time now) : current_(tick_of(now) + 1) {}

TimerWheel::~TimerWheel() {
  for (auto& level : slots_)
    for (TimerNode*& head : level)
      while (head != nullptr) head->unlink();
  while (due_ != nullptr) due_->unlink();
}

void TimerWheel::push(TimerNode*& head, TimerNode& node) {
  node.next_ = head;
  if (head != nullptr) head->link_ = &node.next_;
  node.link_ = &head;
  head = &node;
}

void TimerWheel::arm(TimerNode& node, Time when) {
  if (when == kNever) return cancel(node);
  // Rounded up, so that nothing fires before its time.
  node.deadline_ = (static_cast<std::uint64_t>(when.time_since_epoch().count()) + 999'999U) / 1'000'000U;
  node.armed_ = true;
  // Postponing leaves the node where it is: it is moved when its slot comes up.
  if (node.link_ != nullptr && node.slotted_ <= node.deadline_) return;
  node.unlink();
  link(node);
}

void TimerWheel::link(TimerNode& node) {
  node.slotted_ = std::clamp(node.deadline_, current_, current_ + kFarthest);
  const std::uint64_t delta = node.slotted_ - current_;
  unsigned level = 0;
  while (level + 1 < kLevels && delta >> (kBits * (level + 1)) != 0) ++level;
  const auto slot = static_cast<unsigned>(node.slotted_ >> (kBits * level) & kSlotMask);
  occupied_[level][slot / 64] |= std::uint64_t{1} << (slot % 64);
  push(slots_[level][slot], node);
}

// The first slot at or after `from` that may hold nodes, kSlots if there is none up to the end of the level.
unsigned TimerWheel::next_slot(unsigned level, unsigned from) const {
  for (unsigned word = from / 64; word < kSlots / 64; ++word) {
    std::uint64_t bits = occupied_[level][word];
    if (word == from / 64) bits &= ~std::uint64_t{0} << (from % 64);
    if (bits != 0) return word * 64 + static_cast<unsigned>(__builtin_ctzll(bits));
  }
  return kSlots;
}

bool TimerWheel::idle() const {
  std::uint64_t any = 0;
  for (const auto& level : occupied_)
    for (const std::uint64_t word : level) any |= word;
  return any == 0;
}

// current_ has reached the end of a level-0 round: spreads the next slot of the level above, and so on
// upwards.
void TimerWheel::cascade() {
  for (unsigned level = 1; level < kLevels; ++level) {
    const auto slot = static_cast<unsigned>(current_ >> (kBits * level) & kSlotMask);
    TimerNode* list = slots_[level][slot];
    slots_[level][slot] = nullptr;
    occupied_[level][slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
    if (list != nullptr) list->link_ = &list;
    while (list != nullptr) {
      TimerNode& node = *list;
      node.unlink();
      if (node.armed_) link(node);
    }
    if (slot != 0) break;
  }
}

// Moves on to the next tick up to `target` that has nodes and makes them due_. False: there is none.
bool TimerWheel::advance(std::uint64_t target) {
  if (current_ > target) return false;
  if (idle()) {
    current_ = target + 1;
    return false;
  }
  while (current_ <= target) {
    const unsigned slot = next_slot(0, static_cast<unsigned>(current_ & kSlotMask));
    const std::uint64_t tick =
        (current_ & ~kSlotMask) + slot;  // the start of the next round if there is none
    if (tick > target) {
      current_ = target + 1;
      if ((current_ & kSlotMask) == 0) cascade();
      return false;
    }
    if (slot == kSlots) {
      current_ = tick;
      cascade();
      continue;
    }
    due_ = slots_[0][slot];
    slots_[0][slot] = nullptr;
    if (due_ != nullptr) due_->link_ = &due_;
    occupied_[0][slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
    current_ = tick + 1;
    if ((current_ & kSlotMask) == 0) cascade();
    if (due_ != nullptr) return true;
  }
  return false;
}

TimerNode* TimerWheel::expire(Time now) {
  const std::uint64_t target = tick_of(now);
  for (;;) {
    while (due_ != nullptr) {
      TimerNode& node = *due_;
      node.unlink();
      if (!node.armed_) continue;        // cancelled
      if (node.deadline_ >= current_) {  // postponed
        link(node);
        continue;
      }
      node.armed_ = false;
      return &node;
    }
    if (!advance(target)) return nullptr;
  }
}

// A slot is also marked where a timer was that is gone, cancelled or postponed. Of those that come up next, a bounded number is passed by: a
// short connection leaves several behind, and whoever sleeps would be woken for each.
Time TimerWheel::next_deadline() const {
  if (due_ != nullptr) return Time(milliseconds(current_ - 1));
  int left = 32;  // slots and nodes to look at
  std::uint64_t first = UINT64_MAX;
  // The first slot that is marked at or after `at`, counted on over the end of the level; far beyond it if there is none.
  const auto next_marked = [this](unsigned level, std::uint64_t at) {
    unsigned slot = next_slot(level, static_cast<unsigned>(at & kSlotMask));
    if (slot == kSlots) slot += next_slot(level, 0);
    return (at & ~kSlotMask) + slot;
  };
  // Whether a timer is due in this slot; it may be once enough has been looked at. A postponed one counts for `first` only.
  const auto has_due = [&](const TimerNode* node) {
    for (; --left > 0 && node != nullptr; node = node->next_) {
      if (!node->armed_) continue;
      if (node->deadline_ <= node->slotted_) return true;
      first = std::min(first, node->deadline_);
    }
    return left <= 0;
  };
  for (unsigned level = 0; level < kLevels; ++level) {
    const unsigned shift = kBits * level;
    const std::uint64_t round = current_ >> shift;
    // On the upper levels the slot under the hand has been spread already: it stands for the next round.
    std::uint64_t at = next_marked(level, level == 0 ? round : round + 1);
    while (at <= round + kSlots && at << shift < first && !has_due(slots_[level][at & kSlotMask])) at = next_marked(level, at + 1);
    if (at <= round + kSlots) first = std::min(first, at << shift);
  }
  return first == UINT64_MAX ? kNever : Time(milliseconds(first));
}

}  // namespace mtcp::stack

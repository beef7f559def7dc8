// The card's own table: which queue a packet comes on. It follows ours, so that packets come where they belong and
// nothing has to be passed on. Only that: whatever the card does, packets reach their owners.
#include <algorithm>

#include "stack/steering/steering_port.hh"

namespace mtcp::stack {

bool ControlBlock::spread_by(std::span<const std::uint8_t> queues, std::uint64_t self, SharedDevice& device) {
  Card& card = head().card;
  if (card.fixed.load(std::memory_order_acquire)) return true;
  const auto known = [&card](std::size_t entry) { return card.queues[entry].load(std::memory_order_relaxed) - 1; };
  std::size_t same = 0;
  while (same < queues.size() && known(same) == queues[same]) ++same;
  if (same == queues.size()) return true;
  std::uint64_t holder = 0;
  if (!card.changer.compare_exchange_strong(holder, self, std::memory_order_acquire)) {
    // Who died in there may have left the driver's own locks taken: nobody goes there again.
    if (!device.alive(holder)) card.fixed.store(true, std::memory_order_release);
    return false;
  }
  if (device.redirect(queues)) {
    for (std::size_t i = 0; i < queues.size(); ++i)
      card.queues[i].store(static_cast<std::uint8_t>(queues[i] + 1), std::memory_order_relaxed);
  } else {
    card.fixed.store(true, std::memory_order_release);
  }
  card.changer.store(0, std::memory_order_release);
  return true;
}

// Each entry comes on a queue of its owner, on all of them in turn; those of a stack without a queue come anywhere. The
// first of the stacks sees to it.
void SteeringPort::point_card(Time now) {
  const std::uint32_t all = device_.queues();
  if (all < 2 || now < next_card_ || (!others_.empty() && others_.first() < me_)) return;
  next_card_ = now + kRound;
  std::array<StackSet, kMaxStacks> turn;  // by stack: the queues that have not had one yet
  std::array<std::uint8_t, kMaxSteeringEntries> queues;
  for (std::uint32_t i = 0; i <= entry_mask_; ++i) {
    std::uint32_t queue = i % all;
    if (const std::uint32_t owner = table_[i]; owner < kMaxStacks) {
      if (turn[owner].empty()) turn[owner] = StackSet(control_.slot(owner).queues.load(std::memory_order_acquire));
      if (!turn[owner].empty()) {
        queue = std::min(turn[owner].first(), all - 1);
        turn[owner].remove(turn[owner].first());
      }
    }
    queues[i] = static_cast<std::uint8_t>(queue);
  }
  card_is_told_ = control_.spread_by(std::span(queues).first(entry_mask_ + 1), self_, device_);
}

}  // namespace mtcp::stack

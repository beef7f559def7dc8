#include "stack/ip/neighbour.hh"

#include <algorithm>
#include <bit>

namespace mtcp::stack {

NeighbourTable::NeighbourTable(std::size_t limit)
    : limit_(limit),
      shift_(64U - static_cast<unsigned>(std::bit_width(std::max<std::size_t>(limit, 2) - 1) + 1)),
      buckets_(std::size_t{1} << (64U - shift_)) {}

Neighbour* NeighbourTable::insert(const IpAddress& address, PacketList& evicted) {
  Neighbour* n = nullptr;
  if (entries_.size() < limit_) {
    n = &entries_.emplace_back();
  } else {
    n = choose_victim();
    if (n == nullptr) return nullptr;
    unlink(*n);
    evicted = n->queue;
    *n = Neighbour{};
  }
  n->address = address;
  Neighbour*& head = buckets_[bucket(address)];
  n->chain = head;
  head = n;
  return n;
}

// Half of the table is for neighbours that are known. So a flood of addresses that do not exist (spoofed
// sources that we try to answer) takes entries from itself; among the known ones those in use get a second
// chance.
Neighbour* NeighbourTable::choose_victim() {
  const auto known = static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.end(), [](const Neighbour& n) { return n.resolved(); }));
  const bool spare_known = entries_.size() - known >= (limit_ + 1) / 2;
  for (std::size_t step = 0; step < 2 * entries_.size(); ++step) {
    Neighbour& n = entries_[hand_];
    hand_ = (hand_ + 1) % entries_.size();
    if (n.pinned || (spare_known && n.resolved())) continue;
    if (!n.used) return &n;
    n.used = false;
  }
  return nullptr;
}

void NeighbourTable::unlink(Neighbour& n) {
  Neighbour** at = &buckets_[bucket(n.address)];
  while (*at != &n) at = &(*at)->chain;
  *at = n.chain;
}

}  // namespace mtcp::stack

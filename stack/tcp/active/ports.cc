#include "stack/tcp/active/ports.hh"

#include <cassert>

namespace mtcp::stack {

Ports::Ports(std::uint16_t first, std::uint16_t last, SipKey key, std::uint64_t start, PortCounters* shared)
    : key_(key),
      first_(first),
      count_(last >= first ? std::uint32_t{last} - first + 1 : 1),
      free_count_(count_),
      live_(count_),
      in_time_wait_(count_),
      all_((count_ + 63) / 64, ~std::uint64_t{0}),
      counters_(kCounters),
      own_(shared == nullptr ? std::make_unique<PortCounters>() : nullptr),
      shared_(shared == nullptr ? own_.get() : shared) {
  if (count_ % 64 != 0) all_.back() = (std::uint64_t{1} << (count_ % 64)) - 1;
  free_ = idle_ = all_;
  // Where each destination's counter starts must not be known either.
  for (std::size_t i = 0; own_ != nullptr && i < kCounters; ++i)
    own_->next[i].store(static_cast<std::uint32_t>(siphash_words<2, 4>(key_, std::uint64_t{i}, 3U, start)),
                        std::memory_order_relaxed);
}

void Ports::take_block(Counter& counter, std::size_t index) {
  // What was walked over behind the last block was in use, for others as well.
  const auto beyond = static_cast<std::uint32_t>(-counter.left);
  counter.next = beyond + shared_->next[index].fetch_add(beyond + kBlock, std::memory_order_relaxed);
  counter.left = kBlock;
}

void Ports::update(std::uint32_t at) {
  const std::uint64_t bit = std::uint64_t{1} << (at % 64);
  std::uint64_t& free = free_[at / 64];
  std::uint64_t& idle = idle_[at / 64];
  const bool was_free = (free & bit) != 0;
  const bool is_idle = live_[at] == 0;
  const bool is_free = is_idle && in_time_wait_[at] == 0;
  idle = is_idle ? idle | bit : idle & ~bit;
  free = is_free ? free | bit : free & ~bit;
  if (is_free != was_free) free_count_ = is_free ? free_count_ + 1 : free_count_ - 1;
}

void Ports::hold(std::uint16_t port) {
  if (!in_range(port)) return;
  const std::uint32_t at = port - first_;
  if (live_[at]++ == 0) update(at);
}

void Ports::release(std::uint16_t port) {
  if (!in_range(port)) return;
  const std::uint32_t at = port - first_;
  assert(live_[at] > 0);
  if (--live_[at] == 0) update(at);
}

void Ports::enter_time_wait(std::uint16_t port) {
  if (!in_range(port)) return;
  const std::uint32_t at = port - first_;
  assert(live_[at] > 0);
  --live_[at];
  ++in_time_wait_[at];
  update(at);
}

void Ports::leave_time_wait(std::uint16_t port) {
  if (!in_range(port)) return;
  const std::uint32_t at = port - first_;
  assert(in_time_wait_[at] > 0);
  if (--in_time_wait_[at] == 0) update(at);
}

}  // namespace mtcp::stack

#include "stack/steering/reservations.hh"

namespace mtcp::stack {

bool Reservations::take(std::uint32_t hash, std::uint8_t stack) {
  std::uint8_t free = 0;
  return slot(hash).compare_exchange_strong(free, static_cast<std::uint8_t>(stack + 1), std::memory_order_relaxed);
}

void Reservations::give_back(std::uint32_t hash, std::uint8_t stack) {
  auto ours = static_cast<std::uint8_t>(stack + 1);
  slot(hash).compare_exchange_strong(ours, 0, std::memory_order_relaxed);
}

void Reservations::forget(std::uint8_t stack) {
  for (std::size_t i = 0; i < kMemory; ++i) {
    auto ours = static_cast<std::uint8_t>(stack + 1);
    if (slots_[i].load(std::memory_order_relaxed) == ours)
      slots_[i].compare_exchange_strong(ours, 0, std::memory_order_relaxed);
  }
}

}  // namespace mtcp::stack

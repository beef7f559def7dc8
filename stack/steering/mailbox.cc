#include "stack/steering/mailbox.hh"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "stack/packet/packet.hh"

namespace mtcp::stack {
namespace {
constexpr std::size_t kLine = 64;
constexpr std::size_t round_up(std::size_t n) { return (n + kLine - 1) / kLine * kLine; }
constexpr std::size_t kSlotHeader = 24;
}  // namespace

std::size_t Mailbox::memory(std::size_t frame, std::size_t slots) {
  return sizeof(Ends) + round_up(kSlotHeader + frame) * slots;
}

Mailbox::Mailbox(std::byte* memory, std::size_t frame, std::size_t slots)
    : memory_(memory), stride_(round_up(kSlotHeader + frame)), slots_(static_cast<std::uint32_t>(slots)) {
  static_assert(sizeof(Slot) == kSlotHeader);
  assert((slots & (slots - 1)) == 0);
}

std::size_t Mailbox::room() const {
  if (memory_ == nullptr) [[unlikely]] return 0;
  const std::uint32_t used = ends().written.load(std::memory_order_relaxed) - ends().read.load(std::memory_order_acquire);
  return used >= slots_ ? 0 : slots_ - used;
}

bool Mailbox::write(std::size_t n, const Letter& letter) {
  if (letter.bytes.size() > stride_ - kSlotHeader) return false;
  Slot& s = slot(ends().written.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(n));
  s.length = static_cast<std::uint32_t>(letter.bytes.size());
  s.kind = letter.kind;
  s.tag = letter.tag;
  s.flow = letter.flow;
  s.flags = letter.flags;
  std::memcpy(s.bytes(), letter.bytes.data(), letter.bytes.size());
  return true;
}

void Mailbox::announce(std::size_t n) {
  const std::uint32_t written = ends().written.load(std::memory_order_relaxed);
  ends().written.store(written + static_cast<std::uint32_t>(n), std::memory_order_release);
}

bool Mailbox::empty() {
  if (memory_ == nullptr) return true;
  const std::uint32_t written = ends().written.load(std::memory_order_acquire);
  const std::uint32_t waiting = written - ends().read.load(std::memory_order_relaxed);
  if (waiting != 0 && waiting <= slots_) [[likely]]
    return false;
  if (waiting != 0) ends().read.store(written, std::memory_order_release);
  return true;
}

Letter Mailbox::read() const {
  Slot& s = slot(ends().read.load(std::memory_order_relaxed));
  constexpr std::uint16_t kFlags = kRxL4Good | kTxL4Offload | kAsked | kFinal | kHandover;
  return {s.kind, static_cast<std::uint16_t>(s.flags & kFlags), s.tag, {s.bytes(), std::min<std::size_t>(s.length, stride_ - kSlotHeader)}, s.flow};
}

void Mailbox::release() {
  ends().read.store(ends().read.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void Mailbox::drain(const std::function<void(const Letter&)>& visit) {
  for (std::uint32_t left = slots_; left > 0 && !empty(); --left, release()) visit(read());
}

}  // namespace mtcp::stack

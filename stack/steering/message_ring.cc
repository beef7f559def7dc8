#include "stack/steering/message_ring.hh"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "stack/packet/packet.hh"

namespace mtcp::stack {
namespace {
constexpr std::size_t kLine = 64;
constexpr std::size_t round_up(std::size_t n) { return (n + kLine - 1) / kLine * kLine; }
constexpr std::size_t kCellHeader = 24;
}  // namespace

std::size_t MessageRing::memory(std::size_t frame, std::size_t cells) {
  return sizeof(Ends) + round_up(kCellHeader + frame) * cells;
}

MessageRing::MessageRing(std::byte* memory, std::size_t frame, std::size_t cells)
    : memory_(memory), stride_(round_up(kCellHeader + frame)), cells_(static_cast<std::uint32_t>(cells)) {
  static_assert(sizeof(Cell) == kCellHeader);
  assert((cells & (cells - 1)) == 0);
}

std::size_t MessageRing::room() const {
  if (memory_ == nullptr) [[unlikely]] return 0;
  const std::uint32_t used = ends().written.load(std::memory_order_relaxed) - ends().read.load(std::memory_order_acquire);
  return used >= cells_ ? 0 : cells_ - used;
}

bool MessageRing::write(std::size_t n, const Message& message) {
  if (message.bytes.size() > stride_ - kCellHeader) return false;
  Cell& s = cell(ends().written.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(n));
  s.length = static_cast<std::uint32_t>(message.bytes.size());
  s.kind = message.kind;
  s.tag = message.tag;
  s.flow = message.flow;
  s.flags = message.flags;
  std::memcpy(s.bytes(), message.bytes.data(), message.bytes.size());
  return true;
}

void MessageRing::announce(std::size_t n) {
  const std::uint32_t written = ends().written.load(std::memory_order_relaxed);
  ends().written.store(written + static_cast<std::uint32_t>(n), std::memory_order_release);
}

bool MessageRing::empty() {
  if (memory_ == nullptr) return true;
  const std::uint32_t written = ends().written.load(std::memory_order_acquire);
  const std::uint32_t waiting = written - ends().read.load(std::memory_order_relaxed);
  if (waiting != 0 && waiting <= cells_) [[likely]]
    return false;
  if (waiting != 0) ends().read.store(written, std::memory_order_release);
  return true;
}

Message MessageRing::at(std::uint32_t n) const {
  Cell& s = cell(n);
  constexpr std::uint16_t kFlags = kRxL4Good | kTxL4Offload | kAsked | kFinal | kHandover;
  return {s.kind, static_cast<std::uint16_t>(s.flags & kFlags), s.tag, {s.bytes(), std::min<std::size_t>(s.length, stride_ - kCellHeader)}, s.flow};
}

Message MessageRing::read() const { return at(ends().read.load(std::memory_order_relaxed)); }

std::span<const Message> MessageRing::read_group(Group& out) const {
  const std::uint32_t first = ends().read.load(std::memory_order_relaxed);
  const std::size_t most = std::min<std::size_t>({ends().written.load(std::memory_order_acquire) - first, cells_, out.size()});
  out[0] = at(first);
  std::size_t n = 1;
  for (; out[0].kind == MessageKind::handover && n < most; ++n) {
    out[n] = at(first + static_cast<std::uint32_t>(n));
    if (out[n].kind != MessageKind::handover || out[n].flow != out[0].flow) break;
  }
  return std::span(out).first(n);
}

void MessageRing::release(std::size_t n) {
  ends().read.store(ends().read.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(n), std::memory_order_release);
}

void MessageRing::drain(const std::function<void(std::span<const Message>)>& visit) {
  Group group;
  for (std::size_t left = cells_; left > 0 && !empty();) {
    const std::span<const Message> messages = read_group(group);
    visit(messages);
    release(messages.size());
    left -= std::min(left, messages.size());
  }
}

}  // namespace mtcp::stack

#include "stack/steering/control_block.hh"

#include <algorithm>
#include <bit>
#include <cassert>

#include "stack/steering/control_lock.hh"
#include "stack/steering/message_ring.hh"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
constexpr std::size_t kRecordBytes = pages(sizeof(FlowRecord) * ControlBlock::kRecords);
constexpr std::size_t kFlowBytes = kRecordBytes + pages(sizeof(FlowRecord) * ControlBlock::kUntold);  // of one stack
// What counts of a list whose end is written down beside it.
std::span<FlowRecord> used(std::span<FlowRecord> list, const std::atomic<std::uint32_t>& end) {
  return list.first(std::min<std::size_t>(end.load(std::memory_order_acquire), list.size()));
}
std::size_t ring_bytes(std::size_t frame) { return pages(MessageRing::memory(frame, ControlBlock::kRingMessages)); }

}  // namespace

std::size_t ControlBlock::memory(const Shape& shape) {
  const std::size_t slots = shape.slots;
  return head_memory(shape) + kFlowBytes * slots + ring_bytes(shape.frame) * slots * slots;
}

std::size_t ControlBlock::head_memory(const Shape& shape) { return pages(sizeof(Head)) + pages(Directory::memory(shape.words())); }

SipKey ControlBlock::directory_key(const Secrets& secrets) {
  const SipKey key{secrets[0], secrets[1]};
  return {siphash_words<2, 4>(key, secrets[2], std::uint64_t{0x4449'5200}), siphash_words<2, 4>(key, secrets[3], std::uint64_t{0x4449'5201})};
}

ControlBlock::ControlBlock(std::byte* memory, const Shape& shape, const Secrets& secrets)
    : memory_(memory),
      shape_(shape),
      secrets_(secrets),
      directory_(memory + pages(sizeof(Head)), shape.words(), directory_key(secrets)) {
  prepare();
}

ControlBlock::ControlBlock(std::byte* head, Map map, const Shape& shape, const Secrets* secrets)
    : memory_(head),
      map_(std::move(map)),
      parts_(std::size_t{shape.slots} * (shape.slots + 1)),
      shape_(shape),
      secrets_(secrets != nullptr ? *secrets : this->head().secrets),
      directory_(head + pages(sizeof(Head)), shape.words(), directory_key(secrets_)) {
  if (secrets != nullptr) prepare();
}

std::byte* ControlBlock::part(std::size_t index, std::size_t offset, std::size_t bytes) {
  if (map_ == nullptr) return memory_ + offset;
  std::byte* known = parts_[index].load(std::memory_order_acquire);
  if (known != nullptr) [[likely]] return known;
  const std::lock_guard guard(mapping_);
  known = parts_[index].load(std::memory_order_relaxed);
  if (known == nullptr) parts_[index].store(known = map_(offset, bytes), std::memory_order_release);
  return known;
}

void ControlBlock::prepare() {
  assert(shape_.slots > 0 && shape_.slots <= kMaxStacks);
  assert(std::has_single_bit(shape_.entries) && shape_.entries <= kMaxSteeringEntries);
  head().secrets = secrets_;
  for (auto& e : head().table) e.store(kNobody, std::memory_order_relaxed);
  head().version.store(1, std::memory_order_release);
}

std::span<FlowRecord> ControlBlock::records(std::uint32_t stack) {
  std::byte* flows = part(stack, head_memory(shape_) + kFlowBytes * stack, kFlowBytes);
  if (flows == nullptr) return {};
  return {reinterpret_cast<FlowRecord*>(flows), kRecords};
}

std::span<FlowRecord> ControlBlock::untold(std::uint32_t stack) {
  std::byte* flows = reinterpret_cast<std::byte*>(records(stack).data());
  if (flows == nullptr) return {};
  return {reinterpret_cast<FlowRecord*>(flows + kRecordBytes), kUntold};
}

std::byte* ControlBlock::ring_memory(std::uint32_t from, std::uint32_t to) {
  const std::size_t pair = std::size_t{from} * slots() + to, bytes = ring_bytes(frame());
  return part(slots() + pair, head_memory(shape_) + kFlowBytes * slots() + bytes * pair, bytes);
}

StackSet ControlBlock::members() const {
  StackSet all;
  for (std::uint8_t i = 0; i < slots(); ++i)
    if (present(i)) all.add(i);
  return all;
}

std::uint8_t ControlBlock::join(const SharedDevice& device) {
  const Change change(*this, device);
  for (std::uint8_t i = 0; i < slots(); ++i) {
    Slot& p = slot(i);
    if (p.owner.load(std::memory_order_acquire) != 0) continue;
    // What came for a former stack of this slot is received like any other's; its own message ring is not for messages.
    StackSet senders;
    for (std::uint32_t from = 0; from < slots(); ++from)
      if (from != i && !MessageRing(ring_memory(from, i), frame(), kRingMessages).empty()) senders.add(from);
    p.senders.store(senders.bits(), std::memory_order_relaxed);
    directory_.begin_generation(i);
    p.sleeping.store(0, std::memory_order_relaxed);
    p.program.store(device.program(), std::memory_order_relaxed);
    p.owner.store(device.self(), std::memory_order_release);
    return i;
  }
  head().refusals.fetch_add(1, std::memory_order_relaxed);
  return kNobody;
}

// The slot is free afterwards.
void ControlBlock::vacate(std::uint8_t stack) {
  Slot& p = slot(stack);
  for (FlowRecord& r : used(records(stack), p.records_end)) r.clear();
  p.records_end.store(0, std::memory_order_relaxed);
  directory_.begin_generation(stack);
  for (auto& e : head().yielding) e.fetch_and(~StackSet::of(stack).bits(), std::memory_order_release);
  const std::uint32_t listed = std::min(p.listeners_end.exchange(0, std::memory_order_relaxed), kListeners);
  for (std::uint32_t i = 0; i < listed; ++i) p.listeners[i].store(0, std::memory_order_relaxed);
  p.unlisted.store(Listening::no, std::memory_order_relaxed);
  p.serving.store(false, std::memory_order_relaxed);
  p.offering.store(false, std::memory_order_relaxed);
  p.stopped.store(0, std::memory_order_relaxed);
  p.queues.store(0, std::memory_order_relaxed);
  p.owner.store(0, std::memory_order_release);
}

void ControlBlock::leave(std::uint8_t stack, const SharedDevice& device) {
  const Change change(*this, device);
  vacate(stack);
}

void ControlBlock::inherit(std::span<const FlowRecord> records, std::uint8_t successor) {
  const std::span<FlowRecord> all = untold(successor);
  auto end = static_cast<std::uint32_t>(used(all, slot(successor).untold_end).size());
  for (const FlowRecord& r : records)
    if (r.is_used() && end < all.size()) all[end++].set(r.key);
  slot(successor).untold_end.store(end, std::memory_order_release);
}

// The successor has everything before the dead one's is forgotten: whoever dies in between, some are told twice, nobody never.
bool ControlBlock::reap(std::uint8_t stack, std::uint8_t successor, const SharedDevice& device,
                 const std::function<void(std::span<const Message>)>& messages) {
  const Change change(*this, device);
  Slot& p = slot(stack);
  const std::uint64_t owner = p.owner.load(std::memory_order_acquire);
  if (owner != 0 && device.alive(owner)) return false;
  if (owner == 0 && (successor == kNobody || !left_something(stack))) return false;
  if (successor == kNobody) successor = stack;
  inherit(used(records(stack), p.records_end), successor);
  if (successor != stack) {
    inherit(used(untold(stack), p.untold_end), successor);
    p.untold_end.store(0, std::memory_order_release);
  }
  if (messages) p.senders.store(0, std::memory_order_relaxed);
  for (std::uint32_t from = 0; from < slots() && messages; ++from)
    if (from != stack) MessageRing(this->ring_memory(from, stack), frame(), kRingMessages).drain(messages);
  if (owner != 0) vacate(stack);
  return true;
}

bool ControlBlock::left_something(std::uint8_t stack) const {
  const Slot& p = slot(stack);
  return !present(stack) && (p.untold_end.load(std::memory_order_acquire) != 0 || p.senders.load(std::memory_order_acquire) != 0);
}

void ControlBlock::take_unclaimed(std::uint8_t stack, std::uint64_t program, SharedDevice& device, const std::function<void(const Message&)>& visit) {
  for (std::uint32_t i = 0; i < slots(); ++i) {
    const auto wanted = [&](std::uint64_t destination) { return unclaimed_for(slot(i), stack, destination, program); };
    const auto has = [&](const auto& w) { return wanted(w.load(std::memory_order_acquire)); };
    if (std::ranges::none_of(slot(i).unclaimed, has)) continue;
    const Change change(*this, device);
    MessageRing box(ring_memory(i, i), frame(), kRingMessages);
    std::vector<std::byte> bytes;
    for (std::uint32_t n = kRingMessages - static_cast<std::uint32_t>(std::min<std::size_t>(box.room(), kRingMessages)); n > 0 && !box.empty(); --n) {
      Message message = box.read();
      if (wanted(message.tag)) {
        visit(message);
        box.release();
        continue;
      }
      bytes.assign(message.bytes.begin(), message.bytes.end());
      message.bytes = bytes;
      box.release();
      if (box.write(0, message)) box.announce(1);  // behind the others: what is a connection's stays together
    }
    for (auto& w : slot(i).unclaimed) {
      if (!has(w)) continue;
      const auto port = port_of(w.exchange(0, std::memory_order_acq_rel));
      if (!any_unclaimed_at(port)) device.keep_port(port, false);
    }
  }
}

void ControlBlock::set_serving(std::uint8_t stack, bool serving, const SharedDevice& device) {
  const Change change(*this, device);
  slot(stack).stopped.store(serving ? 0 : std::max(version(), 1U), std::memory_order_relaxed);
  slot(stack).serving.store(serving, std::memory_order_release);
}

std::optional<std::uint32_t> ControlBlock::stopped_before(std::uint8_t stack) const {
  const std::uint32_t mine = slot(stack).stopped.load(std::memory_order_relaxed);
  if (mine == 0) return std::nullopt;
  std::uint32_t before = 0;
  for (const std::uint32_t i : members()) {
    if (serving(static_cast<std::uint8_t>(i))) return std::nullopt;
    const std::uint32_t stopped = slot(i).stopped.load(std::memory_order_relaxed);
    if (stopped != 0 && static_cast<std::int32_t>(stopped - mine) < 0) ++before;
  }
  return before;
}

// The order in which entries are dealt out, far from their own: the hash is linear, so that the flows of one client whose
// ports are consecutive fall on a regular part of the table, which must not be one stack's.
std::uint32_t ControlBlock::nth(std::uint32_t n) const {
  const std::uint32_t mask = entries() - 1;  // each step is a permutation of 0 .. mask
  std::uint32_t i = n * 317 & mask;
  i ^= i >> 4;
  return i * 205 & mask;
}

bool ControlBlock::yielded(std::uint8_t stack, std::uint32_t version, const SharedDevice& device) {
  const Lock lock(*this, device);
  if (this->version() != version) return false;
  for (auto& e : head().yielding)
    if (StackSet(e.load(std::memory_order_relaxed)).has(stack)) e.fetch_and(~StackSet::of(stack).bits(), std::memory_order_release);
  return true;
}

// Every stack that takes part gets as many entries as the others, give or take one; an entry stays where it is
// if that allows, and who loses one is to say which of its flows it has.
void ControlBlock::share_out() {
  const StackSet all = members();
  StackSet takers;
  for (const std::uint32_t i : all)
    if (serving(static_cast<std::uint8_t>(i))) takers.add(i);
  if (takers.empty()) takers = all;
  if (takers.empty()) return;
  const std::uint32_t base = entries() / takers.size();
  std::uint32_t larger = entries() % takers.size();  // so many stacks get one entry more
  std::array<std::uint32_t, kMaxStacks> has{};
  std::array<bool, kMaxSteeringEntries> moves{};
  const auto may_have_more = [&](std::uint32_t stack) {
    if (has[stack] < base) return true;
    if (has[stack] > base || larger == 0) return false;
    --larger;
    return true;
  };
  for (std::uint32_t n = 0; n < entries(); ++n) {
    const std::uint32_t i = nth(n);
    const std::uint8_t owner = home(i);
    moves[i] = !takers.has(owner) || !may_have_more(owner);
    if (!moves[i]) ++has[owner];
  }
  std::uint32_t next = takers.first();
  for (std::uint32_t n = 0; n < entries(); ++n) {
    const std::uint32_t i = nth(n);
    if (!moves[i]) continue;
    while (!may_have_more(next)) next = takers.after(next);
    ++has[next];
    StackSet yielding = this->yielding(i) & all;
    if (const std::uint8_t was = home(i); all.has(was)) yielding.add(was);
    yielding.remove(next);
    // Before the entry itself: who finds nobody in here finds the flows in the directory.
    head().yielding[i].store(yielding.bits(), std::memory_order_release);
    head().table[i].store(static_cast<std::uint8_t>(next), std::memory_order_release);
    next = takers.after(next);
  }
}

}  // namespace mtcp::stack

#include "stack/steering/board.hh"

#include <algorithm>
#include <bit>
#include <cassert>

#include "stack/steering/board_lock.hh"
#include "stack/steering/mailbox.hh"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
constexpr std::size_t kRecordBytes = pages(sizeof(FlowRecord) * Board::kRecords);
constexpr std::size_t kFlowBytes = kRecordBytes + pages(sizeof(FlowRecord) * Board::kUntold);  // of one stack
// What counts of a list whose end is written down beside it.
std::span<FlowRecord> used(std::span<FlowRecord> list, const std::atomic<std::uint32_t>& end) {
  return list.first(std::min<std::size_t>(end.load(std::memory_order_acquire), list.size()));
}
std::size_t mail_bytes(std::size_t frame) { return pages(Mailbox::memory(frame, Board::kMailSlots)); }

}  // namespace

std::size_t Board::memory(const Shape& shape) {
  const std::size_t places = shape.places;
  return head_memory(shape) + kFlowBytes * places + mail_bytes(shape.frame) * places * places;
}

std::size_t Board::head_memory(const Shape& shape) { return pages(sizeof(Head)) + pages(Directory::memory(shape.words())); }

SipKey Board::directory_key(const Secrets& secrets) {
  const SipKey key{secrets[0], secrets[1]};
  return {siphash_words<2, 4>(key, secrets[2], std::uint64_t{0x4449'5200}), siphash_words<2, 4>(key, secrets[3], std::uint64_t{0x4449'5201})};
}

Board::Board(std::byte* memory, const Shape& shape, const Secrets& secrets)
    : memory_(memory),
      shape_(shape),
      secrets_(secrets),
      directory_(memory + pages(sizeof(Head)), shape.words(), directory_key(secrets)) {
  prepare();
}

Board::Board(std::byte* head, Map map, const Shape& shape, const Secrets* secrets)
    : memory_(head),
      map_(std::move(map)),
      parts_(std::size_t{shape.places} * (shape.places + 1)),
      shape_(shape),
      secrets_(secrets != nullptr ? *secrets : this->head().secrets),
      directory_(head + pages(sizeof(Head)), shape.words(), directory_key(secrets_)) {
  if (secrets != nullptr) prepare();
}

std::byte* Board::part(std::size_t index, std::size_t offset, std::size_t bytes) {
  if (map_ == nullptr) return memory_ + offset;
  std::byte* known = parts_[index].load(std::memory_order_acquire);
  if (known != nullptr) [[likely]] return known;
  const std::lock_guard guard(mapping_);
  known = parts_[index].load(std::memory_order_relaxed);
  if (known == nullptr) parts_[index].store(known = map_(offset, bytes), std::memory_order_release);
  return known;
}

void Board::prepare() {
  assert(shape_.places > 0 && shape_.places <= kMaxStacks);
  assert(std::has_single_bit(shape_.entries) && shape_.entries <= kMaxSteeringEntries);
  head().secrets = secrets_;
  for (auto& e : head().table) e.store(kNobody, std::memory_order_relaxed);
  head().version.store(1, std::memory_order_release);
}

std::span<FlowRecord> Board::records(std::uint32_t stack) {
  std::byte* flows = part(stack, head_memory(shape_) + kFlowBytes * stack, kFlowBytes);
  if (flows == nullptr) return {};
  return {reinterpret_cast<FlowRecord*>(flows), kRecords};
}

std::span<FlowRecord> Board::untold(std::uint32_t stack) {
  std::byte* flows = reinterpret_cast<std::byte*>(records(stack).data());
  if (flows == nullptr) return {};
  return {reinterpret_cast<FlowRecord*>(flows + kRecordBytes), kUntold};
}

std::byte* Board::mail(std::uint32_t from, std::uint32_t to) {
  const std::size_t pair = std::size_t{from} * places() + to, bytes = mail_bytes(frame());
  return part(places() + pair, head_memory(shape_) + kFlowBytes * places() + bytes * pair, bytes);
}

StackSet Board::members() const {
  StackSet all;
  for (std::uint8_t i = 0; i < places(); ++i)
    if (present(i)) all.add(i);
  return all;
}

std::uint8_t Board::join(const SharedDevice& device) {
  const Change change(*this, device);
  for (std::uint8_t i = 0; i < places(); ++i) {
    Place& p = place(i);
    if (p.owner.load(std::memory_order_acquire) != 0) continue;
    // What came for a former stack of this place is received like any other's; its own mailbox is not for mail.
    StackSet senders;
    for (std::uint32_t from = 0; from < places(); ++from)
      if (from != i && !Mailbox(mail(from, i), frame(), kMailSlots).empty()) senders.add(from);
    p.mail.store(senders.bits(), std::memory_order_relaxed);
    directory_.begin_generation(i);
    p.sleeping.store(0, std::memory_order_relaxed);
    p.owner.store(device.self(), std::memory_order_release);
    return i;
  }
  head().refusals.fetch_add(1, std::memory_order_relaxed);
  return kNobody;
}

// The place is free afterwards.
void Board::vacate(std::uint8_t stack) {
  Place& p = place(stack);
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

void Board::leave(std::uint8_t stack, const SharedDevice& device) {
  const Change change(*this, device);
  vacate(stack);
}

void Board::inherit(std::span<const FlowRecord> records, std::uint8_t heir) {
  const std::span<FlowRecord> all = untold(heir);
  auto end = static_cast<std::uint32_t>(used(all, place(heir).untold_end).size());
  for (const FlowRecord& r : records)
    if (r.is_used() && end < all.size()) all[end++].set(r.key);
  place(heir).untold_end.store(end, std::memory_order_release);
}

// The heir has everything before the dead one's is forgotten: whoever dies in between, some are told twice, nobody never.
bool Board::bury(std::uint8_t stack, std::uint8_t heir, const SharedDevice& device,
                 const std::function<void(const Letter&)>& mail) {
  const Change change(*this, device);
  Place& p = place(stack);
  const std::uint64_t owner = p.owner.load(std::memory_order_acquire);
  if (owner != 0 && device.alive(owner)) return false;
  if (owner == 0 && (heir == kNobody || !left_something(stack))) return false;
  if (heir == kNobody) heir = stack;
  inherit(used(records(stack), p.records_end), heir);
  if (heir != stack) {
    inherit(used(untold(stack), p.untold_end), heir);
    p.untold_end.store(0, std::memory_order_release);
  }
  if (mail) p.mail.store(0, std::memory_order_relaxed);
  for (std::uint32_t from = 0; from < places() && mail; ++from)
    if (from != stack) Mailbox(this->mail(from, stack), frame(), kMailSlots).drain(mail);
  if (owner != 0) vacate(stack);
  return true;
}

bool Board::left_something(std::uint8_t stack) const {
  const Place& p = place(stack);
  return !present(stack) && (p.untold_end.load(std::memory_order_acquire) != 0 || p.mail.load(std::memory_order_acquire) != 0);
}

void Board::take_parked(std::uint8_t stack, const SharedDevice& device, const std::function<void(const Letter&)>& visit) {
  for (std::uint32_t i = 0; i < places(); ++i) {
    const auto has = [&](const auto& w) { return parked_for(stack, w.load(std::memory_order_acquire)); };
    if (std::ranges::none_of(place(i).parked, has)) continue;
    const Change change(*this, device);
    Mailbox box(mail(i, i), frame(), kMailSlots);
    std::vector<std::byte> bytes;
    for (std::uint32_t n = kMailSlots - static_cast<std::uint32_t>(std::min<std::size_t>(box.room(), kMailSlots)); n > 0 && !box.empty(); --n) {
      Letter letter = box.read();
      if (parked_for(stack, letter.tag)) {
        visit(letter);
        box.release();
        continue;
      }
      bytes.assign(letter.bytes.begin(), letter.bytes.end());
      letter.bytes = bytes;
      box.release();
      if (box.write(0, letter)) box.announce(1);  // behind the others: what is a connection's stays together
    }
    for (auto& w : place(i).parked)
      if (has(w)) w.store(0, std::memory_order_release);
  }
}

void Board::set_serving(std::uint8_t stack, bool serving, const SharedDevice& device) {
  const Change change(*this, device);
  place(stack).stopped.store(serving ? 0 : std::max(version(), 1U), std::memory_order_relaxed);
  place(stack).serving.store(serving, std::memory_order_release);
}

std::optional<std::uint32_t> Board::stopped_before(std::uint8_t stack) const {
  const std::uint32_t mine = place(stack).stopped.load(std::memory_order_relaxed);
  if (mine == 0) return std::nullopt;
  std::uint32_t before = 0;
  for (const std::uint32_t i : members()) {
    if (serving(static_cast<std::uint8_t>(i))) return std::nullopt;
    const std::uint32_t stopped = place(i).stopped.load(std::memory_order_relaxed);
    if (stopped != 0 && static_cast<std::int32_t>(stopped - mine) < 0) ++before;
  }
  return before;
}

// The order in which entries are dealt out, far from their own: the hash is linear, so that the flows of one client whose
// ports are consecutive fall on a regular part of the table, which must not be one stack's.
std::uint32_t Board::nth(std::uint32_t n) const {
  const std::uint32_t mask = entries() - 1;  // each step is a permutation of 0 .. mask
  std::uint32_t i = n * 317 & mask;
  i ^= i >> 4;
  return i * 205 & mask;
}

bool Board::yielded(std::uint8_t stack, std::uint32_t version, const SharedDevice& device) {
  const Lock lock(*this, device);
  if (this->version() != version) return false;
  for (auto& e : head().yielding)
    if (StackSet(e.load(std::memory_order_relaxed)).has(stack)) e.fetch_and(~StackSet::of(stack).bits(), std::memory_order_release);
  return true;
}

// Every stack that takes part gets as many entries as the others, give or take one; an entry stays where it is
// if that allows, and who loses one is to say which of its flows it has.
void Board::share_out() {
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

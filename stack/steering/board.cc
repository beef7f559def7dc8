#include "stack/steering/board.hh"

#include <algorithm>
#include <bit>
#include <cassert>
#include <thread>

#include "stack/steering/mailbox.hh"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
constexpr std::size_t kLedgerBytes = pages(sizeof(LedgerEntry) * Board::kLedger);
constexpr std::size_t kFlowBytes = kLedgerBytes + pages(sizeof(LedgerEntry) * Board::kOrphans);  // of one stack
// What counts of a list whose end is written down beside it.
std::span<LedgerEntry> used(std::span<LedgerEntry> list, const std::atomic<std::uint32_t>& end) {
  return list.first(std::min<std::size_t>(end.load(std::memory_order_acquire), list.size()));
}
std::size_t mail_bytes(std::size_t frame) { return pages(Mailbox::memory(frame, Board::kMailSlots)); }

}  // namespace

// Holds the right to change members and table. Whoever finds it with a dead process takes it: every change is
// one that share_out() completes, whatever was half done.
class Board::Change {
 public:
  Change(Board& board, const SharedDevice& device) : board_(board) {
    std::atomic<std::uint64_t>& changer = board_.head().changer;
    // Nobody takes so long; but one that has been stopped in there, or has gone mad, must not stop all others.
    constexpr std::uint32_t kPatience = 1'000'000;
    for (std::uint32_t tries = 1; tries < kPatience; ++tries) {
      std::uint64_t holder = 0;
      if (changer.compare_exchange_strong(holder, device.self(), std::memory_order_acquire)) return;
      constexpr std::uint32_t kBetweenLooks = 64;
      if (tries % kBetweenLooks == 0 && !device.alive(holder) &&
          changer.compare_exchange_strong(holder, device.self(), std::memory_order_acquire))
        return;
      std::this_thread::yield();
    }
  }
  ~Change() {
    board_.share_out();
    board_.head().version.fetch_add(1, std::memory_order_release);
    board_.head().changer.store(0, std::memory_order_release);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  Board& board_;
};

std::size_t Board::memory(const Shape& shape) {
  const std::size_t places = shape.places;
  return pages(sizeof(Head)) + kFlowBytes * places + mail_bytes(shape.frame) * places * places;
}

std::size_t Board::head_memory() { return pages(sizeof(Head)); }

Board::Board(std::byte* memory, const Shape& shape, const Secrets& secrets) 
    : memory_(memory), shape_(shape), secrets_(secrets) {
  prepare();
}

Board::Board(std::byte* head, Map map, const Shape& shape, const Secrets* secrets)
    : memory_(head),
      map_(std::move(map)),
      parts_(std::size_t{shape.places} * (shape.places + 1)),
      shape_(shape),
      secrets_(secrets != nullptr ? *secrets : this->head().secrets) {
  if (secrets != nullptr) prepare();
}

std::byte* Board::part(std::size_t index, std::size_t offset, std::size_t bytes) {
  if (map_ == nullptr) return memory_ + offset;
  if (parts_[index] == nullptr) [[unlikely]] parts_[index] = map_(offset, bytes);
  return parts_[index];
}

void Board::prepare() {
  assert(shape_.places > 0 && shape_.places <= kMaxStacks);
  assert(std::has_single_bit(shape_.entries) && shape_.entries <= kMaxSteeringEntries);
  head().secrets = secrets_;
  for (auto& e : head().table) e.store(kNobody | kNobody << 8, std::memory_order_relaxed);
  head().version.store(1, std::memory_order_release);
}

std::span<LedgerEntry> Board::ledger(std::uint32_t stack) {
  std::byte* flows = part(stack, head_memory() + kFlowBytes * stack, kFlowBytes);
  if (flows == nullptr) return {};
  return {reinterpret_cast<LedgerEntry*>(flows), kLedger};
}

std::span<LedgerEntry> Board::orphans(std::uint32_t stack) {
  LedgerEntry* flows = ledger(stack).data();
  if (flows == nullptr) return {};
  return {flows + kLedgerBytes / sizeof(LedgerEntry), kOrphans};
}

std::byte* Board::mail(std::uint32_t from, std::uint32_t to) {
  const std::size_t pair = std::size_t{from} * places() + to, bytes = mail_bytes(frame());
  return part(places() + pair, head_memory() + kFlowBytes * places() + bytes * pair, bytes);
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
  for (LedgerEntry& e : used(ledger(stack), p.ledger_end)) e = {};
  p.ledger_end.store(0, std::memory_order_relaxed);
  reservations().forget(stack);
  const std::uint32_t listed = std::min(p.listeners_end.exchange(0, std::memory_order_relaxed), kListeners);
  for (std::uint32_t i = 0; i < listed; ++i) p.listeners[i].store(0, std::memory_order_relaxed);
  p.unlisted.store(Listening::no, std::memory_order_relaxed);
  p.serving.store(false, std::memory_order_relaxed);
  p.stopped.store(0, std::memory_order_relaxed);
  p.queues.store(0, std::memory_order_relaxed);
  p.owner.store(0, std::memory_order_release);
}

void Board::leave(std::uint8_t stack, const SharedDevice& device) {
  const Change change(*this, device);
  vacate(stack);
}

void Board::inherit(std::span<const LedgerEntry> entries, std::uint8_t heir) {
  const std::span<LedgerEntry> all = orphans(heir);
  auto end = static_cast<std::uint32_t>(used(all, place(heir).orphans_end).size());
  for (const LedgerEntry& e : entries)
    if (e.local != 0 && end < all.size()) all[end++] = e;
  place(heir).orphans_end.store(end, std::memory_order_release);
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
  const std::span<const LedgerEntry> untold = used(orphans(stack), p.orphans_end);
  inherit(used(ledger(stack), p.ledger_end), heir);
  if (heir != stack) {
    inherit(untold, heir);
    p.orphans_end.store(0, std::memory_order_release);
  }
  if (mail) p.mail.store(0, std::memory_order_relaxed);
  for (std::uint32_t from = 0; from < places() && mail; ++from)
    if (from != stack) Mailbox(this->mail(from, stack), frame(), kMailSlots).drain(mail);
  if (owner != 0) vacate(stack);
  return true;
}

bool Board::left_something(std::uint8_t stack) const {
  const Place& p = place(stack);
  return !present(stack) && (p.orphans_end.load(std::memory_order_acquire) != 0 || p.mail.load(std::memory_order_acquire) != 0);
}

void Board::take_parked(std::uint8_t stack, const SharedDevice& device, const std::function<void(const Letter&)>& visit) {
  for (std::uint32_t i = 0; i < places(); ++i) {
    if (!parked_for(stack, i)) continue;
    const Change change(*this, device);
    for (auto& w : place(i).parked) w.store(0, std::memory_order_release);
    Mailbox(mail(i, i), frame(), kMailSlots).drain(visit);
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

// Every stack that takes part gets as many entries as the others, give or take one; an entry stays where it is
// if that allows, and one that moves remembers where it was.
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
    const std::uint8_t owner = owners(i).present;
    moves[i] = !takers.has(owner) || !may_have_more(owner);
    if (!moves[i]) ++has[owner];
  }
  std::uint32_t next = takers.first();
  for (std::uint32_t n = 0; n < entries(); ++n) {
    const std::uint32_t i = nth(n);
    if (!moves[i]) continue;
    while (!may_have_more(next)) next = takers.after(next);
    ++has[next];
    const Owners was = owners(i);
    const std::uint8_t previous = all.has(was.present) ? was.present : all.has(was.previous) ? was.previous : kNobody;
    head().table[i].store(static_cast<std::uint16_t>(next | std::uint32_t{previous} << 8), std::memory_order_relaxed);
    next = takers.after(next);
  }
}

}  // namespace mtcp::stack

// Whose a flow is: SteeringPort's part that TCP asks.
#include <algorithm>

#include "stack/steering/steering_port.hh"

namespace mtcp::stack {

namespace {

// One of `stacks`, the same for every packet of a flow, and each for as many flows as the others. `hash`: the part of it
// that the table does not use.
std::uint32_t pick(StackSet stacks, std::uint32_t hash) {
  for (std::uint32_t skip = hash % stacks.size(); skip > 0; --skip) stacks.remove(stacks.first());
  return stacks.first();
}

}  // namespace

// The stack that has not looked at a packet of this flow and most likely knows it; kMaxStacks: none is left.
std::uint32_t SteeringPort::next_to_try(std::uint32_t hash, const Destination& to, StackSet tried) const {
  const StackSet left = others_ - tried;
  if (left.empty()) return kMaxStacks;
  const Board::Owners owners = board_.owners(hash);
  // Where the owner lacks the listener, new flows go to one that has it, and what follows goes there, too.
  const bool owner_listens =
      owners.present < kMaxStacks && board_.listening(owners.present, to.local) >= Listening::yes;
  if (to.opens && owner_listens && left.has(owners.present)) return owners.present;
  if (to.opens || !owner_listens)
    if (const StackSet listeners = who_listens(to.local, Listening::yes) & left; !listeners.empty())
      return pick(listeners, hash / board_.entries());
  if (to.opens)
    if (const StackSet leaving = who_listens(to.local, Listening::left) & left; !leaving.empty())
      return pick(leaving, hash / board_.entries());
  for (const std::uint8_t stack : {owners.present, owners.previous})
    if (left.has(stack)) return stack;
  return left.first();
}

bool SteeringPort::forward_unknown(Packet* p, Time now) {
  refresh();
  if ((p->flags & kSteered) == 0) return false;
  const std::byte* begin = p->buf + p->payload_offset;
  const std::span<const std::byte> frame{begin, static_cast<std::size_t>(p->end() - begin)};
  const FrameKind kind = classify(frame, hash_);
  if (kind.kind != FrameKind::Kind::flow) return false;
  const Destination where = destination(frame);
  StackSet tried(p->seen_by);
  std::uint32_t to = next_to_try(kind.hash, where, tried);
  if (to == kMaxStacks && !where.opens && (p->flags & kSecondRound) == 0) {
    // While it went round, the flow may have been handed over to a stack that had looked already.
    tried = StackSet::of(me_);
    p->flags |= kSecondRound;
    to = next_to_try(kind.hash, where, tried);
  }
  if (to == kMaxStacks) {
    // Connections wait for a stack that will have the listener, or this one has gone on while its segment went round:
    // then it will be sent again.
    const bool waits = board_.parked(where.local) && board_.listening(me_, where.local) < Listening::yes;
    const bool missed = !where.opens && board_.moved_lately(kind.hash, now);
    if (!waits && !missed) return false;
    pool_.free(&p, 1);
    return true;
  }
  // If its mailbox is full the packet is lost like any other: an answer from us would be a wrong one.
  const auto flags = static_cast<std::uint16_t>(p->flags & (kRxL4Good | kSecondRound));
  if (post(to, {MailKind::frame, flags, tried, frame})) ring(StackSet::of(to));
  pool_.free(&p, 1);
  return true;
}

// The owner of the flow opens it. A stack without a share of the table (it serves nothing, others do) has the
// ports whose number says so, towards all destinations; its packets find it by second chances.
bool SteeringPort::comes_home(const FlowKey& key) const {
  if (others_.empty()) return true;
  const std::uint32_t by_number = key.local_port % board_.places();
  if (without_.has(by_number)) return by_number == me_;
  return owner_of(hash_.of(key)) == me_;
}

bool SteeringPort::reserve_flow(const FlowKey& key) { return board_.reservations().take(hash_.of(key), me_); }

void SteeringPort::release_flow(const FlowKey& key) { board_.reservations().give_back(hash_.of(key), me_); }

void SteeringPort::set_serving(bool on) {
  if (board_.serving(me_) == on) return;
  board_.set_serving(me_, on, device_);
  reload();
}

void SteeringPort::note_flow(std::uint32_t index, const FlowKey& key) {
  const std::span<LedgerEntry> ledger = board_.ledger(me_);
  if (index >= ledger.size() || !key.local.is_v4() || !key.remote.is_v4()) return;
  Board::Place& place = board_.place(me_);
  ledger[index] = {key.local.as_v4(), key.remote.as_v4(), key.local_port, key.remote_port};
  if (place.ledger_end.load(std::memory_order_relaxed) <= index)
    place.ledger_end.store(index + 1, std::memory_order_release);
}

void SteeringPort::forget_flow(std::uint32_t index) {
  if (const std::span<LedgerEntry> ledger = board_.ledger(me_); index < ledger.size()) ledger[index].local = 0;
}

bool SteeringPort::next_orphan(FlowKey& key, std::uint32_t& number) {
  const std::span<LedgerEntry> orphans = board_.orphans(me_);
  const std::uint32_t end = orphans.empty() ? 0 : std::min(board_.place(me_).orphans_end.load(std::memory_order_relaxed), Board::kOrphans);
  while (next_orphan_ < end) {
    number = next_orphan_++;
    const LedgerEntry& e = orphans[number];
    if (e.local == 0) continue;
    ++being_told_;
    key = {IpAddress::v4(e.local), IpAddress::v4(e.remote), e.local_port, e.remote_port};
    return true;
  }
  return false;
}

void SteeringPort::orphan_told(std::uint32_t number) {
  board_.orphans(me_)[number].local = 0;
  if (--being_told_ != 0 || next_orphan_ < std::min(board_.place(me_).orphans_end.load(std::memory_order_relaxed), Board::kOrphans))
    return;
  next_orphan_ = 0;  // all have been told
  board_.place(me_).orphans_end.store(0, std::memory_order_release);
}

}  // namespace mtcp::stack

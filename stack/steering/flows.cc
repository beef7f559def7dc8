// Whose a flow is: SteeringPort's part that TCP asks.
#include "stack/steering/steering_port.hh"

namespace mtcp::stack {

// The stack that has not looked at a packet of this flow and most likely knows it; kMaxStacks: none is left.
std::uint32_t SteeringPort::next_to_try(std::uint32_t hash, StackSet tried) const {
  const StackSet left = others_ - tried;
  if (left.empty()) return kMaxStacks;
  const Board::Owners owners = board_.owners(hash);
  for (const std::uint8_t stack : {owners.present, owners.previous})
    if (left.has(stack)) return stack;
  return left.first();
}

bool SteeringPort::forward_unknown(Packet* p) {
  refresh();
  if (others_.empty() || (p->flags & kSteered) == 0) return false;
  const std::byte* begin = p->buf + p->payload_offset;
  const std::span<const std::byte> frame{begin, static_cast<std::size_t>(p->end() - begin)};
  const FrameKind kind = classify(frame, hash_);
  if (kind.kind != FrameKind::Kind::flow) return false;
  StackSet tried(p->seen_by);
  std::uint32_t to = next_to_try(kind.hash, tried);
  if (to == kMaxStacks && (p->flags & kSecondRound) == 0) {
    // While it went round, the flow may have been handed over to a stack that had looked already.
    tried = StackSet::of(me_);
    p->flags |= kSecondRound;
    to = next_to_try(kind.hash, tried);
  }
  if (to == kMaxStacks) return false;
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

void SteeringPort::set_accepting(bool on) {
  board_.place(me_).accepting.store(on, std::memory_order_release);
}

bool SteeringPort::others_serve() const {
  for (const std::uint32_t stack : others_)
    if (board_.serving(static_cast<std::uint8_t>(stack))) return true;
  return false;
}

bool SteeringPort::hand_over(const FlowKey& key, std::span<const std::span<const std::byte>> messages) {
  refresh();
  StackSet takers;
  for (const std::uint32_t stack : others_)
    if (board_.place(stack).accepting.load(std::memory_order_acquire)) takers.add(stack);
  if (takers.empty()) return false;
  std::uint32_t to = owner_of(hash_.of(key));
  // Not the owner: then each of the others in turn.
  if (!takers.has(to)) to = handed_over_ = takers.after(handed_over_);
  Mailbox box = mailbox(me_, to);
  if (box.room() < messages.size()) return false;
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (!box.write(i, {MailKind::handover, kHandover, {}, messages[i]})) return false;
  box.announce(messages.size());
  traffic_.sent += messages.size();
  ring(StackSet::of(to));
  return true;
}

void SteeringPort::note_flow(std::uint32_t index, const FlowKey& key) {
  if (index >= Board::kLedger || !key.local.is_v4() || !key.remote.is_v4()) return;
  Board::Place& place = board_.place(me_);
  board_.ledger(me_)[index] = {key.local.as_v4(), key.remote.as_v4(), key.local_port, key.remote_port};
  if (place.ledger_end.load(std::memory_order_relaxed) <= index)
    place.ledger_end.store(index + 1, std::memory_order_release);
}

void SteeringPort::forget_flow(std::uint32_t index) {
  if (index < Board::kLedger) board_.ledger(me_)[index].local = 0;
}

bool SteeringPort::next_orphan(FlowKey& key) {
  if (orphans_.empty()) return false;
  const LedgerEntry e = orphans_.back();
  orphans_.pop_back();
  key = {IpAddress::v4(e.local), IpAddress::v4(e.remote), e.local_port, e.remote_port};
  return true;
}

}  // namespace mtcp::stack

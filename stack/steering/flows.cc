// Whose a flow is: SteeringPort's part that TCP asks.
#include <algorithm>

#include "stack/steering/steering_port.hh"

namespace mtcp::stack {

namespace {

constexpr std::size_t kHeld = 128;          // packets
constexpr Duration kHeldFor = seconds(1);  // a message that has not come by then was lost

// One of `stacks`, the same for every packet of a flow, and each for as many flows as the others. `hash`: the part of it
// that the table does not use.
std::uint32_t pick(StackSet stacks, std::uint32_t hash) {
  for (std::uint32_t skip = hash % stacks.size(); skip > 0; --skip) stacks.remove(stacks.first());
  return stacks.first();
}

}  // namespace

// --- segments of unknown flows

bool SteeringPort::forward_unknown(Packet* p, const FlowKey& key, bool opens, Time now) {
  refresh();
  if ((p->flags & (kSteered | kFinal)) != kSteered) return false;
  const std::uint32_t hash = p->flow_hash;
  // Before the directory: who is in here no longer has entered what it has.
  StackSet former = control_.yielding(hash) & others_;
  const std::uint64_t flow = control_.directory().hash(key);
  const Directory::Entry there = control_.directory().find(flow);
  const bool moves = there.state == Directory::State::in_transit;
  if ((moves || there.state == Directory::State::owned) && others_.has(there.slot)) return pass(p, there.slot, kAsked);
  if (moves && there.slot == me_) return hold(p, flow, now);
  if (there.state == Directory::State::waiting && control_.any_unclaimed()) {  // else it was lost
    pool_.free(&p, 1);
    return true;
  }
  const bool asked = (p->flags & kAsked) != 0;
  const std::uint8_t home = owner_of(hash);
  if (!asked && others_.has(home)) return pass(p, home, 0);
  // Those who have not entered theirs yet, one after the other. What opens a flow is nobody's so far.
  while (asked && !former.empty() && former.first() < me_) former.remove(former.first());
  if (!opens && !former.empty()) return pass(p, former.first(), kAsked);
  // Last of all: its home, or who was it, may have what the peer has opened since.
  if (there.state == Directory::State::resting && others_.has(there.slot)) return pass(p, there.slot, kAsked);
  return offer_to_listeners(p, {key.local, key.local_port}, opens, home);
}

// What nobody knows is for whoever has the listener, if its home lacks it.
bool SteeringPort::offer_to_listeners(Packet* p, const Endpoint& local, bool opens, std::uint8_t home) {
  if (control_.slots() <= home || control_.listening(home, local) < Listening::yes) {
    StackSet takers;
    if (control_.listening(me_, local) < Listening::yes) takers = who_listens(local, Listening::yes);
    if (takers.empty() && opens) takers = who_listens(local, Listening::left);
    if (!takers.empty()) return pass(p, pick(takers, p->flow_hash / control_.entries()), kFinal);
  } else if (opens && others_.has(home)) {  // which had asked us, because we had the flow: it is over (TIME-WAIT)
    return pass(p, home, kFinal);
  }
  // Connections wait for a stack that will have the listener: so does this one.
  if (!unclaimed_ || !control_.unclaimed(local) || control_.listening(me_, local) >= Listening::yes) {
    p->flags |= kFinal;  // all have been asked: not again about this one
    return false;
  }
  pool_.free(&p, 1);
  return true;
}

// If its message ring is full the packet is lost like any other: an answer from us would be a wrong one.
bool SteeringPort::pass(Packet* p, std::uint32_t to, std::uint16_t mark) {
  const std::byte* begin = p->buf + p->payload_offset;
  const std::span<const std::byte> frame{begin, static_cast<std::size_t>(p->end() - begin)};
  const auto flags = static_cast<std::uint16_t>((p->flags & kRxL4Good) | mark);
  (void)post(to, {MessageKind::frame, flags, p->flow_hash, frame});
  pool_.free(&p, 1);
  return true;
}

// The flow's description is in one of our message rings: its segment waits for that.
bool SteeringPort::hold(Packet* p, std::uint64_t flow, Time now) {
  auto at = std::ranges::find_if(awaited_, [flow](const Awaited& a) { return a.flow == flow; });
  if (at == awaited_.end()) {
    std::erase_if(awaited_, [now](const Awaited& a) { return now >= a.until + kHeldFor; });
    if (awaited_.size() < kHeld) awaited_.push_back({flow, now + kHeldFor});
  } else if (now >= at->until) {  // so was the message
    awaited_.erase(at);
    control_.directory().erase(flow, {Directory::State::in_transit, me_});
    return false;
  }
  if (held_.size() >= kHeld) {
    ++traffic_.lost;
    pool_.free(&p, 1);
    return true;
  }
  // The whole frame again.
  std::byte* begin = p->buf + p->payload_offset;
  p->len = static_cast<std::uint32_t>(p->end() - begin);
  p->data = begin;
  held_.push_back(p);
  return true;
}

// What was held is received again, with what the message rings had.
std::size_t SteeringPort::receive_held(Packet** out, std::size_t max) {
  const std::size_t n = std::min(max, held_.size());
  std::copy_n(held_.begin(), n, out);
  held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(n));
  for (std::size_t i = 0; i < n; ++i) mark(*out[i], out[i]->flow_hash);
  return n;
}

// --- which flows this stack has

// A stack without a share of the table (it serves nothing, others do) opens flows with the ports whose number says so,
// towards all destinations.
bool SteeringPort::may_open(const FlowKey& key) const {
  const std::uint32_t by_number = key.local_port % control_.slots();
  if (!others_.empty() && without_.has(by_number)) return by_number == me_;
  return is_home(key);
}

bool SteeringPort::is_home(const FlowKey& key) const { return others_.empty() || owner_of(hash_.of(key)) == me_; }

bool SteeringPort::publish(const FlowKey& key, FlowKind kind) {
  Directory& directory = control_.directory();
  const std::uint64_t hash = directory.hash(key);
  switch (kind) {
    case FlowKind::time_wait:
      return directory.claim(hash, {Directory::State::resting, me_});
    case FlowKind::half_open:
      return directory.claim(hash, {Directory::State::owned, me_}, true);
    case FlowKind::connection:
      break;
  }
  return directory.claim(hash, {Directory::State::owned, me_});
}

void SteeringPort::withdraw(const FlowKey& key) {
  point(key, false);
  control_.directory().withdraw(control_.directory().hash(key), me_);
}

// A flow that is away from its home for good: its packets need not go by way of that.
void SteeringPort::point(const FlowKey& key, bool on) {
  if (!on && pointed_here_ == nullptr) return;
  const std::uint32_t hash = hash_.of(key);
  if (on ? others_.empty() || owner_of(hash) == me_ : !is_pointed_here(hash)) return;
  if (pointed_here_ == nullptr) pointed_here_ = std::make_unique<std::bitset<kPointed>>();
  pointed_here_->set(hash % kPointed, on);
  if (queues_.empty()) return;  // point_all_here() does it
  on ? device_.point_flow(hash, queue_numbers_.front()) : device_.unpoint_flow(hash, queue_numbers_.front());
}

// Our queues have changed: the first one's number may have, and what was said of a former one holds no longer.
void SteeringPort::point_all_here() {
  if (pointed_here_ == nullptr || pointed_here_->none() || queues_.empty()) return;
  for (std::uint32_t hash = 0; hash < kPointed; ++hash)
    if (pointed_here_->test(hash)) device_.point_flow(hash, queue_numbers_.front());
}

bool SteeringPort::settle(const FlowKey& key, bool here) {
  Directory& directory = control_.directory();
  const std::uint64_t hash = directory.hash(key);
  std::erase_if(awaited_, [hash](const Awaited& a) { return a.flow == hash; });  // its message is here
  if (here) {
    point(key, true);
    return directory.set(hash, {Directory::State::owned, me_});
  }
  for (const auto state : {Directory::State::in_transit, Directory::State::waiting}) {
    const Directory::Entry there = directory.find(hash);
    if (there.state == state && (there.slot == me_ || state == Directory::State::waiting)) directory.erase(hash, there);
  }
  return false;
}

void SteeringPort::all_published() { must_publish_ = !control_.yielded(me_, version_, device_); }

void SteeringPort::set_serving(bool on) {
  if (control_.serving(me_) == on) return;
  control_.set_serving(me_, on, device_);
  reload();
  wake_all();
}

void SteeringPort::note_flow(std::uint32_t index, const FlowKey& key) {
  const std::span<FlowRecord> records = control_.records(me_);
  if (index >= records.size()) return;
  ControlBlock::Slot& slot = control_.slot(me_);
  records[index].set(key);
  if (slot.records_end.load(std::memory_order_relaxed) <= index)
    slot.records_end.store(index + 1, std::memory_order_release);
}

void SteeringPort::forget_flow(std::uint32_t index) {
  if (const std::span<FlowRecord> records = control_.records(me_); index < records.size()) records[index].clear();
}

bool SteeringPort::next_orphan(FlowKey& key, std::uint32_t& number) {
  const std::span<FlowRecord> untold = control_.untold(me_);
  const std::uint32_t end = untold.empty() ? 0 : std::min(control_.slot(me_).untold_end.load(std::memory_order_relaxed), ControlBlock::kUntold);
  while (next_orphan_ < end) {
    number = next_orphan_++;
    const FlowRecord& r = untold[number];
    if (!r.is_used()) continue;
    ++being_told_;
    key = r.key;
    return true;
  }
  return false;
}

void SteeringPort::orphan_told(std::uint32_t number) {
  control_.untold(me_)[number].clear();
  if (--being_told_ != 0 || next_orphan_ < std::min(control_.slot(me_).untold_end.load(std::memory_order_relaxed), ControlBlock::kUntold))
    return;
  next_orphan_ = 0;  // all have been told
  control_.slot(me_).untold_end.store(0, std::memory_order_release);
}

}  // namespace mtcp::stack

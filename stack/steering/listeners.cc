// Which stack has which listener: what each says of its own on the control block, and who is asked for a connection.
#include <algorithm>
#include <array>
#include <optional>

#include "stack/steering/control_lock.hh"
#include "stack/steering/message_ring.hh"
#include "stack/steering/steering_port.hh"

namespace mtcp::stack {
namespace {

// 32 bits that stand for an address: 0 any, else an IPv4 address itself, or a hash of an IPv6 one. Two that have the same are
// taken for each other: then a connection is offered to a stack that lacks the listener, and passed on.
std::uint32_t tag_of(const IpAddress& a) {
  if (a.is_any()) return 0;
  if (a.is_v4()) return a.as_v4();
  return static_cast<std::uint32_t>(mix(a) >> 32) | 1;
}

// A listener, or where a connection goes, as a word of the control block: port, address, Listening, families. 0: none.
constexpr std::uint64_t kV4 = std::uint64_t{1} << 56, kV6 = std::uint64_t{2} << 56;

std::uint64_t families_of(const IpAddress& a, bool v6_only) {
  if (a.is_v4()) return kV4;
  return a.is_any() && !v6_only ? kV4 | kV6 : kV6;
}

std::uint64_t word_of(const Endpoint& local, bool v6_only, Listening how) {
  if (how == Listening::no) return 0;
  return std::uint64_t{local.port} | std::uint64_t{tag_of(local.address)} << 16 | static_cast<std::uint64_t>(how) << 48 |
         families_of(local.address, v6_only);
}

Listening how_of(std::uint64_t word) { return static_cast<Listening>(static_cast<std::uint8_t>(word >> 48)); }

// There are addresses that both are about.
bool overlap(std::uint64_t one, std::uint64_t other) {
  if (static_cast<std::uint16_t>(one) != static_cast<std::uint16_t>(other) || (one & other & (kV4 | kV6)) == 0) return false;
  const auto a = static_cast<std::uint32_t>(one >> 16), b = static_cast<std::uint32_t>(other >> 16);
  return a == 0 || b == 0 || a == b;
}

}  // namespace

void ControlBlock::note_listener(std::uint8_t stack, std::uint32_t index, const Endpoint& local, bool v6_only, Listening how) {
  Slot& p = slot(stack);
  p.listeners[index].store(word_of(local, v6_only, how), std::memory_order_release);
  if (p.listeners_end.load(std::memory_order_relaxed) <= index)
    p.listeners_end.store(index + 1, std::memory_order_release);
}

std::uint64_t ControlBlock::destination(const Endpoint& local) { return word_of(local, false, Listening::yes); }

Listening ControlBlock::listening(std::uint32_t stack, std::uint64_t destination) const {
  const Slot& p = slot(stack);
  const std::uint32_t end = std::min(p.listeners_end.load(std::memory_order_acquire), kListeners);
  auto most = Listening::no;
  for (std::uint32_t i = 0; i < end; ++i) {
    const std::uint64_t word = p.listeners[i].load(std::memory_order_acquire);
    if (word != 0 && overlap(word, destination)) most = std::max(most, how_of(word));
  }
  return most != Listening::no ? most : p.unlisted.load(std::memory_order_acquire);
}

// What lies there already may be of a former stack in this slot, which may have been another program's: it waits on.
bool ControlBlock::leave_unclaimed(std::uint8_t stack, std::uint64_t destination, std::uint64_t program, std::uint64_t flow,
                                   std::span<const std::span<const std::byte>> messages, const SharedDevice* device) {
  std::optional<Change> change;
  if (device != nullptr) change.emplace(*this, *device);
  Slot& p = slot(stack);
  auto at = std::ranges::find(p.unclaimed, destination, [](const auto& w) { return w.load(std::memory_order_relaxed); });
  if (at == p.unclaimed.end()) at = std::ranges::find(p.unclaimed, 0U, [](const auto& w) { return w.load(std::memory_order_relaxed); });
  MessageRing box(ring_memory(stack, stack), frame(), kRingMessages);
  if (at == p.unclaimed.end() || box.room() < messages.size()) return false;
  auto& whose = p.unclaimed_program[static_cast<std::size_t>(at - p.unclaimed.begin())];
  if (*at != 0 && whose != program) return false;
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (!box.write(i, {MessageKind::handover, kHandover, destination, messages[i], flow})) return false;
  directory_.set(flow, {Directory::State::waiting, stack});
  whose.store(program, std::memory_order_relaxed);
  // Before the messages: if this process dies in between, a listener without connections is forgotten, connections without
  // a listener would be found by nobody.
  at->store(destination, std::memory_order_release);
  box.announce(messages.size());
  return true;
}

bool ControlBlock::unclaimed_for(const Slot& holder, std::uint32_t stack, std::uint64_t destination, std::uint64_t program) const {
  if (destination == 0 || (stack != kNobody && listening(stack, destination) < Listening::yes)) return false;
  for (std::uint32_t i = 0; i < kUnclaimed; ++i)
    if (holder.unclaimed[i].load(std::memory_order_acquire) == destination) return holder.unclaimed_program[i].load(std::memory_order_relaxed) == program;
  return false;
}

bool ControlBlock::any_unclaimed() const {
  return std::ranges::any_of(head().slots, [](const Slot& p) {
    return std::ranges::any_of(p.unclaimed, [](const auto& w) { return w.load(std::memory_order_acquire) != 0; });
  });
}

bool ControlBlock::any_unclaimed_at(std::uint16_t port) const {
  return std::ranges::any_of(head().slots, [port](const Slot& p) {
    return std::ranges::any_of(p.unclaimed, [port](const auto& w) {
      const std::uint64_t word = w.load(std::memory_order_acquire);
      return word != 0 && port_of(word) == port;
    });
  });
}

bool ControlBlock::unclaimed(const Endpoint& local) const {
  const std::uint64_t wanted = destination(local);
  for (std::uint32_t i = 0; i < slots(); ++i)
    for (const auto& w : slot(i).unclaimed)
      if (const std::uint64_t word = w.load(std::memory_order_acquire); word != 0 && overlap(word, wanted)) return true;
  return false;
}

void SteeringPort::note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, Listening how) {
  if (index >= listener_ports_.size()) listener_ports_.resize(index + 1);
  listener_ports_[index] = how == Listening::no ? 0 : local.port;
  if (index < ControlBlock::kListeners) {
    control_.note_listener(me_, index, local, v6_only, how);
  } else {
    index -= ControlBlock::kListeners;
    if (unlisted_.size() <= index) unlisted_.resize(index + 1, Listening::no);
    unlisted_[index] = how;
    control_.slot(me_).unlisted.store(*std::max_element(unlisted_.begin(), unlisted_.end()), std::memory_order_release);
  }
  if (how >= Listening::yes) take_unclaimed(me_);
  if (how == Listening::accepting)
    for (const std::uint32_t stack : others_)
      if (control_.slot(stack).offering.load(std::memory_order_acquire)) pull_from(stack, local);
}

// Before anything that is received: a segment for one of them must find it.
void SteeringPort::take_unclaimed(std::uint8_t stack) {
  std::vector<Packet*> none;
  control_.take_unclaimed(stack, program_, device_, [&](const Message& message) { inherit(message, none); });
}

// The other stacks that have it so, or more so: of whatever program for what opens a connection, of one for those that are there.
StackSet SteeringPort::who_listens(std::uint64_t destination, Listening least) const {
  StackSet found;
  for (const std::uint32_t stack : others_)
    if (control_.listening(stack, destination) >= least) found.add(stack);
  return found;
}

bool SteeringPort::is_of(std::uint64_t program, std::uint32_t stack) const {
  return control_.slot(stack).program.load(std::memory_order_relaxed) == program;
}

StackSet SteeringPort::who_takes_over(std::uint64_t destination, Listening least, std::uint64_t program) const {
  StackSet found = who_listens(destination, least);
  for (const std::uint32_t stack : StackSet(found))
    if (!is_of(program, stack)) found.remove(stack);
  return found;
}

bool SteeringPort::others_listen(const Endpoint& local) const {
  return !who_takes_over(ControlBlock::destination(local), Listening::yes, program_).empty();
}

// The directory knows before it is sent, so that nobody refuses what comes meanwhile.
bool SteeringPort::send_messages(std::uint32_t to, std::uint64_t destination, std::uint64_t flow, Messages messages) {
  MessageRing box = message_ring(me_, to);
  const std::size_t written = unannounced_[to];
  if (box.room() < written + messages.size()) return false;
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (!box.write(written + i, {MessageKind::handover, kHandover, destination, messages[i], flow})) return false;
  if (!control_.directory().set(flow, {Directory::State::in_transit, static_cast<std::uint8_t>(to)})) return false;
  count_written(to, messages.size());
  return true;
}

// It may have asked for those of the other family only.
bool SteeringPort::migrate(const FlowKey& key, Messages messages, std::uint32_t to) {
  refresh();
  const std::uint64_t local = ControlBlock::destination({key.local, key.local_port});
  return others_.has(to) && is_of(program_, to) && control_.listening(to, local) >= Listening::yes && send_messages(to, local, control_.directory().hash(key), messages);
}

bool SteeringPort::pass_to(const FlowKey& key, Messages messages, std::uint32_t to) {
  refresh();
  const std::uint64_t local = ControlBlock::destination({key.local, key.local_port});
  if (!others_.has(to) || !is_of(program_, to) || !send_messages(to, local, control_.directory().hash(key), messages)) return false;
  announce();  // at once: it waits for that
  return true;
}

bool SteeringPort::migrate_away(const FlowKey& key, Messages messages, bool may_wait) {
  refresh();
  const std::uint64_t local = ControlBlock::destination({key.local, key.local_port});
  StackSet takers = who_takes_over(local, Listening::accepting, program_);
  if (takers.empty()) takers = who_takes_over(local, Listening::yes, program_);
  const std::uint64_t flow = control_.directory().hash(key);
  if (!takers.empty()) {
    std::uint32_t to = owner_of(hash_.of(key));
    // Not its home: then each of the others in turn.
    if (!takers.has(to)) to = handed_over_ = takers.after(handed_over_);
    if (send_messages(to, local, flow, messages)) {
      announce();
      return true;
    }
  }
  return may_wait && leave_unclaimed(local, program_, flow, messages, &device_);
}

// Told first: what comes for it must not go to somebody else in between.
bool SteeringPort::leave_unclaimed(std::uint64_t destination, std::uint64_t program, std::uint64_t flow, Messages messages, const SharedDevice* device) {
  const std::uint16_t port = ControlBlock::port_of(destination);
  device_.keep_port(port, true);
  if (control_.leave_unclaimed(me_, destination, program, flow, messages, device)) return true;
  if (!control_.any_unclaimed_at(port)) device_.keep_port(port, false);
  return false;
}

void SteeringPort::offer(const Endpoint& local) {
  refresh();
  for (const std::uint32_t stack : who_takes_over(ControlBlock::destination(local), Listening::accepting, program_)) tell(stack, MessageKind::offer, local);
}

void SteeringPort::tell(std::uint32_t stack, MessageKind kind, const Endpoint& local) {
  (void)post(stack, {kind, 0, 0, std::as_bytes(std::span(&local, 1))});
  announce();
}

void SteeringPort::pull_from(std::uint32_t stack, const Endpoint& local) {
  if (!others_.has(stack) || !is_of(program_, stack) || control_.listening(me_, local) < Listening::accepting) return;
  tell(stack, MessageKind::pull, local);
}

// What was on its way to `gone`, all messages of a connection, for a listener that this one lacks: to one that has it, or they wait for one.
// Not announced yet. `program`: whose they are; `device`: as ControlBlock::leave_unclaimed().
bool SteeringPort::pass_on(std::span<const Message> messages, std::uint8_t gone, std::uint64_t program, const SharedDevice* device) {
  const Message& first = messages.front();
  if (first.kind != MessageKind::handover) return false;
  if (program == program_ && control_.listening(me_, first.tag) >= Listening::yes) return false;
  std::array<std::span<const std::byte>, MessageRing::kMostGroup> parts;
  std::ranges::transform(messages, parts.begin(), &Message::bytes);
  const Messages all = std::span(parts).first(messages.size());
  for (const std::uint32_t to : who_takes_over(first.tag, Listening::yes, program) - StackSet::of(gone))
    if (send_messages(to, first.tag, first.flow, all)) return true;
  return leave_unclaimed(first.tag, program, first.flow, all, device) || program != program_;
}

}  // namespace mtcp::stack

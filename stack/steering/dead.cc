// Who has died, and what is done with what he left: SteeringPort's part that looks after the others.
#include <algorithm>
#include <array>
#include <utility>

#include "stack/steering/steering_port.hh"

namespace mtcp::stack {

bool SteeringPort::reap_if_dead(std::uint32_t stack) {
  const std::uint64_t owner = control_.slot(stack).owner.load(std::memory_order_acquire);
  if (owner == 0 || device_.alive(owner)) return false;
  reap(static_cast<std::uint8_t>(stack));
  return true;
}

// To ask the kernel about one costs 6 us. So each looks at those after it, up to the eighth that lives, and at a few of
// the others in turn: because all who come before one of the dead may be stopped. Where the kernel tells of those after it, it
// looks only then, and when there are others; and at one in turn.
void SteeringPort::look_for_the_dead() {
  constexpr std::uint32_t kNeighbours = 8, kInTurn = 4;
  const bool changed = std::exchange(watch_is_stale_, false);
  if (changed) watch_others();
  const bool told = watch_ != nullptr && watch_->told();
  const bool looks = watch_ == nullptr || changed || told;
  const StackSet others = others_;
  std::uint32_t stack = me_, alive = 0;
  for (std::uint32_t left = looks ? others.size() : 0; left > 0 && alive < kNeighbours; --left) {
    stack = others.after(stack);
    if (!reap_if_dead(stack)) ++alive;
  }
  const std::uint32_t known = looks ? kNeighbours : DeathWatch::kMost, in_turn = looks ? kInTurn : 1;
  for (std::uint32_t i = known; i < std::min(others.size(), known + in_turn); ++i) {
    looked_at_ = others.after(looked_at_);
    (void)reap_if_dead(looked_at_);
  }
  // Who has left may have left something behind.
  for (std::uint8_t free = 0; free < control_.slots(); ++free)
    if (control_.left_something(free)) reap(free);
  refresh();
  told_in_vain_ = told && !watch_is_stale_ ? told_in_vain_ + 1 : 0;
  if (told_in_vain_ > kToldInVain) stop_watching();
}

// Those after us, one for each process.
void SteeringPort::watch_others() {
  if (watch_ == nullptr) return;
  std::array<std::uint64_t, DeathWatch::kMost> processes;
  std::size_t n = 0;
  std::uint32_t stack = me_;
  for (std::uint32_t left = others_.size(); left > 0 && n < processes.size(); --left) {
    stack = others_.after(stack);
    const std::uint64_t owner = control_.slot(stack).owner.load(std::memory_order_acquire);
    const auto end = processes.begin() + static_cast<std::ptrdiff_t>(n);
    if (owner != 0 && owner != self_ && std::find(processes.begin(), end, owner) == end) processes[n++] = owner;
  }
  watch_->watch(std::span(processes).first(n)) ? rebuild_pollable() : stop_watching();
}

// There are no descriptors left; or what is told of is not seen to be dead (a zombie in a /proc that hides others' processes).
void SteeringPort::stop_watching() {
  watch_.reset();
  rebuild_pollable();
}

// What others had put into its message rings is received here, as if from one of our queues: the table has changed.
void SteeringPort::reap(std::uint8_t stack) {
  std::vector<Packet*> to_send;
  const std::uint64_t program = control_.slot(stack).program.load(std::memory_order_relaxed);
  (void)control_.reap(stack, me_, device_, [&](std::span<const Message> messages) {
    if (pass_on(messages, stack, program, nullptr)) return;
    for (const Message& message : messages) inherit(message, to_send);
  });
  announce();
  refresh();
  wake_all();
  transmit_for_others(to_send.data(), to_send.size());
}

// What came for a former stack of our slot.
void SteeringPort::take_over_messages() {
  std::vector<Packet*> to_send;
  for (std::uint32_t from = 0; from < control_.slots(); ++from)
    if (from != me_)
      message_ring(from, me_).drain([&](std::span<const Message> messages) {
        if (pass_on(messages, me_, control_.slot(from).program.load(std::memory_order_relaxed), &device_)) return;
        for (const Message& message : messages) inherit(message, to_send);
      });
  announce();
  transmit_for_others(to_send.data(), to_send.size());
}

void SteeringPort::inherit(const Message& message, std::vector<Packet*>& to_send) {
  if (message.kind == MessageKind::offer || message.kind == MessageKind::pull) return;  // they are made again
  Packet* p = copy_of(message);
  if (p == nullptr) return;
  if (message.kind == MessageKind::frame) p->flags &= kRxL4Good;
  if (message.kind == MessageKind::handover) control_.directory().set(message.flow, {Directory::State::in_transit, me_});
  (message.kind == MessageKind::transmit ? to_send : inherited_).push_back(p);
}

std::size_t SteeringPort::receive_inherited(Packet** out, std::size_t max) {
  const std::size_t taken = std::min(inherited_.size(), max);
  std::size_t n = 0;
  for (std::size_t i = 0; i < taken; ++i) {
    out[n] = inherited_[i];
    n += (out[n]->flags & kHandover) != 0 ? 1 : sort(out + n, 1);
  }
  inherited_.erase(inherited_.begin(), inherited_.begin() + static_cast<std::ptrdiff_t>(taken));
  return n;
}

}  // namespace mtcp::stack

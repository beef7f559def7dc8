#include "stack/steering/steering_port.hh"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>
#include <vector>

#include "stack/packet/external.hh"
#include "stack/wire/frame.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kLeftOver = ControlBlock::kRingMessages;  // packets
// So many of a device's hashes are compared with ours: enough to tell, and then it costs nothing any more.
constexpr std::uint32_t kHashesCompared = 1000;

}  // namespace

// --- members

std::unique_ptr<SteeringPort> SteeringPort::join(SharedDevice& device) {
  ControlBlock& control = device.control();
  std::uint8_t me = control.join(device);
  if (me == ControlBlock::kNobody) {
    for (std::uint8_t i = 0; i < control.slots(); ++i) (void)control.reap(i, ControlBlock::kNobody, device);
    me = control.join(device);
  }
  if (me == ControlBlock::kNobody) return nullptr;
  PacketPool* pool = device.pool(me);
  if (pool == nullptr) {
    control.leave(me, device);
    return nullptr;
  }
  return std::unique_ptr<SteeringPort>(new SteeringPort(device, me, *pool));
}

SteeringPort::SteeringPort(SharedDevice& device, std::uint8_t me, PacketPool& pool)
    : device_(device),
      control_(device.control()),
      pool_(pool),
      self_(device.self()),
      me_(me),
      program_(device.program()),
      hash_(FlowHash::make_key(device.control().secrets())),
      watch_(device.watch_deaths()),
      entry_mask_(device.control().entries() - 1) {
  refusals_ = control_.refusals();
  ways_given_ = control_.ways_given();
  reload();
  take_over_messages();
  balance_queues();
  wake_all();  // those who have more queues than their share give some back
}

SteeringPort::~SteeringPort() {
  if (device_.self() != self_) return;  // the child of a fork: everything is the parent's, as its queues know
  transmit_left_over();
  control_.slot(me_).queues.store(0, std::memory_order_release);  // nobody else is to ask us from here on
  queues_.clear();
  transmit_left_over();
  announce();
  pool_.free(left_over_.data(), left_over_.size());
  pool_.free(inherited_.data(), inherited_.size());
  pool_.free(held_.data(), held_.size());
  // What has come meanwhile is for whoever looks after those who have left.
  control_.slot(me_).senders.fetch_or(unread_senders_.bits(), std::memory_order_release);
  control_.leave(me_, device_);
  wake_all();
}

void SteeringPort::reload() {
  version_ = control_.version();
  const bool was_alone = others_.empty();
  without_ = others_ = control_.members();
  others_.remove(me_);
  strangers_ = siblings_ = {};
  for (const std::uint32_t stack : others_) {
    if (!is_of(program_, stack)) strangers_.add(stack);
    if (control_.slot(stack).owner.load(std::memory_order_relaxed) == self_) siblings_.add(stack);
  }
  must_publish_ = must_publish_ || (was_alone && !others_.empty());
  for (std::uint32_t i = 0; i < control_.slots(); ++i) {
    const std::uint64_t owner = control_.slot(i).owner.load(std::memory_order_acquire);
    const std::uint64_t former = std::exchange(owners_[i], owner);
    // It may have been killed when it had announced messages and not yet said so.
    if (former != 0 && former != owner && i != me_) unread_senders_.add(i);
  }
  for (std::uint32_t i = 0; i <= entry_mask_; ++i) {
    table_[i] = control_.home(i);
    if (table_[i] != ControlBlock::kNobody) without_.remove(table_[i]);
    must_publish_ = must_publish_ || control_.yielding(i).has(me_);
  }
  unclaimed_ = control_.any_unclaimed();
  watch_is_stale_ = true;
  card_is_told_ = false;
  next_round_ = {};
}

Steering::Share SteeringPort::share() const {
  return {me_, static_cast<std::uint32_t>(queues_.size()), status().packets_free, traffic_.sent, traffic_.received,
         traffic_.lost, hash_agrees_, hash_differs_};
}

// --- receiving

std::size_t SteeringPort::rx(Packet** out, std::size_t max) {
  refresh();
  announce();
  std::size_t n = 0;
  if (!inherited_.empty()) [[unlikely]] n = receive_inherited(out, max);
  const std::size_t messages = receive_messages(out + n, (max - n + 1) / 2);
  n += messages;
  if (!held_.empty() && (retry_held_ || messages != 0)) [[unlikely]] {
    retry_held_ = false;
    n += receive_held(out + n, max - n);
  }
  if (++first_queue_ >= queues_.size()) first_queue_ = 0;
  for (std::size_t i = 0; i < queues_.size() && n < max; ++i) {
    std::size_t at = first_queue_ + i;
    if (at >= queues_.size()) at -= queues_.size();
    const std::size_t got = queues_[at]->rx(out + n, max - n);
    if (hash_agrees_ + hash_differs_ < kHashesCompared) compare_hashes(out + n, got);
    n += others_.empty() && !unclaimed_ && unread_senders_.empty() ? got : sort(out + n, got);
  }
  // It was not for packets?
  if (std::exchange(woken_, false) && n == 0) late_wake_ = ask_watch_ = true;
  return n;
}

// `hash`: of a flow; 0: no flow's.
void SteeringPort::mark(Packet& p, std::uint32_t hash) const {
  if (hash == 0) return;
  p.payload_offset = static_cast<std::uint16_t>(p.headroom());
  p.flow_hash = hash;
  const bool home = owner_of(hash) == me_;
  p.flags = static_cast<std::uint16_t>((p.flags & ~kNotHome) | kSteered | (home ? 0 : kNotHome));
}

void SteeringPort::compare_hashes(Packet* const* packets, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const Packet& p = *packets[i];
    if ((p.flags & kRxHash) == 0) continue;
    if (const FrameKind kind = classify(p.bytes(), hash_); kind.tcp)
      ++(kind.hash == p.payload_sum ? hash_agrees_ : hash_differs_);
  }
}

// A segment of a connection to a port of this program, though its home is another program's stack, which would only pass it on: what
// is accepted away from home is in the directory, and what is not known here takes the usual way. What opens one goes there.
bool SteeringPort::is_for_own_listener(const Packet& p) const {
  const TcpLayout at = find_tcp(p.bytes());
  if (at.headers == 0 || p.len < at.headers) return false;
  constexpr std::uint8_t kSynFlag = 0x02;
  if ((tcp_flags(p.data + at.tcp) & kSynFlag) != 0) return false;
  return std::ranges::find(listener_ports_, destination_port(p.data + at.tcp)) != listener_ports_.end();
}

// Keeps what is ours, in order; the rest goes to whom it belongs.
std::size_t SteeringPort::sort(Packet** packets, std::size_t n) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < n; ++i) {
    Packet* p = packets[i];
    const FrameKind kind = classify(p->bytes(), hash_);
    const Message message{MessageKind::frame, static_cast<std::uint16_t>(p->flags & kRxL4Good), kind.hash, p->bytes()};
    if (kind.kind == FrameKind::Kind::flow) {
      const std::uint8_t owner = owner_of(kind.hash);
      if (others_.has(owner) && !is_pointed_here(kind.hash) && !(strangers_.has(owner) && kind.tcp && is_for_own_listener(*p))) {
        (void)post(owner, message);
        pool_.free(&p, 1);
        continue;
      }
    } else if (kind.kind == FrameKind::Kind::all) {
      for (const std::uint32_t stack : others_) (void)post(stack, message);
    }
    mark(*p, kind.hash);
    packets[kept++] = p;
  }
  announce();
  return kept;
}

// --- messages

// Until announce() the reader does not know. False, and counted, if it did not fit.
bool SteeringPort::post(std::uint32_t to, const Message& message) {
  MessageRing box = message_ring(me_, to);
  const std::size_t written = unannounced_[to];
  if (box.room() <= written || !box.write(written, message)) {
    next_round_ = {};  // is it dead?
    ++traffic_.lost;
    return false;
  }
  count_written(to, 1);
  return true;
}

void SteeringPort::count_written(std::uint32_t to, std::size_t n) {
  static_assert(ControlBlock::kRingMessages <= UINT8_MAX);
  unannounced_[to] = static_cast<std::uint8_t>(unannounced_[to] + n);
  written_to_.add(to);
  traffic_.sent += n;
}

void SteeringPort::announce() {
  if (written_to_.empty()) return;
  const StackSet stacks = std::exchange(written_to_, {});
  for (const std::uint32_t stack : stacks) message_ring(me_, stack).announce(std::exchange(unannounced_[stack], std::uint8_t{0}));
  ring(stacks);
}

void SteeringPort::ring(StackSet stacks) {
  for (const std::uint32_t stack : stacks) {
    ControlBlock::Slot& slot = control_.slot(stack);
    slot.senders.fetch_or(StackSet::of(me_).bits(), std::memory_order_seq_cst);
    if (slot.sleeping.load(std::memory_order_seq_cst) != 0 && slot.sleeping.exchange(0) != 0) device_.wake(stack);
  }
}

void SteeringPort::wake_all() {
  for (const std::uint32_t stack : control_.members() - StackSet::of(me_))
    if (control_.slot(stack).sleeping.exchange(0) != 0) device_.wake(stack);
}

// Null if there is no packet for it, or it does not fit into one.
Packet* SteeringPort::copy_of(const Message& message) {
  Packet* p = nullptr;
  if (pool_.alloc(&p, 1) == 0 || message.bytes.size() > p->tailroom()) {
    if (p != nullptr) pool_.free(&p, 1);
    ++traffic_.lost;
    return nullptr;
  }
  std::memcpy(p->data, message.bytes.data(), message.bytes.size());
  p->len = static_cast<std::uint32_t>(message.bytes.size());
  p->flags = message.flags;
  ++traffic_.received;
  return p;
}

// Null if there is nothing for anybody else to do.
Packet* SteeringPort::receive_message(const Message& message, std::uint32_t from) {
  if (message.kind == MessageKind::offer) {
    Endpoint local;
    if (message.bytes.size() != sizeof local) return nullptr;
    std::memcpy(&local, message.bytes.data(), sizeof local);
    pull_from(from, local);
    return nullptr;
  }
  Packet* p = copy_of(message);
  if (p == nullptr) return nullptr;
  if (message.kind == MessageKind::frame) mark(*p, static_cast<std::uint32_t>(message.tag));
  if (message.kind == MessageKind::pull) {
    p->flags = kPull;
    p->flow_hash = from;
  }
  return p;
}

std::size_t SteeringPort::receive_messages(Packet** out, std::size_t max) {
  ControlBlock::Slot& slot = control_.slot(me_);
  if (slot.senders.load(std::memory_order_relaxed) != 0) unread_senders_ = unread_senders_ | control_.take_senders(me_);
  if (unread_senders_.empty()) return 0;
  std::size_t n = 0;
  std::array<Packet*, 32> outgoing;
  std::size_t to_send = 0;
  const StackSet senders = unread_senders_;
  for (std::uint32_t i = senders.size(); i > 0 && n < max && to_send < outgoing.size(); --i) {
    const std::uint32_t from = last_sender_ = senders.after(last_sender_);
    MessageRing box = message_ring(from, me_);
    for (std::uint32_t left = ControlBlock::kRingMessages; n < max && to_send < outgoing.size() && left > 0; box.release(), --left) {
      if (box.empty()) {
        unread_senders_.remove(from);
        break;
      }
      const Message message = box.read();
      if (closing_ && message.kind == MessageKind::handover) [[unlikely]] {
        MessageRing::Group group;
        const std::span<const Message> messages = box.read_group(group);
        if (pass_on(messages, me_, program_, &device_)) {
          box.release(messages.size() - 1);
          continue;
        }
      }
      Packet* p = receive_message(message, from);
      if (p == nullptr) continue;
      (message.kind == MessageKind::transmit ? outgoing[to_send++] : out[n++]) = p;
    }
  }
  announce();
  transmit_for_others(outgoing.data(), to_send);
  return n;
}

// --- sending

// Whoever asked us to may have seen a queue that somebody else has by now; or that nobody has, while it changes hands.
void SteeringPort::transmit_for_others(Packet** packets, std::size_t n) {
  if (n == 0) return;
  const std::size_t taken = left_over_.empty() ? tx(packets, n) : 0;
  const std::size_t kept = std::min(n - taken, kLeftOver - left_over_.size());
  left_over_.insert(left_over_.end(), packets + taken, packets + taken + kept);
  if (taken + kept == n) return;
  traffic_.lost += n - taken - kept;
  pool_.free(packets + taken + kept, n - taken - kept);
}

void SteeringPort::transmit_left_over() {
  if (left_over_.empty()) return;
  const std::size_t taken = tx(left_over_.data(), left_over_.size());
  left_over_.erase(left_over_.begin(), left_over_.begin() + static_cast<std::ptrdiff_t>(taken));
}

// The next stack that has a queue; ourselves if nobody has one.
std::uint32_t SteeringPort::transmitter() const {
  std::uint32_t stack = me_;
  for (std::uint32_t i = others_.size(); i > 0; --i) {
    stack = others_.after(stack);
    if (control_.slot(stack).queues.load(std::memory_order_acquire) != 0) return stack;
  }
  return me_;
}

std::size_t SteeringPort::transmit_by_message(Packet* const* packets, std::size_t n) {
  const std::uint32_t to = transmitter();
  if (to == me_) return 0;
  const std::size_t room = message_ring(me_, to).room();
  n = std::min(n, room - std::min<std::size_t>(room, unannounced_[to]));
  for (std::size_t i = 0; i < n; ++i) {
    Packet* p = packets[i];
    const auto flags = static_cast<std::uint16_t>(p->flags & kTxL4Offload);
    std::vector<std::byte> whole;
    if ((p->flags & kExternal) != 0) [[unlikely]] whole = copy_of_frame(*p);
    (void)post(to, {MessageKind::transmit, flags, 0, whole.empty() ? p->bytes() : std::span<const std::byte>(whole)});
    if ((p->flags & kKeep) != 0) continue;
    if ((p->flags & kExternal) != 0) [[unlikely]] drop_external(*p);
    p->pool->free(&p, 1);
  }
  announce();
  return n;
}

std::size_t SteeringPort::tx(Packet* const* packets, std::size_t n) {
  return queues_.empty() ? transmit_by_message(packets, n) : queues_.front()->tx(packets, n);
}

bool SteeringPort::busy(const Packet& p) const {
  return std::ranges::any_of(queues_, [&p](const auto& q) { return q->busy(p); });
}

// What another stack of this process is to send or to receive ends with the process as well.
Port::TxState SteeringPort::tx_state() const {
  TxState s;
  for (const std::uint32_t stack : siblings_) s.delivered = s.delivered && message_ring(me_, stack).room() == ControlBlock::kRingMessages;
  for (const auto& q : queues_) s.delivered = s.delivered && q->tx_state().delivered;
  s.congested = !queues_.empty() && queues_.front()->tx_state().congested;
  return s;
}

// --- what the queues say

Port::Link SteeringPort::link() const {
  return {queues_.empty() || std::ranges::any_of(queues_, [](const auto& q) { return q->link_up(); })};
}

std::uint32_t SteeringPort::mtu() const {
  std::uint32_t least = device_.mtu();
  for (const auto& q : queues_) least = std::min(least, q->mtu());
  return least;
}

std::size_t SteeringPort::packets_held() const {
  std::size_t sum = 0;
  for (const auto& q : queues_) sum += q->packets_held();
  return sum;
}

void SteeringPort::add_counters(Status& sum, const Status& more) {
  sum.rx_dropped += more.rx_dropped;
  sum.tx_dropped += more.tx_dropped;
  sum.tx_merged += more.tx_merged;
}

Port::Status SteeringPort::status() const {
  Status sum = before_;
  sum.rx_dropped += traffic_.lost;
  for (const auto& q : queues_) {
    const Status s = q->status();
    add_counters(sum, s);
    sum.packets_free += s.packets_free;
    if (s.by != nullptr) sum.by = s.by;
  }
  return sum;
}

Port::Notice SteeringPort::notice() {
  for (auto& q : queues_)
    if (Notice n = q->notice(); !n.text.empty()) return n;
  return {};
}

}  // namespace mtcp::stack

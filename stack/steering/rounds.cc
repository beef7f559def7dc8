// What a stack looks after now and then: its queues, who waits for a slot, the dead. And when it may sleep.
#include <algorithm>
#include <utility>

#include "stack/steering/steering_port.hh"

namespace mtcp::stack {
namespace {

constexpr Duration kTick = milliseconds(1);

}  // namespace

// --- queues

void SteeringPort::rebuild_pollable() {
  pollable_.assign(1, device_.wake_descriptor(me_));
  if (watch_ != nullptr) pollable_.insert(pollable_.end(), watch_->descriptors().begin(), watch_->descriptors().end());
  for (const auto& q : queues_) pollable_.insert(pollable_.end(), q->pollable().begin(), q->pollable().end());
  StackSet polled;
  for (const std::uint32_t n : queue_numbers_) polled.add(n);
  control_.slot(me_).queues.store(polled.bits(), std::memory_order_release);
}

bool SteeringPort::claim_one() {
  const std::uint32_t all = device_.queues();
  for (std::uint32_t i = 0; i < all; ++i) {
    const std::uint32_t n = (me_ + i) % all;  // so that stacks that come at the same time want different ones
    if (std::ranges::find(queue_numbers_, n) != queue_numbers_.end()) continue;
    auto queue = device_.claim_queue(n, me_);
    if (queue == nullptr) continue;
    queues_.push_back(std::move(queue));
    queue_numbers_.push_back(n);
    return true;
  }
  return false;
}

// Every queue is polled by somebody, and nobody polls more than `share`: then some have one less than others.
bool SteeringPort::are_shared_out(std::size_t share) const {
  StackSet polled;
  for (const std::uint32_t stack : others_ | StackSet::of(me_)) {
    const StackSet queues(control_.slot(stack).queues.load(std::memory_order_acquire));
    if (queues.size() > share) return false;
    polled = polled | queues;
  }
  return polled.size() >= device_.queues();
}

// True if there is nothing to be done about them for now.
bool SteeringPort::balance_queues() {
  const std::uint32_t stacks = others_.size() + 1;
  while (device_.queues() < stacks && device_.add_queue()) {
  }
  const std::size_t share = (device_.queues() + stacks - 1) / stacks;
  const std::size_t before = queues_.size();
  while (queues_.size() > share) {
    add_counters(before_, queues_.back()->status());
    queues_.pop_back();
    queue_numbers_.pop_back();
  }
  while (queues_.size() < share && !are_shared_out(share) && claim_one()) {
  }
  if (queues_.size() != before || pollable_.empty()) rebuild_pollable();
  if (queues_.size() != before) {
    point_all_here();
    wake_all();  // somebody may have his share now, and the first tells the card
  }
  return queues_.size() == share || stacks > device_.queues() || are_shared_out(share);
}

void SteeringPort::look_who_waits(Time now) {
  if (const std::uint32_t refusals = control_.refusals(); refusals != refusals_) {
    if (waits_since_ == Time{}) waits_since_ = now;
    refusals_ = refusals;
    refused_at_ = now;
  } else if (now - refused_at_ > kWaitsNoMore) {
    waits_since_ = {};
  }
  if (const std::uint32_t given = control_.ways_given(); given != ways_given_) {
    ways_given_ = given;  // that process has its time to leave
    if (waits_since_ != Time{}) waits_since_ = now;
  }
  must_give_way_ = false;
  if (waits_since_ == Time{}) return;
  const auto before_us = control_.stopped_before(me_);
  if (!before_us) {
    waits_since_ = now;  // somebody serves: no harm is done
    return;
  }
  // Those before us may have been stopped by a signal.
  must_give_way_ = now - waits_since_ >= kWaits * (*before_us + 1);
}

void SteeringPort::has_given_way() {
  control_.has_given_way(me_);
  must_give_way_ = false;
}

void SteeringPort::service(Time now) {
  for (auto& q : queues_) q->service(now);
  refresh();
  retry_held_ = !held_.empty();
  transmit_left_over();
  if (std::exchange(ask_watch_, false) && watch_ != nullptr && watch_->told()) next_round_ = {};
  if (now < next_round_) return;
  look_for_the_dead();
  take_unclaimed(me_);
  look_who_waits(now);
  balanced_ = balance_queues();
  next_round_ = now + (balanced_ ? kRound : kTick);  // else somebody is about to give one back to us
  point_card(now);
}

// --- sleeping

bool SteeringPort::arm() {
  announce();
  ControlBlock::Slot& slot = control_.slot(me_);
  bool quiet = true;
  for (auto& q : queues_) quiet = q->arm() && quiet;
  // Set back to 0 by whoever woke us: then another thread that slept here may still have to read it. And who set it back may
  // have been late in waking us.
  const bool was_awake = slot.sleeping.exchange(1, std::memory_order_seq_cst) == 0;
  if (was_awake && (armed_ || std::exchange(late_wake_, false))) device_.clear_wake(me_);
  if (was_awake && armed_) card_is_told_ = false;
  armed_ = true;
  return quiet && inherited_.empty() && unread_senders_.empty() && slot.senders.load(std::memory_order_seq_cst) == 0 &&
         control_.version() == version_;
}

void SteeringPort::disarm() {
  for (auto& q : queues_) q->disarm();
  woken_ = true;
  armed_ = false;
  if (control_.slot(me_).sleeping.exchange(0, std::memory_order_seq_cst) != 0) return;
  device_.clear_wake(me_);
  card_is_told_ = false;  // somebody may have other queues
}

Duration SteeringPort::max_sleep() const {
  // Somebody looks after those who die untold, after the queues, and after the device's table, until it is as it should be: who changes
  // something of that wakes everybody.
  const bool told = watch_ != nullptr || others_ == siblings_;
  const bool points_card = device_.queues() > 1 && !others_.empty() && me_ < others_.first() && !card_is_told_;
  const bool looks = !told || !balanced_ || queues_.empty() || waits_since_ != Time{} || points_card;
  Duration longest = looks ? kRound : Duration::max();
  if (!held_.empty() || !left_over_.empty()) longest = kTick;
  for (const auto& q : queues_) longest = std::min(longest, q->max_sleep());
  return longest;
}

}  // namespace mtcp::stack

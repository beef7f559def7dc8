#include "stack/tcp/sender/scoreboard.hh"

#include <algorithm>
#include <bit>
#include <new>

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kFirstCapacity = 64;

bool has(const Packet& p, std::uint8_t mark) { return (p.marks & mark) != 0; }
void set(Packet& p, std::uint8_t mark) { p.marks = static_cast<std::uint8_t>(p.marks | mark); }
void clear(Packet& p, std::uint8_t mark) { p.marks = static_cast<std::uint8_t>(p.marks & ~mark); }
// It may still arrive.
bool is_under_way(const Packet& p) { return !has(p, kSacked) && (!has(p, kLost) || has(p, kResent)); }

}  // namespace

bool Scoreboard::grow() {
  const std::uint32_t old = entries_ == nullptr ? 0 : mask_ + 1, capacity = old == 0 ? kFirstCapacity : 2 * old;
  std::unique_ptr<Entry[]> entries(new (std::nothrow) Entry[capacity]);
  std::unique_ptr<std::uint64_t[]> sacked(new (std::nothrow) std::uint64_t[capacity / 64]());
  std::unique_ptr<std::uint64_t[]> lost(new (std::nothrow) std::uint64_t[capacity / 64]());
  if (entries == nullptr || sacked == nullptr || lost == nullptr) return false;
  const auto bit = [this](const std::uint64_t* bits, Index i) { return bits[(i & mask_) / 64] >> (i % 64) & 1; };
  for (Index i = head_; i != tail_; ++i) {
    const Index to = i & (capacity - 1);
    entries[to] = entries_[i & mask_];
    sacked[to / 64] |= bit(sacked_bits_.get(), i) << (i % 64);
    lost[to / 64] |= bit(lost_bits_.get(), i) << (i % 64);
  }
  entries_ = std::move(entries);
  sacked_bits_ = std::move(sacked);
  lost_bits_ = std::move(lost);
  mask_ = capacity - 1;
  return true;
}

bool Scoreboard::build(Packet* first, const Packet* end) {
  head_ = tail_ = 0;
  oldest_ = newest_ = kNone;
  sacked_ = lost_ = resent_ = sacked_packets_ = resent_packets_ = to_resend_ = newly_lost_ = 0;
  bool resent = false;
  for (Packet* p = first; p != end; p = p->next) {
    if (!append(p)) return false;
    resent = resent || p->transmissions > 1;
  }
  if (!resent) return true;
  // Not in the order of the queue: an insertion sort, since all but a few are.
  for (Index i = head_; i != tail_; ++i) {
    if (!is_under_way(*at(i)) || entries_[i & mask_].older == kNone) continue;
    Index after = entries_[i & mask_].older;
    if (at(after)->sent_at <= at(i)->sent_at) continue;
    unlink(i);
    while (after != kNone && at(after)->sent_at > at(i)->sent_at) after = entries_[after & mask_].older;
    Entry& e = entries_[i & mask_];
    e.older = after;
    e.newer = after == kNone ? oldest_ : entries_[after & mask_].newer;
    (after == kNone ? oldest_ : entries_[after & mask_].newer) = i;
    (e.newer == kNone ? newest_ : entries_[e.newer & mask_].older) = i;
  }
  return true;
}

bool Scoreboard::append(Packet* p) {
  if ((entries_ == nullptr || tail_ - head_ > mask_) && !grow()) return false;
  place(p);
  return true;
}

void Scoreboard::place(Packet* p) {
  const Index i = tail_++;
  entries_[i & mask_] = {p, p->seq, kNone, kNone};
  clear_bit(sacked_bits_.get(), i);
  clear_bit(lost_bits_.get(), i);
  if (is_under_way(*p)) link(i);
  if (has(*p, kSacked)) {
    set_bit(sacked_bits_.get(), i);
    sacked_ += p->payload_len;
    ++sacked_packets_;
  }
  if (has(*p, kLost)) lost_ += p->payload_len;
  if (has(*p, kResent)) {
    resent_ += p->payload_len;
    ++resent_packets_;
  } else if (has(*p, kLost)) {
    set_bit(lost_bits_.get(), i);
    ++to_resend_;
  }
}

void Scoreboard::link(Index i) {
  Entry& e = entries_[i & mask_];
  e.older = newest_;
  e.newer = kNone;
  (newest_ == kNone ? oldest_ : entries_[newest_ & mask_].newer) = i;
  newest_ = i;
}

void Scoreboard::unlink(Index i) {
  const Entry& e = entries_[i & mask_];
  (e.older == kNone ? oldest_ : entries_[e.older & mask_].newer) = e.newer;
  (e.newer == kNone ? newest_ : entries_[e.newer & mask_].older) = e.older;
}

// All but sacked: what counts and lists know of a packet that is no longer lost, sent again or under way.
void Scoreboard::forget_marks(const Packet& p, Index i) {
  if (is_under_way(p)) unlink(i);
  if (has(p, kLost)) lost_ -= p.payload_len;
  if (has(p, kResent)) {
    resent_ -= p.payload_len;
    --resent_packets_;
  } else if (has(p, kLost)) {
    clear_bit(lost_bits_.get(), i);
    --to_resend_;
  }
}

void Scoreboard::pop_front() {
  const Packet& p = *at(head_);
  if (has(p, kSacked)) {
    sacked_ -= p.payload_len;
    --sacked_packets_;
  }
  forget_marks(p, head_);
  ++head_;
}

void Scoreboard::trim_front(std::uint32_t n) {
  const Packet& p = *at(head_);
  if (has(p, kSacked)) sacked_ -= n;
  if (has(p, kLost)) lost_ -= n;
  if (has(p, kResent)) resent_ -= n;
  entries_[head_ & mask_].seq += n;
}

Scoreboard::Index Scoreboard::first_from(Seq seq) const {
  Index low = head_, high = tail_;
  while (low != high) {
    const Index middle = low + (high - low) / 2;
    if (before(entries_[middle & mask_].seq, seq))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

Scoreboard::Index Scoreboard::scan(const std::uint64_t* bits, Index from, Index end, bool wanted) const {
  while (from < end) {
    const std::uint64_t word = bits[(from & mask_) / 64];
    const std::uint64_t rest = (wanted ? word : ~word) >> (from % 64);
    if (rest != 0) return std::min(from + static_cast<Index>(std::countr_zero(rest)), end);
    from += 64 - from % 64;
  }
  return end;
}

void Scoreboard::set_sacked(Index i) {
  Packet& p = *at(i);
  forget_marks(p, i);
  clear(p, kLost | kResent);
  set(p, kSacked);
  set_bit(sacked_bits_.get(), i);
  sacked_ += p.payload_len;
  ++sacked_packets_;
}

void Scoreboard::set_lost(Index i) {
  Packet& p = *at(i);
  if (has(p, kSacked) || (has(p, kLost) && !has(p, kResent))) return;
  forget_marks(p, i);
  clear(p, kResent);
  set(p, kLost);
  lost_ += p.payload_len;
  newly_lost_ += p.payload_len;
  set_bit(lost_bits_.get(), i);
  ++to_resend_;
}

void Scoreboard::set_resent(Index i) {
  Packet& p = *at(i);
  if (has(p, kSacked)) return;
  if (is_under_way(p)) {
    unlink(i);  // the probe of a packet that may still be under way
  } else {
    clear_bit(lost_bits_.get(), i);
    --to_resend_;
  }
  if (!has(p, kResent)) {
    resent_ += p.payload_len;
    ++resent_packets_;
  }
  set(p, kResent);
  link(i);
}

void Scoreboard::clear_lost(Index i) {
  Packet& p = *at(i);
  if (!has(p, kLost)) return;
  forget_marks(p, i);
  clear(p, kLost);
  if (has(p, kResent)) {
    resent_ += p.payload_len;
    ++resent_packets_;
  }
  link(i);
}

void Scoreboard::clear_sacked(Index i) {
  Packet& p = *at(i);
  if (!has(p, kSacked)) return;
  clear(p, kSacked);
  clear_bit(sacked_bits_.get(), i);
  sacked_ -= p.payload_len;
  --sacked_packets_;
  link(i);
  set_lost(i);
}

}  // namespace mtcp::stack

#include "stack/tcp/receiver/sack.hh"

#include <algorithm>

namespace mtcp::stack {

void SackState::add(Seq begin, Seq end) {
  std::array<SackBlock, 4> others;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const SackBlock& b = blocks_[i];
    if (before(b.end, begin) || after(b.begin, end)) {
      others[kept++] = b;
    } else {  // it has grown, or two have become one
      begin = earlier(begin, b.begin);
      end = later(end, b.end);
    }
  }
  kept = std::min(kept, blocks_.size() - 1);
  blocks_[0] = {begin, end};
  std::copy_n(others.begin(), kept, blocks_.begin() + 1);
  count_ = static_cast<std::uint8_t>(kept + 1);
}

void SackState::advance(Seq rcv_nxt) {
  std::uint8_t kept = 0;
  for (std::size_t i = 0; i < count_; ++i)
    if (after(blocks_[i].begin, rcv_nxt)) blocks_[kept++] = blocks_[i];
  count_ = kept;
}

void SackState::forget_from(Seq seq) {
  std::uint8_t kept = 0;
  for (std::size_t i = 0; i < count_; ++i)
    if (before(blocks_[i].begin, seq)) blocks_[kept++] = {blocks_[i].begin, earlier(blocks_[i].end, seq)};
  count_ = kept;
  // Without a block around it, it would be read as one itself.
  if (!has_duplicate_ || at_or_before(duplicate_.end, seq)) return;
  has_duplicate_ = before(duplicate_.begin, seq);
  duplicate_.end = seq;
}

void SackState::add_duplicate(Seq begin, Seq end) {
  if (has_duplicate_ && at_or_before(begin, duplicate_.end) && at_or_after(end, duplicate_.begin)) {
    begin = earlier(begin, duplicate_.begin);
    end = later(end, duplicate_.end);
  }
  duplicate_ = {begin, end};
  has_duplicate_ = true;
}

std::size_t SackState::take(std::span<SackBlock> out) {
  std::size_t n = 0;
  if (has_duplicate_ && !out.empty()) {
    out[n++] = duplicate_;
    has_duplicate_ = false;
  }
  for (std::size_t i = 0; i < count_ && n < out.size(); ++i) out[n++] = blocks_[i];
  return n;
}

}  // namespace mtcp::stack

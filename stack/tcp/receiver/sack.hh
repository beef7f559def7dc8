// What our ACKs tell the peer about data out of order (RFC 2018), and about data that came twice (RFC 2883).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/wire/segment.hh"

namespace mtcp::stack {

class SackState {
 public:
  // Nothing to tell: a segment needs no SACK option.
  [[nodiscard]] bool empty() const { return count_ == 0 && !has_duplicate_; }
  // Data of [begin, end) has been queued out of order: the block that it is in comes first from now on.
  void add(Seq begin, Seq end);
  // What adjoined RCV.NXT is acknowledged by itself.
  void advance(Seq rcv_nxt);
  // Nothing from `seq` on is there any more.
  void forget_from(Seq seq);
  // The queue has been emptied: what was reported does not hold any more.
  void forget_blocks() { count_ = 0; }
  [[nodiscard]] bool has_duplicate() const { return has_duplicate_; }
  // [begin, end) was known already: the next segment says so, once.
  void add_duplicate(Seq begin, Seq end);
  // The blocks for a segment with room for out.size() of them, the duplicate first; returns how many. A duplicate
  // that has been told is forgotten.
  std::size_t take(std::span<SackBlock> out);

 private:
  // Most recent first. RFC 2018 section 4: a block is repeated in at least three ACKs; four fit beside no timestamps.
  std::array<SackBlock, 4> blocks_{};
  SackBlock duplicate_{};
  std::uint8_t count_ = 0;
  bool has_duplicate_ = false;
};

}  // namespace mtcp::stack

// What is known of each packet in flight: sacked, lost, sent again (RFC 2018, RFC 6675 section 3, RFC 8985 section 5.1).
// Made when the first packet of a flight gets such a mark, kept until nothing is in flight. An index over the send
// queue, so that no ACK costs more than a few steps, whatever blocks it names: packets in the order of their sequence
// numbers with a bit each for sacked and for lost, and a list in the order in which they were sent.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>

#include "stack/packet/packet.hh"

namespace mtcp::stack {

class Scoreboard {
 public:
  // Counts up from 0; a packet keeps its index while it is in flight.
  using Index = std::uint32_t;
  static constexpr Index kNone = UINT32_MAX;

  // Takes all packets from `first` up to `end` (exclusive, null: all); their marks count. False: no memory.
  [[nodiscard]] bool build(Packet* first, const Packet* end);
  // A packet was sent for the first time. False: no memory.
  [[nodiscard]] bool append(Packet* p);
  // The first packet is acknowledged, whole or in its first `n` bytes (the packet is not cut yet).
  void pop_front();
  void trim_front(std::uint32_t n);

  [[nodiscard]] Index head() const { return head_; }
  [[nodiscard]] Index tail() const { return tail_; }  // one past the last
  [[nodiscard]] bool empty() const { return head_ == tail_; }
  [[nodiscard]] Packet* at(Index i) const { return entries_[i & mask_].packet; }
  // The first packet that begins at or after `seq`; tail() if none does.
  [[nodiscard]] Index first_from(Seq seq) const;
  // The first in [from, end) that is not sacked / that is lost and not sent again; `end` if none is.
  [[nodiscard]] Index next_unsacked(Index from, Index end) const { return scan(sacked_bits_.get(), from, end, false); }
  [[nodiscard]] Index next_lost(Index from) const { return scan(lost_bits_.get(), from, tail_, true); }
  [[nodiscard]] bool has_lost() const { return to_resend_ != 0; }
  // Those that may still arrive, in the order in which they were sent; kNone at the end.
  [[nodiscard]] Index oldest() const { return oldest_; }
  [[nodiscard]] Index newer(Index i) const { return entries_[i & mask_].newer; }

  void set_sacked(Index i);
  void set_lost(Index i);    // also one whose retransmission is lost
  void set_resent(Index i);  // a lost one was sent again just now; or the last one, as a probe
  void clear_lost(Index i);  // it was not, after all
  void clear_sacked(Index i);  // the receiver has dropped it: lost

  // Bytes; a packet that is lost and sent again counts in both.
  [[nodiscard]] std::uint32_t sacked() const { return sacked_; }
  [[nodiscard]] std::uint32_t lost() const { return lost_; }
  [[nodiscard]] std::uint32_t resent() const { return resent_; }
  // Bytes that were marked lost since this was asked.
  [[nodiscard]] std::uint32_t take_newly_lost() { return std::exchange(newly_lost_, 0U); }
  // Packets.
  [[nodiscard]] std::uint32_t sacked_packets() const { return sacked_packets_; }
  [[nodiscard]] std::uint32_t resent_packets() const { return resent_packets_; }
  // Nothing is marked, and places are about to run out: build it anew when it is needed.
  [[nodiscard]] bool is_worn() const { return tail_ > 1U << 31 && sacked_ + lost_ + resent_ == 0; }

 private:
  struct Entry {
    Packet* packet;
    Seq seq;
    Index older, newer;
  };
  [[nodiscard]] bool grow();
  [[nodiscard]] Index scan(const std::uint64_t* bits, Index from, Index end, bool wanted) const;
  void set_bit(std::uint64_t* bits, Index i) { bits[(i & mask_) / 64] |= std::uint64_t{1} << (i % 64); }
  void clear_bit(std::uint64_t* bits, Index i) { bits[(i & mask_) / 64] &= ~(std::uint64_t{1} << (i % 64)); }
  void link(Index i);  // as the newest
  void unlink(Index i);
  void place(Packet* p);
  void forget_marks(const Packet& p, Index i);

  std::unique_ptr<Entry[]> entries_;  // a ring
  std::unique_ptr<std::uint64_t[]> sacked_bits_, lost_bits_;
  Index head_ = 0, tail_ = 0, mask_ = 0;
  Index oldest_ = kNone, newest_ = kNone;
  std::uint32_t sacked_ = 0, lost_ = 0, resent_ = 0;
  std::uint32_t sacked_packets_ = 0, resent_packets_ = 0, to_resend_ = 0;
  std::uint32_t newly_lost_ = 0;
};

}  // namespace mtcp::stack

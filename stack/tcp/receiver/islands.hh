// The data out of order of one stack's connections: runs of bytes without a gap, "islands", in a balanced tree for each
// connection. A node is found, put in and taken out in O(log n); the last one, behind which most arrives, in O(1).
// Neither TCP nor memory limits are known here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "stack/base/seq.hh"
#include "stack/base/slab.hh"
#include "stack/packet/packet.hh"

namespace mtcp::stack {

struct Island {
  static constexpr std::uint32_t kNone = UINT32_MAX;

  Seq begin, end;                            // first byte, one past the last
  std::uint32_t left = kNone, right = kNone;  // in the tree
  std::uint32_t priority = 0;                 // random, never above its parent's
  PacketList packets;  // without a gap; empty: the bytes are here, so that a few do not hold a whole packet
  std::array<std::byte, 88> bytes;

  [[nodiscard]] std::uint32_t size() const { return end - begin; }
};
static_assert(sizeof(Island) == 128);

// The islands of one connection.
struct IslandSet {
  std::uint32_t root = Island::kNone;
  std::uint32_t last = Island::kNone;  // in sequence
  std::uint32_t count = 0;
  [[nodiscard]] bool empty() const { return count == 0; }
};

class Islands {
 public:
  // At most `limit` in all; `seed` must not be guessable, or a peer could make the trees deep.
  Islands(std::uint32_t limit, std::uint64_t seed) : slab_(limit), random_(seed | 1) {}

  [[nodiscard]] Island& at(std::uint32_t index) { return slab_.at(index); }
  // An island that is in no set yet, or kNone: a set may have a sixteenth of what the others have left.
  [[nodiscard]] std::uint32_t create(const IslandSet& set);
  void destroy(std::uint32_t index) { slab_.destroy(index); }

  void insert(IslandSet& set, std::uint32_t index);  // by its `begin`
  void remove(IslandSet& set, std::uint32_t index);
  // The one with the greatest `begin` not after `seq`, and with the least after it; kNone if there is none.
  [[nodiscard]] std::uint32_t at_or_before(const IslandSet& set, Seq seq);
  [[nodiscard]] std::uint32_t after(const IslandSet& set, Seq seq);
  [[nodiscard]] std::uint32_t first(const IslandSet& set);

 private:
  [[nodiscard]] std::uint32_t next_random();
  // What is before `key` becomes one tree, the rest another.
  void split(std::uint32_t tree, Seq key, std::uint32_t* less, std::uint32_t* rest);
  [[nodiscard]] std::uint32_t rightmost(std::uint32_t tree);

  Slab<Island> slab_;
  std::uint64_t random_;
};

}  // namespace mtcp::stack

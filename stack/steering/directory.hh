// Where the flows are that their home (the stack that the table names) does not know: they were opened, accepted or taken
// over by another stack, or the table has moved since. A table of words in shared memory, by a keyed hash of the flow; each
// changes by compare-and-swap, so that a process may die at any instruction and nothing is left half done.
//
// A word holds 39 bits of the hash and no key: that two flows look the same, once in some 10^10 look-ups, costs a forward or
// a port that is not used. Words of a slot that has been given up do not count and are used again.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "stack/base/siphash.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class Directory {
 public:
  enum class State : std::uint8_t {
    none,
    owned,       // `slot` has it
    resting,     // `slot` has a TIME-WAIT of it, which gives way to a new connection
    in_transit,  // a message that describes it is on its way to `slot`
    waiting      // its description waits in the message ring of `slot` for whoever has the listener next
  };
  struct Entry {
    State state = State::none;
    std::uint8_t slot = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };

  // Bytes of shared memory, zero at first, for `words` words (a power of two): for seven tenths as many flows.
  [[nodiscard]] static std::size_t memory(std::uint32_t words);
  Directory(std::byte* memory, std::uint32_t words, SipKey key) : memory_(memory), words_(words), key_(key) {}

  [[nodiscard]] std::uint64_t hash(const FlowKey& key, std::uint16_t vlan = 0) const;
  // What is said of the flow, if the slot that it names is still the same stack's.
  [[nodiscard]] Entry find(std::uint64_t hash) const;
  // `entry` (owned or resting) says it from now on. False if another one has it, or without room. `over_rest`: another's resting
  // is none in the way.
  [[nodiscard]] bool claim(std::uint64_t hash, const Entry& entry, bool over_rest = false);
  // Whatever was said before. For who has it, or has got its description. False without room.
  bool set(std::uint64_t hash, const Entry& entry);
  // Nothing is said of it any more, if it was `entry`.
  void erase(std::uint64_t hash, const Entry& entry);
  // The same for what `slot` has said of itself: that it is owned there or rests there.
  void withdraw(std::uint64_t hash, std::uint8_t slot);
  // What has been said with `slot` does not count any more. For whoever may change the members.
  void begin_generation(std::uint8_t slot) {
    generations()[slot].fetch_add(1, std::memory_order_acq_rel);
  }

 private:
  using Word = std::atomic<std::uint64_t>;
  static_assert(Word::is_always_lock_free);
  static constexpr std::uint32_t kWays = 8;    // words of a cache line
  static constexpr std::uint32_t kSlots = 64;  // kMaxStacks
  using Generations = std::array<std::atomic<std::uint16_t>, kSlots>;
  using Line = std::array<Word, kWays>;

  [[nodiscard]] Generations& generations() const { return *reinterpret_cast<Generations*>(memory_); }
  [[nodiscard]] std::array<Line*, 2> lines(std::uint64_t hash) const;
  [[nodiscard]] std::uint64_t word_of(std::uint64_t hash, const Entry& entry) const;
  [[nodiscard]] bool counts(std::uint64_t word) const;
  template <typename Match>
  [[nodiscard]] Word* search(std::uint64_t hash, Match&& match) const;
  [[nodiscard]] Word* word_for(std::uint64_t hash, std::uint64_t& word) const;
  Word* insert(std::uint64_t hash, std::uint64_t word);
  template <typename Match>
  void erase_if(std::uint64_t hash, Match&& match);

  std::byte* memory_;
  std::uint32_t words_;
  SipKey key_;
};

}  // namespace mtcp::stack

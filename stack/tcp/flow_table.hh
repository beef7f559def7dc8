// Which connection, half-open connection or TIME-WAIT a 4-tuple belongs to: one open-addressing table of
// 8-byte slots. The table knows hashes and references only; the caller compares keys. It grows a few slots
// per insertion, so no insertion takes long, and never shrinks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "stack/base/siphash.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

// What a slot points to: a kind and an index into that kind's slab, in 32 bits. All zero: nothing.
class FlowRef {
 public:
  enum class Kind : std::uint8_t { none, connection, syn_entry, time_wait };
  static constexpr std::uint32_t kMaxIndex = (1U << 30) - 1;

  constexpr FlowRef() = default;
  constexpr FlowRef(Kind kind, std::uint32_t index)
      : value_(static_cast<std::uint32_t>(kind) << 30 | index) {}
  [[nodiscard]] constexpr Kind kind() const { return static_cast<Kind>(value_ >> 30); }
  [[nodiscard]] constexpr std::uint32_t index() const { return value_ & kMaxIndex; }
  constexpr explicit operator bool() const { return value_ != 0; }
  friend constexpr bool operator==(FlowRef, FlowRef) = default;

 private:
  std::uint32_t value_ = 0;
};

class FlowTable {
 public:
  // `expected` flows fit without growing. The key must be secret: peers choose what is hashed.
  explicit FlowTable(SipKey key, std::size_t expected = 4096);
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  [[nodiscard]] std::uint32_t hash(const FlowKey& key) const;
  // Fetches the slot that find(hash) will look at first.
  void prefetch(std::uint32_t hash) const { __builtin_prefetch(&table_.slots[hash & table_.mask]); }
  // The first reference in the hash's probe sequence, likely the flow's own: for prefetching what it points
  // to.
  [[nodiscard]] FlowRef guess(std::uint32_t hash) const {
    const Slot& slot = table_.slots[hash & table_.mask];
    return slot.hash == hash ? slot.ref : FlowRef();
  }

  // The flow with this hash for which equal(FlowRef) holds.
  template <typename Equal>
  [[nodiscard]] FlowRef find(std::uint32_t hash, Equal&& equal) const {
    if (const FlowRef found = find_in(table_, hash, equal); found || old_.used == 0) return found;
    return find_in(old_, hash, equal);
  }
  // The flow must not be in the table. False without memory.
  [[nodiscard]] bool insert(std::uint32_t hash, FlowRef ref);
  // The reference must be in the table under this hash.
  void erase(std::uint32_t hash, FlowRef ref);
  // Puts another reference for the same flow in its place.
  void replace(std::uint32_t hash, FlowRef from, FlowRef to);
  [[nodiscard]] std::size_t size() const { return table_.used + old_.used; }

 private:
  struct Slot {
    std::uint32_t hash;
    FlowRef ref;
  };
  struct Free {
    void operator()(Slot* p) const { std::free(p); }
  };
  struct Table {
    std::unique_ptr<Slot[], Free> slots;
    std::uint32_t mask = 0;
    std::size_t used = 0;
  };

  template <typename Equal>
  static FlowRef find_in(const Table& t, std::uint32_t hash, Equal& equal) {
    for (std::uint32_t i = hash & t.mask;; i = (i + 1) & t.mask) {
      const Slot& slot = t.slots[i];
      if (!slot.ref) return {};
      if (slot.hash == hash && equal(slot.ref)) return slot.ref;
    }
  }
  static bool allocate(Table& t, std::size_t slots);
  static void put(Table& t, Slot slot);
  static Slot* slot_of(Table& t, std::uint32_t hash, FlowRef ref);
  static void remove(Table& t, std::uint32_t at);
  void migrate(std::size_t slots);
  bool grow();

  Table table_;
  Table old_;                 // while growing: what has not been moved yet
  std::uint32_t cursor_ = 0;  // slots of old_ before this one are empty
  SipKey key_;
};

}  // namespace mtcp::stack

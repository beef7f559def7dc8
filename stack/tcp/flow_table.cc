#include "stack/tcp/flow_table.hh"

#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

namespace mtcp::stack {

namespace {
constexpr std::size_t kMinSlots = 1024;
// Slots of the old table looked at per insertion. The old table is half full and half the size of the new
// one, so that it is empty long before the new one is half full.
constexpr std::size_t kMigrateStep = 16;
}  // namespace

FlowTable::FlowTable(SipKey key, std::size_t expected) : key_(key) {
  std::size_t slots = std::bit_ceil(expected * 2);
  if (slots < kMinSlots) slots = kMinSlots;
  const bool allocated = allocate(table_, slots);
  if (!allocated) std::abort();  // a worker without a table can't exist; it is made at start
}

std::uint32_t FlowTable::hash(const FlowKey& key) const {
  std::uint32_t ports;
  std::memcpy(&ports, &key.local_port, sizeof ports);
  if (key.local.is_v4() && key.remote.is_v4()) {  // the common case needs fewer rounds: a message of 12 bytes
    std::uint32_t local, remote;
    std::memcpy(&local, key.local.bytes.data() + 12, 4);
    std::memcpy(&remote, key.remote.bytes.data() + 12, 4);
    SipState<1, 3> state(key_);
    state.word(std::uint64_t{local} << 32 | remote);
    return static_cast<std::uint32_t>(state.finish(std::uint64_t{12} << 56 | ports));
  }
  std::uint64_t w[4];
  std::memcpy(w, &key, sizeof w);
  return static_cast<std::uint32_t>(siphash_words<1, 3>(key_, w[0], w[1], w[2], w[3], std::uint64_t{ports}));
}

bool FlowTable::allocate(Table& t, std::size_t slots) {
  auto* memory = static_cast<Slot*>(std::calloc(slots, sizeof(Slot)));  // fresh zero pages: no stall
  if (memory == nullptr) return false;
  t.slots.reset(memory);
  t.mask = static_cast<std::uint32_t>(slots - 1);
  t.used = 0;
  return true;
}

void FlowTable::put(Table& t, Slot slot) {
  std::uint32_t i = slot.hash & t.mask;
  while (t.slots[i].ref) i = (i + 1) & t.mask;
  t.slots[i] = slot;
  ++t.used;
}

FlowTable::Slot* FlowTable::slot_of(Table& t, std::uint32_t hash, FlowRef ref) {
  for (std::uint32_t i = hash & t.mask;; i = (i + 1) & t.mask) {
    if (!t.slots[i].ref) return nullptr;
    if (t.slots[i].ref == ref) return &t.slots[i];
  }
}

// Closes the gap by moving back what may move (Knuth 6.4 R), so that there are no tombstones.
void FlowTable::remove(Table& t, std::uint32_t at) {
  std::uint32_t hole = at;
  for (std::uint32_t i = (at + 1) & t.mask; t.slots[i].ref; i = (i + 1) & t.mask) {
    const std::uint32_t home = t.slots[i].hash & t.mask;
    if (((i - home) & t.mask) < ((i - hole) & t.mask)) continue;  // its home lies behind the hole
    t.slots[hole] = t.slots[i];
    hole = i;
  }
  t.slots[hole] = Slot{};
  --t.used;
}

void FlowTable::migrate(std::size_t slots) {
  for (; slots > 0 && old_.used > 0; --slots) {
    const std::uint32_t at = cursor_ & old_.mask;
    if (!old_.slots[at].ref) {
      ++cursor_;
      continue;
    }
    put(table_, old_.slots[at]);
    remove(old_, at);
  }
  if (old_.used == 0) old_.slots.reset();
}

bool FlowTable::grow() {
  if (old_.used > 0) migrate(SIZE_MAX);  // can't happen with the step above, but must not be wrong
  Table bigger;
  const std::size_t slots = (std::size_t{table_.mask} + 1) * 2;
  if (slots > std::size_t{1} << 31 || !allocate(bigger, slots)) return false;
  old_ = std::move(table_);
  table_ = std::move(bigger);
  cursor_ = 0;
  return true;
}

bool FlowTable::insert(std::uint32_t hash, FlowRef ref) {
  assert(ref);
  if (old_.used > 0) migrate(kMigrateStep);
  const std::size_t slots = std::size_t{table_.mask} + 1;
  // Half full is where linear probing is still short. Without memory it may fill up more, but never quite.
  if (size() * 2 >= slots && !grow() && size() * 16 >= slots * 15) return false;
  put(table_, Slot{hash, ref});
  return true;
}

void FlowTable::erase(std::uint32_t hash, FlowRef ref) {
  Table* t = &table_;
  Slot* slot = slot_of(*t, hash, ref);
  if (slot == nullptr && old_.used > 0) {
    t = &old_;
    slot = slot_of(*t, hash, ref);
  }
  assert(slot != nullptr);
  if (slot == nullptr) return;
  remove(*t, static_cast<std::uint32_t>(slot - t->slots.get()));
  if (t == &old_ && old_.used == 0) old_.slots.reset();
}

void FlowTable::replace(std::uint32_t hash, FlowRef from, FlowRef to) {
  Slot* slot = slot_of(table_, hash, from);
  if (slot == nullptr && old_.used > 0) slot = slot_of(old_, hash, from);
  assert(slot != nullptr);
  if (slot != nullptr) slot->ref = to;
}

}  // namespace mtcp::stack

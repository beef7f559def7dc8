#include "stack/steering/directory.hh"

#include <cstring>

namespace mtcp::stack {
namespace {

// A word: tag | generation of the slot | slot | state.
constexpr unsigned kStateBits = 3, kSlotBits = 6, kGenerationBits = 16;
constexpr unsigned kTagAt = kStateBits + kSlotBits + kGenerationBits;
constexpr int kTries = 8;

std::uint64_t tag_of(std::uint64_t word) { return word >> kTagAt; }
Directory::Entry entry_of(std::uint64_t word) {
  return {static_cast<Directory::State>(word & 7), static_cast<std::uint8_t>(word >> kStateBits & 63)};
}
std::uint16_t generation_of(std::uint64_t word) { return static_cast<std::uint16_t>(word >> (kStateBits + kSlotBits)); }

}  // namespace

std::size_t Directory::memory(std::uint32_t words) {
  return sizeof(Generations) + std::size_t{words} * sizeof(Word);
}

std::uint64_t Directory::hash(const FlowKey& key, std::uint16_t vlan) const {
  std::uint64_t w[5] = {};
  static_assert(sizeof key <= sizeof w - sizeof vlan);
  std::memcpy(w, &key, sizeof key);
  return siphash_words<1, 3>(key_, w[0], w[1], w[2], w[3], w[4] << 16 | vlan);
}

// Two, so that both are full only when nearly all are.
std::array<Directory::Line*, 2> Directory::lines(std::uint64_t hash) const {
  auto* all = reinterpret_cast<Line*>(memory_ + sizeof(Generations));
  const std::uint32_t mask = words_ / kWays - 1;
  const auto first = static_cast<std::uint32_t>(hash) & mask;
  const auto second = static_cast<std::uint32_t>(hash >> (64 - kTagAt)) & mask;
  return {all + first, all + second};
}

std::uint64_t Directory::word_of(std::uint64_t hash, const Entry& entry) const {
  const std::uint64_t generation = generations()[entry.slot % kSlots].load(std::memory_order_acquire);
  return hash >> kTagAt << kTagAt | generation << (kStateBits + kSlotBits) | std::uint64_t{entry.slot} % kSlots << kStateBits |
         static_cast<std::uint64_t>(entry.state);
}

// What waits does so whoever has the slot by now.
bool Directory::counts(std::uint64_t word) const {
  const Entry e = entry_of(word);
  if (e.state == State::none || e.state == State::waiting) return e.state == State::waiting;
  return generation_of(word) == generations()[e.slot].load(std::memory_order_acquire);
}

template <typename Match>
Directory::Word* Directory::search(std::uint64_t hash, Match&& match) const {
  const auto both = lines(hash);
  __builtin_prefetch(both[1]);
  for (Line* line : both)
    for (Word& w : *line)
      if (match(w)) return &w;
  return nullptr;
}

// `word`: what it held when it was judged.
Directory::Word* Directory::word_for(std::uint64_t hash, std::uint64_t& word) const {
  return search(hash, [&](const Word& w) {
    word = w.load(std::memory_order_acquire);
    return word != 0 && tag_of(word) == tag_of(hash) && counts(word);
  });
}

Directory::Entry Directory::find(std::uint64_t hash) const {
  std::uint64_t word = 0;
  return word_for(hash, word) != nullptr ? entry_of(word) : Entry{};
}

// Into a word that is free, or does not count any more.
Directory::Word* Directory::insert(std::uint64_t hash, std::uint64_t word) {
  for (int i = 0; i < kTries; ++i) {
    std::uint64_t was = 0;
    Word* at = search(hash, [&](const Word& w) {
      was = w.load(std::memory_order_acquire);
      return !counts(was);
    });
    if (at == nullptr) return nullptr;
    if (at->compare_exchange_strong(was, word)) return at;
  }
  return nullptr;
}

bool Directory::claim(std::uint64_t hash, const Entry& entry, bool over_rest) {
  std::uint64_t word = word_of(hash, entry), was = 0;
  if (Word* at = word_for(hash, was); at != nullptr) {
    if (entry_of(was) == entry) return true;
    return over_rest && entry_of(was).state == State::resting && at->compare_exchange_strong(was, word);
  }
  Word* at = insert(hash, word);
  if (at == nullptr) return false;
  // Another one may have done the same at the same time: then neither has it.
  std::uint64_t there = 0;
  Word* other = search(hash, [&](const Word& w) {
    there = w.load();
    return &w != at && tag_of(there) == tag_of(hash) && counts(there);
  });
  if (other == nullptr) return true;
  if (over_rest && entry_of(there).state == State::resting && other->compare_exchange_strong(there, 0)) return true;
  at->compare_exchange_strong(word, 0);
  return false;
}

bool Directory::set(std::uint64_t hash, const Entry& entry) {
  const std::uint64_t word = word_of(hash, entry);
  for (int i = 0; i < kTries; ++i) {
    std::uint64_t was = 0;
    Word* at = word_for(hash, was);
    if (at == nullptr) return insert(hash, word) != nullptr;
    if (at->compare_exchange_strong(was, word)) return true;
  }
  return false;
}

// Two words may look the same, if only for a moment: the one that says this.
template <typename Match>
void Directory::erase_if(std::uint64_t hash, Match&& match) {
  std::uint64_t was = 0;
  Word* at = search(hash, [&](const Word& w) {
    was = w.load(std::memory_order_acquire);
    return was != 0 && tag_of(was) == tag_of(hash) && match(entry_of(was)) && counts(was);
  });
  if (at != nullptr) at->compare_exchange_strong(was, 0);
}

void Directory::erase(std::uint64_t hash, const Entry& entry) {
  erase_if(hash, [&entry](const Entry& e) { return e == entry; });
}

void Directory::withdraw(std::uint64_t hash, std::uint8_t slot) {
  erase_if(hash, [slot](const Entry& e) { return e.slot == slot && (e.state == State::owned || e.state == State::resting); });
}

}  // namespace mtcp::stack

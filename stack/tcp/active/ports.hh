// Local ports for active opens (RFC 6056): double-hash port selection over maps of what is free, so that a
// choice costs about the same whether few or nearly all ports are in use.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "stack/base/siphash.hh"

namespace mtcp::stack {

// How far the ports towards each destination have been used, by several stacks at the same time or one after the other:
// each takes a block of them for itself, so that nobody uses what another has just used. Any values are good.
struct PortCounters {
  std::array<std::atomic<std::uint32_t>, 1024> next{};
};

class Ports {
 public:
  // Ports first .. last, host order. `shared`: goes on where others with the same key and counters are; else `start`
  // decides with the key where the counters begin, so that two stacks that have the same key seldom want the same ports.
  Ports(std::uint16_t first, std::uint16_t last, SipKey key, std::uint64_t start = 0, PortCounters* shared = nullptr);

  // A connection (or listener) uses the port; `release` takes one such use back. Ports outside the range are
  // ignored.
  void hold(std::uint16_t port);
  void release(std::uint16_t port);
  // A use turns into one by a TIME-WAIT, and that one ends.
  void enter_time_wait(std::uint16_t port);
  void leave_time_wait(std::uint16_t port);

  // The first port from a secret, per-destination place on for which usable(port) holds, or 0. Asks for ports
  // that nobody uses first, then for those with nothing but TIME-WAITs, then for those in use towards other
  // destinations. Where most of a kind are not usable (they are another stack's) it tries the next kind before it
  // has asked for all of them.
  template <typename Usable>
  [[nodiscard]] std::uint16_t choose(std::uint64_t destination, Usable&& usable) {
    // Both of RFC 6056's hashes: halves of one that is long enough.
    const std::uint64_t hash = siphash_words<2, 4>(key_, destination);
    const std::size_t index = static_cast<std::uint32_t>(hash) % kCounters;
    Counter& counter = counters_[index];
    if (counter.left <= 0) take_block(counter, index);
    const auto offset = static_cast<std::uint32_t>(hash >> 32);
    const std::uint32_t start = (offset + counter.next) % count_;
    if (free_count_ > 0) {
      if (const auto port = search(free_, start, few_, counter, usable); port != 0) {
        few_ = few_ < kFew ? few_ * 2 : kFew;
        return port;
      }
      few_ = few_ > kFewest ? few_ / 2 : kFewest;  // those that are free are others' now, mostly
    }
    if (const auto port = search(idle_, start, kFew, counter, usable); port != 0) return port;
    if (free_count_ > 0)
      if (const auto port = search(free_, start, count_, counter, usable); port != 0) return port;
    if (const auto port = search(idle_, start, count_, counter, usable); port != 0) return port;
    return search(all_, start, count_, counter, usable);
  }
  // Ports that nothing uses.
  [[nodiscard]] std::uint32_t free_ports() const { return free_count_; }

 private:
  using Bitmap = std::vector<std::uint64_t>;
  struct Counter {
    std::uint32_t next = 0;
    std::int32_t left = 0;  // of the block; negative: what was walked over behind it
  };
  static constexpr std::size_t kCounters = std::tuple_size_v<decltype(PortCounters::next)>;
  static constexpr std::int32_t kBlock = 64;
  static constexpr std::uint32_t kFew = 512;  // of 64 stacks with equal shares, all but 1 in 3000 find one
  static constexpr std::uint32_t kFewest = 16;

  // Asks about `most` ports of the map.
  template <typename Usable>
  std::uint16_t search(const Bitmap& map, std::uint32_t start, std::uint32_t most, Counter& counter,
                       Usable& usable) {
    for (std::uint32_t walked = 0, asked = 0; walked < count_ && asked < most;) {
      std::uint32_t at = start + walked;
      if (at >= count_) at -= count_;
      const std::uint64_t bits = map[at / 64] >> (at % 64);
      if (bits == 0) {  // to the next word, or round the end
        const std::uint32_t word_end = at / 64 * 64 + 64;
        walked += (word_end < count_ ? word_end : count_) - at;
        continue;
      }
      const auto skip = static_cast<std::uint32_t>(__builtin_ctzll(bits));
      walked += skip;
      if (walked >= count_) break;
      const auto port = static_cast<std::uint16_t>(first_ + at + skip);
      if (usable(port)) {
        counter.next += walked + 1;
        counter.left -= static_cast<std::int32_t>(walked + 1);
        return port;
      }
      ++walked;
      ++asked;
    }
    return 0;
  }
  [[nodiscard]] bool in_range(std::uint16_t port) const {
    return static_cast<std::uint32_t>(port - first_) < count_;
  }
  void update(std::uint32_t at);
  void take_block(Counter& counter, std::size_t index);

  SipKey key_;
  std::uint32_t first_, count_;
  std::uint32_t free_count_;
  std::uint32_t few_ = kFew;  // how many free ports are asked for at first, as it went lately
  std::vector<std::uint32_t> live_, in_time_wait_;  // uses per port
  Bitmap free_, idle_, all_;                  // no use at all; no live use; every port
  std::vector<Counter> counters_;
  std::unique_ptr<PortCounters> own_;  // where nothing is shared
  PortCounters* shared_;
};

}  // namespace mtcp::stack

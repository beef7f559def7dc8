// A histogram of durations with about 1 % resolution from 1 ns to hours, in fixed memory.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace mtcp::perf {

class LatencyHistogram {
 public:
  void add(std::uint64_t nanoseconds) {
    counts_[index_of(nanoseconds)]++;
    total_++;
  }

  [[nodiscard]] std::uint64_t total() const { return total_; }

  // Nanoseconds below which `fraction` (0 to 1) of the values lie; the lower edge of the bucket. 0 if there
  // is none.
  [[nodiscard]] std::uint64_t percentile(double fraction) const {
    const auto wanted = static_cast<std::uint64_t>(static_cast<double>(total_) * fraction);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); i++) {
      seen += counts_[i];
      if (seen > wanted || (seen == total_ && seen > 0)) return lower_edge(i);
    }
    return 0;
  }

 private:
  static constexpr unsigned kBits = 6;  // 64 buckets for each power of two
  static constexpr std::uint64_t kPerOctave = 1U << kBits;

  static std::size_t index_of(std::uint64_t value) {
    if (value < kPerOctave) return static_cast<std::size_t>(value);
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
    const std::size_t index =
        (shift + 1) * kPerOctave + static_cast<std::size_t>((value >> shift) - kPerOctave);
    return index < kBuckets ? index : kBuckets - 1;
  }
  static std::uint64_t lower_edge(std::size_t index) {
    if (index < kPerOctave) return index;
    const auto shift = static_cast<unsigned>(index / kPerOctave - 1);
    return (kPerOctave + index % kPerOctave) << shift;
  }

  static constexpr std::size_t kBuckets = 40 * kPerOctave;
  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t total_ = 0;
};

}  // namespace mtcp::perf

// The arithmetic of the clock: a straight line through the TSC, drawn anew from pairs of the TSC and the kernel's
// CLOCK_MONOTONIC. Processes of one machine must agree to well below a millisecond for as long as they run, because a
// peer compares timestamps (RFC 7323) of one with those of the next.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mtcp::intercept {

// The TSC and the kernel's clock at one moment.
struct ClockPair {
  std::uint64_t tsc = 0;
  std::int64_t ns = 0;
};

// ns = origin.ns + ((tsc - origin.tsc) * scale >> 32), for `life` cycles at most.
struct ClockLine {
  __extension__ using U128 = unsigned __int128;
  static constexpr std::int64_t kInterval = 50'000'000;  // ns; the kernel's clock may run 0.05 % off meanwhile

  ClockPair origin;
  std::uint64_t scale = 0;
  std::uint64_t life = 0;
  ClockPair measured;         // the last pair that the line was corrected with
  std::uint64_t nominal = 0;  // scale of the first line

  [[nodiscard]] static std::int64_t ns_of(std::uint64_t cycles, std::uint64_t scale) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(static_cast<U128>(cycles) * scale >> 32));
  }

  // From two pairs, some milliseconds apart. Scale 0: they make no sense.
  [[nodiscard]] static ClockLine first(const ClockPair& a, const ClockPair& b) {
    ClockLine line;
    if (b.tsc <= a.tsc || b.ns <= a.ns) return line;
    line.scale = line.nominal = rate(a, b);
    line.origin = line.measured = b;
    if (line.scale != 0) line.life = cycles_of(kInterval, line.scale);
    return line;
  }

  // The line that follows this one. It begins where this one ends or later, never before, so that time does not go back;
  // where this one was ahead of the kernel's clock, it is flatter until the two meet.
  [[nodiscard]] ClockLine next(const ClockPair& now) const {
    ClockLine line = *this;
    line.measured = now;
    const bool forward = now.tsc > measured.tsc && now.ns > measured.ns;
    // A rate that no clock has comes from a machine that was suspended or moved in between.
    const std::uint64_t tolerance = nominal / 512;
    const std::uint64_t seen = forward ? rate(measured, now) : nominal;
    line.scale = std::clamp(seen, nominal - tolerance, nominal + tolerance);
    line.life = cycles_of(kInterval, line.scale);
    const std::uint64_t cycles = now.tsc > origin.tsc ? now.tsc - origin.tsc : 0;
    const std::int64_t shown = origin.ns + ns_of(std::min(cycles, life), scale);  // nobody has seen a later time
    line.origin = {now.tsc, std::max(now.ns, shown)};
    const std::int64_t ahead = std::clamp<std::int64_t>(shown - now.ns, 0, kInterval / 2);
    line.scale -= static_cast<std::uint64_t>(static_cast<U128>(line.scale) * static_cast<std::uint64_t>(ahead) /
                                             static_cast<std::uint64_t>(kInterval));
    return line;
  }

 private:
  [[nodiscard]] static std::uint64_t rate(const ClockPair& a, const ClockPair& b) {
    return static_cast<std::uint64_t>((static_cast<U128>(b.ns - a.ns) << 32) / (b.tsc - a.tsc));
  }
  [[nodiscard]] static std::uint64_t cycles_of(std::int64_t ns, std::uint64_t scale) {
    return static_cast<std::uint64_t>((static_cast<U128>(static_cast<std::uint64_t>(ns)) << 32) / scale);
  }
};

}  // namespace mtcp::intercept

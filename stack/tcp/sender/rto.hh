// RFC 6298: the retransmission timeout; RFC 8985: the tail loss probe's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/options.hh"
#include "stack/tcp/connection.hh"

namespace mtcp::stack {

// Section 2.1: before there is a sample.
inline constexpr Duration kInitialRto = seconds(1);

// Sections 2.2 to 2.4, with a clock finer than any timer. As Linux in three things: rto_min bounds the variance term and
// not the sum, so that a long path keeps a margin above its RTT; the variance rises at once and falls once a round trip,
// since many samples of one window say the same; and a round trip that has become shorter counts for little of it.
[[gnu::always_inline]] inline void update_rto(Connection& c, Duration sample, const TcpTuning& tuning) {
  auto& tx = c.tx;
  sample = std::max(sample, Duration(1));
  if (tx.srtt == Duration::zero()) {
    tx.srtt = sample;
    tx.deviation = sample / 2;
    tx.rttvar = tx.max_deviation = std::max(4 * tx.deviation, tuning.rto_min) / 4;
    tx.rtt_round_end = c.hot.snd_nxt;
  } else {
    // By shifts, as there is no unsigned Duration: a division by a power of two costs three times as much where the sign is
    // not known.
    const std::int64_t difference = (sample - tx.srtt).count();
    std::int64_t step = std::max(difference, -difference) - tx.deviation.count();
    if (difference < 0 && step > 0) step >>= 3;
    tx.deviation += Duration(step >> 2);
    tx.srtt += Duration(difference >> 3);
    if (tx.deviation > tx.max_deviation) {
      tx.max_deviation = tx.deviation;
      tx.rttvar = std::max(tx.rttvar, tx.max_deviation);
    }
    if (after(c.hot.snd_una, tx.rtt_round_end)) {
      if (tx.max_deviation < tx.rttvar) tx.rttvar -= Duration((tx.rttvar - tx.max_deviation).count() >> 2);
      tx.rtt_round_end = c.hot.snd_nxt;
      tx.max_deviation = tuning.rto_min / 4;
    }
  }
  tx.rto = std::min(tx.srtt + std::max(4 * tx.rttvar, tuning.rto_min), tuning.rto_max);
}

// Section 5.5: doubled for each time that it ran out.
[[nodiscard]] inline Duration backed_off(Duration rto, unsigned doublings, const TcpTuning& tuning) {
  if (rto == Duration::zero()) [[unlikely]] rto = kInitialRto;
  for (; doublings > 0 && rto < tuning.rto_max; --doublings) [[unlikely]] rto *= 2;
  return std::min(rto, tuning.rto_max);
}

// RFC 8985 section 7.2: when a tail loss probe is due. As Linux, the allowance for a delayed ACK is rto_min.
[[nodiscard]] inline Duration probe_timeout(const Connection& c, const TcpTuning& tuning) {
  constexpr Duration kMargin = milliseconds(2);
  if (c.tx.srtt == Duration::zero()) return kInitialRto;
  const bool alone = c.hot.snd_nxt - c.hot.snd_una <= c.hot.mss;
  return 2 * c.tx.srtt + (alone ? tuning.rto_min : kMargin);
}

}  // namespace mtcp::stack

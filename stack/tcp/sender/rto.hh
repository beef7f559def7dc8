// RFC 6298: the retransmission timeout.
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
inline void update_rto(Connection& c, Duration sample, const TcpTuning& tuning) {
  auto& tx = c.tx;
  sample = std::max(sample, Duration(1));
  if (tx.srtt == Duration::zero()) {
    tx.srtt = sample;
    tx.deviation = sample / 2;
    tx.rttvar = tx.max_deviation = std::max(4 * tx.deviation, tuning.rto_min) / 4;
    tx.rtt_round_end = c.hot.snd_nxt;
  } else {
    const Duration difference = sample - tx.srtt;
    const Duration error = std::max(difference, -difference);
    Duration step = error - tx.deviation;
    if (difference < Duration::zero() && step > Duration::zero()) step /= 8;
    tx.deviation += step / 4;
    tx.srtt += difference / 8;
    if (tx.deviation > tx.max_deviation) {
      tx.max_deviation = tx.deviation;
      tx.rttvar = std::max(tx.rttvar, tx.max_deviation);
    }
    if (after(c.hot.snd_una, tx.rtt_round_end)) {
      if (tx.max_deviation < tx.rttvar) tx.rttvar -= (tx.rttvar - tx.max_deviation) / 4;
      tx.rtt_round_end = c.hot.snd_nxt;
      tx.max_deviation = tuning.rto_min / 4;
    }
  }
  tx.rto = std::min(tx.srtt + std::max(4 * tx.rttvar, tuning.rto_min), tuning.rto_max);
}

// Section 5.5: doubled for each time that it ran out.
[[nodiscard]] inline Duration backed_off(Duration rto, unsigned doublings, const TcpTuning& tuning) {
  if (rto == Duration::zero()) rto = kInitialRto;
  for (; doublings > 0 && rto < tuning.rto_max; --doublings) rto *= 2;
  return std::min(rto, tuning.rto_max);
}

}  // namespace mtcp::stack

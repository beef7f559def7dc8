// RFC 6298: the retransmission timeout.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/options.hh"
#include "stack/tcp/connection.hh"

namespace mtcp::stack {

// Section 2.1: before there is a sample.
inline constexpr Duration kInitialRto = seconds(1);

// Sections 2.2 to 2.4, with a clock finer than any timer. Like Linux, rto_min bounds the variance term and
// not the sum, so that a long path keeps a margin above its RTT.
inline void update_rto(Connection::Tx& tx, Duration sample, const TcpTuning& tuning) {
  sample = std::max(sample, Duration(1));
  if (tx.srtt == Duration::zero()) {
    tx.srtt = sample;
    tx.rttvar = sample / 2;
  } else {
    const Duration error = sample > tx.srtt ? sample - tx.srtt : tx.srtt - sample;
    tx.rttvar += (error - tx.rttvar) / 4;
    tx.srtt += (sample - tx.srtt) / 8;
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

// What few connections need: made when the first of it is, so that all others are smaller.
#pragma once

#include <cstdint>

namespace mtcp::stack {

struct ConnectionExtras {
  std::uint64_t bytes_resent = 0;
  std::uint32_t marked_received = 0;   // data segments that came with CE (RFC 3168)
  std::uint32_t marked_delivered = 0;  // segments of ours that the peer has acknowledged with ECE
  std::uint32_t duplicates_reported = 0;  // D-SACK blocks of the peer
  std::uint32_t reorderings = 0;          // times that something came later than what was sent after it
};

}  // namespace mtcp::stack

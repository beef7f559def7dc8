// What DCTCP keeps of a connection, in Connection::congestion, behind what all windows have.
#pragma once

#include <cstdint>

#include "stack/base/seq.hh"

namespace mtcp::stack {

struct DctcpInfo {
  bool enabled = false;             // ECN is in use; without, it is Reno
  bool marked = false;              // the peer's last data came with CE
  std::uint32_t alpha = 0;          // of 1024: how much of what we send is marked
  std::uint32_t acked_marked = 0, acked = 0;  // bytes, of this round trip
};

struct Connection;
[[nodiscard]] DctcpInfo dctcp_info(const Connection& c);

}  // namespace mtcp::stack

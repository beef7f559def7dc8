// TIME-WAIT (RFC 9293 3.6.1): all that is left of a connection for 2 MSL, in one cache line.
#pragma once

#include <cstdint>

#include "stack/base/seq.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

struct alignas(64) TimeWaitEntry {
  FlowKey key;
  Seq snd_nxt, rcv_nxt;
  std::uint32_t ts_recent = 0;       // RFC 7323; meaningful with timestamps
  std::uint32_t entered_ms = 0;      // stack clock, wraps
  std::uint32_t next = 0, prev = 0;  // in the order of entering; indices
  std::uint16_t window = 0;          // as on the wire
  std::uint8_t last_answer = 0;      // quarters of a second of the stack clock, wraps; with `answered`
  bool answered : 1 = false;         // something that does not belong here, lately
  bool timestamps : 1 = false;
  bool holds_port : 1 = false;  // an active open: the local port counts as used
  bool published : 1 = false;   // Steering::publish
};
static_assert(sizeof(TimeWaitEntry) == 64);

}  // namespace mtcp::stack

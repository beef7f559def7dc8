// Why an operation of the stack failed. The stack knows no errno: intercept translates at its edge.
#pragma once

#include <cstdint>

namespace mtcp::stack {

enum class Errc : std::uint8_t {
  ok = 0,
  would_block,         // nothing to read, no room to write, nothing to accept
  in_progress,         // a connect is under way
  already_connected,   //
  not_connected,       //
  address_in_use,      //
  address_unavailable, // not ours, or no free port
  connection_refused,  // RST in answer to SYN
  connection_reset,    // RST on an established connection
  connection_aborted,  //
  timed_out,           // retransmissions, keep-alives or user timeout exhausted
  host_unreachable,    // ARP or ICMP said so
  network_unreachable, // no route, or ICMP said so
  protocol_unreachable,// ICMP protocol unreachable
  broken_pipe,         // our side has been shut down for writing
  no_buffers,          // a pool is empty
  invalid,             // the call does not make sense in this state
  message_size,        // larger than the path allows
  protocol_error,      // ICMP parameter problem
  not_supported,       // ICMP source route failed
  shut_down,           // the stack or its device is gone
};

// A short English name for logs and statistics; never null.
[[nodiscard]] const char* name(Errc e);

}  // namespace mtcp::stack

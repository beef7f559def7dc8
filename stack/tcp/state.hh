// RFC 9293 section 3.3.2. LISTEN is a Listener, SYN-RECEIVED of a passive open a SynEntry, TIME-WAIT a TimeWaitEntry:
// a Connection is in one of the others (SYN-RECEIVED only after a simultaneous open).
#pragma once

#include <cstdint>

namespace mtcp::stack {

enum class State : std::uint8_t {
  closed, syn_sent, syn_received, established, fin_wait_1, fin_wait_2, close_wait, closing, last_ack, time_wait, listen,
};

// As `ss` prints it; never null.
[[nodiscard]] const char* name(State s);

// We may still receive payload.
[[nodiscard]] constexpr bool can_receive(State s) {
  return s == State::established || s == State::fin_wait_1 || s == State::fin_wait_2;
}
// The application may still send.
[[nodiscard]] constexpr bool can_send(State s) { return s == State::established || s == State::close_wait; }
[[nodiscard]] constexpr bool is_synchronized(State s) { return s >= State::established && s <= State::time_wait; }

}  // namespace mtcp::stack

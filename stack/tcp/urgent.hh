// Urgent data (RFC 9293 section 3.8.5, RFC 6093), as Linux has it: a pointer in the header tells where a byte is that the
// receiver may read apart from the others (MSG_OOB); the place itself is the mark. It is one byte: the one before that
// which the pointer points to, as everybody reads it (RFC 6093 section 3.1, Linux with tcp_stdurg = 0). The byte stays in
// the stream all the same, and reads leave it out. Few connections ever have any, so it is among the extras.
// Sending: sender/urgent.cc; receiving: receiver/urgent.cc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/tcp/connection.hh"

namespace mtcp::stack {

// There is an urgent byte that has not been acknowledged.
[[nodiscard]] inline bool in_urgent_mode(const Connection& c) {
  const Packet* first = c.tx.queue.front();
  return first != nullptr && (first->marks & kUrgent) != 0;
}

}  // namespace mtcp::stack

// A connection comes from another stack, of this process (dispatch.cc) or of the one that has relayed it so far (take_over.cc).
#pragma once

#include <cstddef>

#include "intercept/device/instance.hh"

namespace mtcp::intercept {

struct Socket;

// Runs `instance`, which expects it (Worker::expect), until it is there. Null: it was refused for want of memory, or has not come within
// `at_most`; then it is expected no longer, and its peer gets a reset if it comes yet.
[[nodiscard]] stack::Connection* await_arrival(Instance& instance, const stack::FlowKey& key, stack::Duration at_most = stack::seconds(1));

// `s` has it now, with the options of `s`. Null: it was lost between two stacks; `s` is dead of a reset, and the log says so.
void take_arrived(Socket& s, stack::Connection* c);

// Runs the stack until so many bytes of it can be read, which lie in a message ring behind it.
void await_bytes(Socket& s, std::size_t n);

}  // namespace mtcp::intercept

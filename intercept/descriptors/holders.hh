// Who else has a listener: the kernel knows, because behind each of ours a kernel socket listens at the same endpoint.
#pragma once

#include <sys/types.h>

#include <optional>

#include "intercept/kernel.hh"
#include "stack/wire/address.hh"

namespace mtcp::intercept {

// Whether a kernel socket listens there; whoever asks has closed his own. By sock_diag(7): needs no privilege and no file.
// False, too, where the kernel has none.
[[nodiscard]] bool listens_in_kernel(Kernel& kernel, const stack::Endpoint& local);
// Marks a socket that is going to listen for the stack on the wildcard address, as those are that are bound
// to an address of the stack's own: IP_FREEBIND, which means nothing any more once a socket is bound, and
// which sock_diag tells everybody. A program that asks for the option is told what it has set itself
// (sockopt_kept.hh).
void mark_listener(Kernel& kernel, int fd, bool v6);
// The same, and it is a program's of the stack: bound to this very address, or to the wildcard address and marked.
[[nodiscard]] bool is_listener_of_stack(Kernel& kernel, const stack::Endpoint& local);
// The user whose socket listens there.
[[nodiscard]] std::optional<uid_t> listening_user(Kernel& kernel, const stack::Endpoint& local);

}  // namespace mtcp::intercept

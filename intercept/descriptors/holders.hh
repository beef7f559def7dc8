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
// The same, and bound to this very address.
[[nodiscard]] bool is_bound_listener(Kernel& kernel, const stack::Endpoint& local);
// The user whose socket listens there.
[[nodiscard]] std::optional<uid_t> listening_user(Kernel& kernel, const stack::Endpoint& local);

}  // namespace mtcp::intercept

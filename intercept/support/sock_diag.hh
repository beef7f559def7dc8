// Questions about sockets of this network namespace to the kernel (sock_diag(7)): they need no privilege and no file.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "intercept/kernel.hh"

namespace mtcp::intercept {

// Sends `question`, a netlink message, and gives `take` what is in each answer, until that returns false or there is none left.
void ask_sock_diag(Kernel& kernel, std::span<const std::byte> question,
                   const std::function<bool(std::span<const std::byte> answer)>& take);

// The first attribute (rtattr) of this type among those of an answer; empty if there is none.
[[nodiscard]] std::span<const std::byte> attribute_of(std::span<const std::byte> attributes, unsigned type);

}  // namespace mtcp::intercept

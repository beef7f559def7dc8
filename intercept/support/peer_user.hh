// Whose the other end of a Unix socket is.
#pragma once

#include <optional>

#include "intercept/kernel.hh"

namespace mtcp::intercept {

// None if the kernel does not tell.
[[nodiscard]] inline std::optional<uid_t> user_of_peer(Kernel& kernel, int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (kernel.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
  return peer.uid;
}

}  // namespace mtcp::intercept

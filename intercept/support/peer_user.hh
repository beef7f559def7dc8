// Whose the other end of a Unix socket is, or the one that is bound to a name.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "intercept/kernel.hh"

namespace mtcp::intercept {

// None if the kernel does not tell.
[[nodiscard]] inline std::optional<uid_t> user_of_peer(Kernel& kernel, int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (kernel.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
  return peer.uid;
}

// Of an abstract name as in sun_path, its first zero included, among sockets of this type: without asking him (sock_diag(7); Linux 5.3), because he may not
// listen, or have no room for one more that asks. None: nobody has it, or the kernel does not tell.
[[nodiscard]] std::optional<uid_t> user_of_name(Kernel& kernel, int type, std::span<const std::byte> name);

}  // namespace mtcp::intercept

// The name of the Unix socket beside a listener (local_listener.hh). Written by the engine; the shim knows by it that a
// connection's end stands for a TCP connection.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace mtcp::intercept {

// As bind(2) takes it: an abstract name of this size.
struct LocalName {
  static constexpr char kTag[14] = "\0mtcp-local-1";
  sa_family_t family = AF_UNIX;
  char tag[sizeof kTag] = {};
  std::uint64_t which[2] = {};  // a keyed hash of the endpoint: nobody else can take the name before it is there

  [[nodiscard]] bool is_one(socklen_t size) const {
    return size == sizeof *this && family == AF_UNIX && std::memcmp(tag, kTag, sizeof kTag) == 0;
  }
};
static_assert(sizeof(LocalName) == 32);

}  // namespace mtcp::intercept

// The name of a relay's pump end, a Unix socket (unix(7)), which says whose connection it is: a program that has
// nothing but the other end, after exec, learns the addresses from it. Written by the engine, read by the shim.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace mtcp::intercept {

// As bind(2) takes it: an abstract name of this size.
struct RelayName {
  static constexpr char kTag[14] = "\0mtcp-relay-1";
  sa_family_t family = AF_UNIX;
  char tag[sizeof kTag] = {};
  sockaddr_in6 local = {}, remote = {};  // or a sockaddr_in in its place, as sin6_family says
  std::uint32_t unique[3] = {};          // pid and the connection's serial: no two have the same name

  // Whether `size` bytes that getpeername(2) has given are such a name.
  [[nodiscard]] bool is_one(socklen_t size) const {
    return size == sizeof *this && family == AF_UNIX && std::memcmp(tag, kTag, sizeof kTag) == 0;
  }
  [[nodiscard]] static socklen_t size_of(const sockaddr_in6& a) {
    return a.sin6_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  }
};
static_assert(sizeof(RelayName) == 84);

}  // namespace mtcp::intercept

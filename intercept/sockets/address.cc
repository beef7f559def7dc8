#include "intercept/sockets/address.hh"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace mtcp::intercept {
namespace {

constexpr socklen_t kSin6WithoutScope = 24;  // RFC 2133's sockaddr_in6, which the kernel still takes

int read_v4(const sockaddr* a, socklen_t n, stack::Endpoint& out) {
  sockaddr_in in{};
  if (n < sizeof in) return -EINVAL;
  std::memcpy(&in, a, sizeof in);
  if (in.sin_family != AF_INET) return -EAFNOSUPPORT;
  out = {stack::IpAddress::v4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
  return 0;
}

int read_v6(const sockaddr* a, socklen_t n, stack::Endpoint& out) {
  if (n < kSin6WithoutScope) return -EINVAL;
  sockaddr_in6 in{};
  std::memcpy(&in, a, std::min<std::size_t>(n, sizeof in));
  if (in.sin6_family != AF_INET6) return -EAFNOSUPPORT;
  std::memcpy(out.address.bytes.data(), &in.sin6_addr, 16);
  out.port = ntohs(in.sin6_port);
  return 0;
}

int copy_out(const void* from, socklen_t size, sockaddr* a, socklen_t* n) {
  if (static_cast<int>(*n) < 0) return -EINVAL;
  std::memcpy(a, from, std::min(*n, size));
  *n = size;
  return 0;
}

}  // namespace

int read_address(const sockaddr* a, socklen_t n, bool v6, stack::Endpoint& out) {
  if (static_cast<int>(n) < 0 || n > sizeof(sockaddr_storage)) return -EINVAL;
  if (a == nullptr) return n == 0 ? -EINVAL : -EFAULT;
  return v6 ? read_v6(a, n, out) : read_v4(a, n, out);
}

int write_address(const stack::Endpoint& e, bool v6, sockaddr* a, socklen_t* n) {
  if (n == nullptr || (a == nullptr && *n != 0)) return -EFAULT;
  if (v6) {
    sockaddr_in6 out{};
    out.sin6_family = AF_INET6;
    out.sin6_port = htons(e.port);
    std::memcpy(&out.sin6_addr, e.address.bytes.data(), 16);
    return copy_out(&out, sizeof out, a, n);
  }
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(e.port);
  out.sin_addr.s_addr = htonl(e.address.is_v4() ? e.address.as_v4() : INADDR_ANY);
  return copy_out(&out, sizeof out, a, n);
}

}  // namespace mtcp::intercept

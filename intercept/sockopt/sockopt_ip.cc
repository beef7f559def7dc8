#include "intercept/sockopt/sockopt_ip.hh"

#include <errno.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "intercept/sockopt/sockopt_kept.hh"
#include "intercept/sockopt/sockopt_value.hh"

namespace mtcp::intercept {
namespace {

constexpr int kIpProtocol = 52;  // IP_PROTOCOL

int path_mtu(const Socket& s) {  // or -errno
  if (s.state != Socket::State::stream) return -ENOTCONN;
  return static_cast<int>(s.shard->instance->worker().info(*s.connection).path_mtu);
}

int get_path_mtu_structure(const Socket& s, void* v, socklen_t* n) {
  ip6_mtuinfo out{};
  if (*n < sizeof out) return -EINVAL;
  const int mtu = path_mtu(s);
  if (mtu < 0) return mtu;
  out.ip6m_mtu = static_cast<std::uint32_t>(mtu);
  return give(out, v, n);
}

}  // namespace

bool is_read_only_ip(int level, int name) {
  if (level == IPPROTO_IP) return name == IP_MTU || name == kIpProtocol;
  return name == IPV6_PATHMTU;
}

int get_ip_option(const Socket& s, int level, int name, void* v, socklen_t* n) {
  if (level == IPPROTO_IPV6 && !s.v6) return -ENOTSUP;
  // What Linux calls the protocol is the local port, but of raw sockets.
  if (level == IPPROTO_IP && name == kIpProtocol) return give(int{s.local.port}, v, n);
  if (level == IPPROTO_IPV6 && name == IPV6_PATHMTU) return get_path_mtu_structure(s, v, n);
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && s.state != Socket::State::undecided) return give(s.v6_only ? 1 : 0, v, n);
  if (name != (level == IPPROTO_IP ? IP_MTU : IPV6_MTU)) return -ENOTSUP;
  const int mtu = path_mtu(s);
  return mtu < 0 ? mtu : give(mtu, v, n);
}

int set_v6_only(Process& process, Socket& s, const void* v, socklen_t n) {
  if (s.v6 && s.state != Socket::State::undecided) return -EINVAL;  // it has a port
  if (const int error = try_in_kernel(process, s, IPPROTO_IPV6, IPV6_V6ONLY, v, n); error != 0) return error;
  int value = 0;
  std::memcpy(&value, v, std::min<std::size_t>(n, sizeof value));
  s.v6_only = value != 0;
  return 0;
}

}  // namespace mtcp::intercept

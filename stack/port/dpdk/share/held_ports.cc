#include "stack/port/dpdk/share/held_ports.hh"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

// Bound to the endpoint, or -1 and errno.
int bound_socket(const Endpoint& local) {
  const int domain = local.address.is_v4() ? AF_INET : AF_INET6;
  const int fd = static_cast<int>(system_call(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return -1;
  sockaddr_storage where{};
  long size = sizeof(sockaddr_in6);
  if (domain == AF_INET) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(local.port);
    in.sin_addr.s_addr = htonl(local.address.as_v4());
    memcpy(&where, &in, sizeof in);
    size = sizeof in;
  } else {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(local.port);
    memcpy(&in.sin6_addr, local.address.bytes.data(), local.address.bytes.size());
    memcpy(&where, &in, sizeof in);
  }
  if (system_call(SYS_bind, fd, reinterpret_cast<long>(&where), size) == 0) return raise(fd);
  const int error = errno;
  system_call(SYS_close, fd);
  errno = error;
  return -1;
}

}  // namespace

// The application wants descriptors as well.
HeldPorts::HeldPorts(Tell tell) : tell_(std::move(tell)) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  most_ = static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_cur, 65536)) / 4;
}

void HeldPorts::close(int fd) const {
  if (tell_) tell_(fd, false);
  system_call(SYS_close, fd);
  in_process_.fetch_sub(1, std::memory_order_relaxed);
}

void HeldPorts::release_all() {
  for (const auto& [endpoint, held] : held_) close(held.fd);
  held_.clear();
}

bool HeldPorts::hold(const Endpoint& local) {
  if (const auto found = held_.find(local); found != held_.end()) {
    ++found->second.uses;
    return true;
  }
  if (in_process_.load(std::memory_order_relaxed) >= most_) return true;
  const int fd = bound_socket(local);
  if (fd < 0) return errno != EADDRINUSE;
  held_.emplace(local, Held{fd, 1});
  in_process_.fetch_add(1, std::memory_order_relaxed);
  if (tell_) tell_(fd, true);
  return true;
}

void HeldPorts::release(const Endpoint& local) {
  const auto found = held_.find(local);
  if (found == held_.end() || --found->second.uses > 0) return;
  close(found->second.fd);
  held_.erase(found);
}

}  // namespace mtcp::stack::dpdk

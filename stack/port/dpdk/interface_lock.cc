#include "stack/port/dpdk/interface_lock.hh"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include <algorithm>

#include "stack/port/dpdk/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr int kTries = 100;
constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 10'000'000};

struct Name {
  explicit Name(const std::string& interface) {
    address.sun_family = AF_UNIX;
    const int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "mtcp-device-%s", interface.c_str());
    size = static_cast<long>(offsetof(sockaddr_un, sun_path)) + 1 + std::min(n, static_cast<int>(sizeof address.sun_path) - 2);
  }
  sockaddr_un address{};
  long size;
};

int open_socket() {
  return static_cast<int>(system_call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// "process 17 (nginx)", or as much of it as can be known: the listener's process when it listened.
std::string holder(const Name& name) {
  const int fd = open_socket();
  if (fd < 0) return "another process";
  ucred peer{};
  socklen_t size = sizeof peer;
  const bool known = system_call(SYS_connect, fd, reinterpret_cast<long>(&name.address), name.size) == 0 &&
                     system_call(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, reinterpret_cast<long>(&peer),
                                 reinterpret_cast<long>(&size)) == 0;
  system_call(SYS_close, fd);
  return known && peer.pid > 0 ? "process " + std::to_string(peer.pid) + " or its children" : "another process";
}

// 0 or errno; `fd` holds the name then.
int take_name(const Name& name, int& fd) {
  fd = open_socket();
  if (fd < 0) return errno;
  if (system_call(SYS_bind, fd, reinterpret_cast<long>(&name.address), name.size) == 0 &&
      system_call(SYS_listen, fd, 16) == 0)
    return 0;
  const int error = errno;
  system_call(SYS_close, fd);
  fd = -1;
  return error;
}

}  // namespace

bool InterfaceLock::take(const std::string& interface, std::string& message) {
  const Name name(interface);
  int error = 0;
  for (int i = 0; i < kTries; ++i) {
    error = take_name(name, fd_);
    if (error != EADDRINUSE) break;
    system_call(SYS_nanosleep, reinterpret_cast<long>(&kPause), 0);
  }
  if (error == 0) {
    fd_ = move_high(fd_);
    return true;
  }
  in_use_ = error == EADDRINUSE;
  message = in_use_ ? interface + " is in use by another program on mtcp (" + holder(name) +
                                      "); one at a time can have it, with all that it forks"
                                : "cannot tell whether " + interface + " is in use: " + strerror(error);
  return false;
}

void InterfaceLock::release() {
  if (fd_ >= 0) mtcp_dpdk_close(fd_);
  fd_ = -1;
}

}  // namespace mtcp::stack::dpdk

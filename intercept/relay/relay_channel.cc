#include "intercept/relay/relay_channel.hh"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "intercept/process.hh"

namespace mtcp::intercept {
namespace {

union PassedDescriptor {
  char bytes[CMSG_SPACE(sizeof(int))];
  cmsghdr align;
};

}  // namespace

int internal_pair(Process& process, int type, int (&ends)[2]) {
  int made[2];
  const int error = process.kernel.socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, made);
  if (error != 0) return error;
  for (int i = 0; i < 2; ++i) {
    if (made[i] < process.files.size()) continue;
    process.kernel.close(made[0]);
    process.kernel.close(made[1]);
    return -EMFILE;
  }
  for (int i = 0; i < 2; ++i) ends[i] = process.keep_high(made[i]);
  return 0;
}

ssize_t send_message(Kernel& kernel, int channel, const void* p, std::size_t n, int passed) {
  iovec v{const_cast<void*>(p), n};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  PassedDescriptor control{};
  if (passed >= 0) {
    m.msg_control = control.bytes;
    m.msg_controllen = sizeof control.bytes;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &passed, sizeof passed);
  }
  return kernel.sendmsg(channel, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t receive_message(Kernel& kernel, int channel, void* p, std::size_t n, int& passed) {
  passed = -1;
  iovec v{p, n};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  PassedDescriptor control{};
  m.msg_control = control.bytes;
  m.msg_controllen = sizeof control.bytes;
  const ssize_t got = kernel.recvmsg(channel, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
      std::memcpy(&passed, CMSG_DATA(c), sizeof passed);
  }
  return got;
}

void close_internal(Process& process, int& fd) {
  if (fd < 0) return;
  process.files.clear(fd);
  process.kernel.close(std::exchange(fd, -1));
}

}  // namespace mtcp::intercept

// A message of one byte with one control message.
#pragma once

#include <sys/socket.h>

#include <cstring>

namespace parity {

template <typename T>
struct ControlMessage {
  explicit ControlMessage(int level, int type, const T& value) {
    v = {&byte, 1};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(sizeof value);
    std::memcpy(CMSG_DATA(c), &value, sizeof value);
  }
  ControlMessage(const ControlMessage&) = delete;
  ControlMessage& operator=(const ControlMessage&) = delete;

  char byte = 'x';
  iovec v{};
  msghdr m{};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(T))] = {};
};

// Passes a descriptor, or is received into.
struct DescriptorMessage : ControlMessage<int> {
  explicit DescriptorMessage(int fd = -1) : ControlMessage(SOL_SOCKET, SCM_RIGHTS, fd) {}
  int descriptor() {
    int fd = -1;
    if (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr) std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
  }
};

}  // namespace parity

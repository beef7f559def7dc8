#include "intercept/device/door.hh"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "intercept/lifetime/program_key.hh"
#include "intercept/process.hh"
#include "intercept/relay/relay_channel.hh"
#include "intercept/support/peer_user.hh"

namespace mtcp::intercept {
namespace {

constexpr int kQueue = 128;
constexpr std::size_t kMostDescriptors = 253;  // SCM_MAX_FD

struct DoorName {
  sa_family_t family = AF_UNIX;
  char tag[14] = "\0mtcp-door-01";
  std::uint64_t which[2] = {};
};

DoorName name_of(const std::string& port) {
  DoorName name;
  const stack::SipKey key = program_key();
  const auto bytes = std::as_bytes(std::span(port.data(), port.size()));
  const std::uint64_t device = stack::siphash<2, 4>(key, bytes);
  for (std::uint64_t half = 0; half < 2; ++half) name.which[half] = stack::siphash_words<2, 4>(key, device, half);
  return name;
}

const sockaddr* generic(const DoorName& name) { return reinterpret_cast<const sockaddr*>(&name); }

// The other end is the same user's, or root's.
bool is_trusted(Kernel& kernel, int fd) {
  const std::optional<uid_t> user = user_of_peer(kernel, fd);
  return user.has_value() && (*user == ::geteuid() || *user == 0);
}

struct Control {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMostDescriptors)> bytes{};
};

// An answer: the terms, and the descriptors along with them, the door's own the last.
void send_invitation(Kernel& kernel, int fd, const stack::DeviceInvitation& invitation) {
  iovec v{const_cast<std::byte*>(invitation.terms.data()), invitation.terms.size()};
  Control control;
  const std::size_t bytes = invitation.descriptors.size() * sizeof(int);
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control.bytes.data();
  m.msg_controllen = CMSG_SPACE(bytes);
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(bytes);
  std::memcpy(CMSG_DATA(c), invitation.descriptors.data(), bytes);
  (void)kernel.sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// 0, -EAGAIN if it is not there yet, or another -errno.
int receive_invitation(Kernel& kernel, int fd, stack::DeviceInvitation& invitation) {
  iovec v{invitation.terms.data(), invitation.terms.size()};
  Control control;
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control.bytes.data();
  m.msg_controllen = control.bytes.size();
  const ssize_t n = kernel.recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  for (cmsghdr* c = n >= 0 ? CMSG_FIRSTHDR(&m) : nullptr; c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    invitation.descriptors.resize((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(invitation.descriptors.data(), CMSG_DATA(c), invitation.descriptors.size() * sizeof(int));
  }
  if (n < 0) return static_cast<int>(n);
  const bool whole = n == static_cast<ssize_t>(v.iov_len) && (m.msg_flags & MSG_CTRUNC) == 0;
  return whole && invitation.descriptors.size() > 1 ? 0 : -EPROTO;
}

}  // namespace

bool Door::take() {
  const int fd = process_.kernel.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;  // as if nobody else were there
  const DoorName name = name_of(process_.options.device.port);
  int error = fd < process_.files.size() ? process_.kernel.bind(fd, generic(name), sizeof name) : -EMFILE;
  const bool taken = error == -EADDRINUSE;
  if (error == 0) error = process_.kernel.listen(fd, kQueue);
  if (error == 0) {
    fd_ = process_.keep_high(fd);
  } else {
    (void)process_.kernel.close(fd);
  }
  return !taken;
}

void Door::close() { close_internal(process_, fd_); }

void Door::stop_knocking() {
  close_internal(process_, answer_fd_);
  waiting_ = false;
}

// -EAGAIN: it is there, and so many ask it that it can't hear this one yet.
int Door::begin_to_knock() {
  Kernel& kernel = process_.kernel;
  const int fd = kernel.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  const DoorName name = name_of(process_.options.device.port);
  int error = fd < process_.files.size() ? kernel.connect(fd, generic(name), sizeof name) : -EMFILE;
  if (error == 0 && !is_trusted(kernel, fd)) error = -EACCES;
  if (error == 0) {
    answer_fd_ = process_.keep_high(fd);
  } else {
    (void)kernel.close(fd);
  }
  return error;
}

Door::Answer Door::knock(std::unique_ptr<stack::Device>& device) {
  stack::DeviceInvitation invitation;
  int error = answer_fd_ < 0 ? begin_to_knock() : 0;
  if (error == 0) error = receive_invitation(process_.kernel, answer_fd_, invitation);
  waiting_ = error == -EAGAIN;
  if (waiting_) return Answer::waiting;
  stop_knocking();
  if (error != 0) {
    for (const int passed : invitation.descriptors) (void)process_.kernel.close(passed);
    return Answer::nobody;
  }
  const int door = invitation.descriptors.back();
  invitation.descriptors.pop_back();
  device = process_.open_as_guest(invitation);
  if (device == nullptr || door >= process_.files.size()) {
    (void)process_.kernel.close(door);
  } else {
    fd_ = process_.keep_high(door);
  }
  return device != nullptr ? Answer::device : Answer::nobody;
}

void Door::serve() {
  if (fd_ < 0) return;
  const int fd = process_.kernel.accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  stack::DeviceInvitation invitation = process_.device != nullptr ? process_.device->invite() : stack::DeviceInvitation{};
  if (!invitation.descriptors.empty() && invitation.descriptors.size() < kMostDescriptors && is_trusted(process_.kernel, fd)) {
    invitation.descriptors.push_back(fd_);
    send_invitation(process_.kernel, fd, invitation);
  }
  (void)process_.kernel.close(fd);
}

}  // namespace mtcp::intercept

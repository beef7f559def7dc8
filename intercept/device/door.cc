#include "intercept/device/door.hh"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "intercept/lifetime/lasting.hh"
#include "intercept/lifetime/program_key.hh"
#include "intercept/opener.hh"
#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/log.hh"
#include "intercept/relay/relay_channel.hh"
#include "intercept/support/peer_user.hh"

namespace mtcp::intercept {
namespace {

constexpr int kQueue = 128;
constexpr std::size_t kMostDescriptors = 253;  // SCM_MAX_FD

// The other end is the same user's, or root's.
bool is_trusted(Kernel& kernel, int fd) {
  const std::optional<uid_t> user = user_of_peer(kernel, fd);
  return user.has_value() && (*user == ::geteuid() || *user == 0);
}

// Whose programs share a device: what they have to agree on, as text.
std::string device_of(const Options& options) {
  const std::string& port = options.device.port;
  std::string text = port.substr(0, port.find(',')) + " " + stack::value_of(port, "iface") + " " + stack::value_of(port, "share");
  if (!options.stack.interface.from_kernel)
    for (const auto& a : options.stack.interface.addresses)
      text.append(reinterpret_cast<const char*>(a.address.bytes.data()), a.address.bytes.size()) += static_cast<char>(a.prefix_length);
  return text;
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

// To whoever has this name, and may be believed: a descriptor, or -errno. -EAGAIN: so many ask it that it can't hear this one yet.
int connect_trusted(Process& process, const sockaddr* name, socklen_t size) {
  Kernel& kernel = process.kernel;
  const int fd = kernel.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  int error = fd < process.files.size() ? kernel.connect(fd, name, size) : -EMFILE;
  if (error == 0 && !is_trusted(kernel, fd)) error = -EACCES;
  if (error == 0) return process.keep_high(fd);
  (void)kernel.close(fd);
  return error;
}

// The device of an invitation, whose descriptors it has from now on. Null, and they are closed, if there is an error.
std::unique_ptr<stack::Device> open_invited(const Process& process, const stack::DeviceInvitation& invitation, int error) {
  if (error == 0) return process.open_as_guest(invitation, process.program, process.cpus);
  for (const int passed : invitation.descriptors) (void)process.kernel.close(passed);
  return nullptr;
}

}  // namespace

struct Door::Name {
  struct Address {
    sa_family_t family = AF_UNIX;
    char tag[14] = "\0mtcp-door-03";
    std::uint64_t which[2] = {};
  } address;
  std::atomic<std::uint64_t>* nonce = nullptr;  // that it is made of, and what that was; null: it can't be changed
  std::uint64_t seen = 0;
  [[nodiscard]] const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&address); }
  [[nodiscard]] std::span<const std::byte> in_path() const { return std::as_bytes(std::span(&address, 1)).subspan(offsetof(Address, tag)); }
};

bool Door::is_for_others() const {
  return !process_.options.device.is_private() && !stack::value_of(process_.options.device.port, "iface").empty();
}

// Keyed with what only processes of this program know, or for a device that other programs may have as well, of this user.
Door::Name Door::name() const {
  const bool others = is_for_others();
  const std::string device = others ? device_of(process_.options) : process_.options.device.port;
  const bool kept = others && process_.load_secrets() == 0 && process_.lasting->port_counters != nullptr;
  const stack::SipKey key = kept ? stack::SipKey{process_.lasting->lasting[0], process_.lasting->lasting[1]} : program_key();
  const std::uint64_t hash = stack::siphash<2, 4>(key, std::as_bytes(std::span(device.data(), device.size())));
  Name name;
  if (kept && process_.door_nonces != nullptr) name.nonce = &process_.door_nonces->of[hash % process_.door_nonces->of.size()];
  name.seen = name.nonce != nullptr ? name.nonce->load(std::memory_order_acquire) : 0;
  for (std::uint64_t half = 0; half < 2; ++half)
    name.address.which[half] = stack::siphash_words<2, 4>(key, hash, half, name.seen, 0x646f6f72UL);
  return name;
}

// Who is asked does not answer as one of this user's would. Everybody can read a name once it has been taken, and take it himself when
// its owner has ended; so there is another one from now on.
bool Door::leave_to_stranger(const Name& name) const {
  const std::optional<uid_t> user = user_of_name(process_.kernel, SOCK_SEQPACKET, name.in_path());
  if (!user.has_value() || *user == ::geteuid() || *user == 0 || name.nonce == nullptr) return false;
  std::uint64_t fresh = 0, seen = name.seen;
  if (!fill_random(std::as_writable_bytes(std::span(&fresh, 1)))) return false;
  if (name.nonce->compare_exchange_strong(seen, fresh, std::memory_order_acq_rel))
    log(LogLevel::warning, "%s: user %u has the name by which programs that share it find each other; they have another one now",
        process_.options.device.port.c_str(), *user);
  return true;
}

// The name can be seen by everybody: who comes must be of the user who has taken it, or root.
bool Door::may_enter(int fd) const {
  const std::optional<uid_t> user = user_of_peer(process_.kernel, fd);
  if (!is_for_others()) return is_trusted(process_.kernel, fd);
  return user.has_value() && (*user == 0 || user == user_of_peer(process_.kernel, fd_));
}

bool Door::take() {
  const int fd = process_.kernel.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;  // as if nobody else were there
  const Name where = name();
  int error = fd < process_.files.size() ? process_.kernel.bind(fd, where.generic(), sizeof where.address) : -EMFILE;
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
  waiting_ = refused_ = false;
}

int Door::begin_to_knock() {
  const Name where = name();
  const int fd = connect_trusted(process_, where.generic(), sizeof where.address);
  if ((fd == -EACCES || fd == -EAGAIN || fd == -ECONNREFUSED) && leave_to_stranger(where)) return -EACCES;
  if (fd < 0) return fd;
  answer_fd_ = fd;
  asked_ = now();
  return 0;
}

Door::Answer Door::knock(std::unique_ptr<stack::Device>& device) {
  stack::DeviceInvitation invitation;
  int error = answer_fd_ < 0 ? begin_to_knock() : 0;
  if (error == 0) error = receive_invitation(process_.kernel, answer_fd_, invitation);
  if (error == -ECONNREFUSED && !refused_) asked_ = now();
  refused_ = error == -ECONNREFUSED;
  waiting_ = error == -EAGAIN || refused_;
  if (waiting_) return Answer::waiting;
  stop_knocking();
  int door = -1;
  if (error == 0) {
    door = invitation.descriptors.back();
    invitation.descriptors.pop_back();
  }
  device = open_invited(process_, invitation, error);
  if (door >= 0 && (device == nullptr || door >= process_.files.size()))
    (void)process_.kernel.close(door);
  else if (door >= 0)
    fd_ = process_.keep_high(door);
  return device != nullptr ? Answer::device : Answer::nobody;
}

bool Door::ask_opener(std::unique_ptr<stack::Device>& device) {
  constexpr timespec kAtMost = to_timespec(stack::seconds(1));
  Kernel& kernel = process_.kernel;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = std::string(kOpenerDirectory) + "/" + stack::value_of(process_.options.device.port, "iface") + ".sock";
  if (!is_for_others() || path.size() >= sizeof address.sun_path || ::access(path.c_str(), F_OK) != 0) return false;
  path.copy(address.sun_path, path.size());
  int fd = connect_trusted(process_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  stack::DeviceInvitation invitation;
  pollfd answer{fd, POLLIN, 0};
  int error = std::min(fd, 0);
  if (error == 0 && kernel.ppoll(&answer, 1, &kAtMost, nullptr) != 1) error = -ETIMEDOUT;
  if (error == 0) error = receive_invitation(kernel, fd, invitation);
  close_internal(process_, fd);
  if (error != 0 && error != -ECONNREFUSED)
    log(LogLevel::info, "%s does not let this program have the device: %s", path.c_str(), strerror(-error));
  device = open_invited(process_, invitation, error);
  return device != nullptr;
}

void Door::serve() {
  if (fd_ < 0) return;
  const int fd = process_.kernel.accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  stack::DeviceInvitation invitation = process_.device != nullptr ? process_.device->invite() : stack::DeviceInvitation{};
  if (!invitation.descriptors.empty() && invitation.descriptors.size() < kMostDescriptors && may_enter(fd)) {
    invitation.descriptors.push_back(fd_);
    send_invitation(process_.kernel, fd, invitation);
  }
  (void)process_.kernel.close(fd);
}

}  // namespace mtcp::intercept

#include "stack/port/dpdk/memif/memif_guard.hh"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <algorithm>
#include <string_view>

#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/memif/memif_proof.hh"
#include "stack/port/dpdk/memif/memif_ring.hh"

namespace mtcp::stack::dpdk {

namespace {

// Memif protocol 2.0: messages of 128 bytes, packed, which begin with their type.
enum Type : std::uint16_t { kAck = 1, kHello, kInit, kAddRegion, kAddRing, kConnect, kConnected, kDisconnect };
constexpr std::size_t kMessage = 128;
constexpr std::size_t kText = 2;  // where HELLO, CONNECT and CONNECTED have the other's name
constexpr std::size_t kName = 32;
constexpr std::size_t kInitName = 2 + 2 + 4 + 1 + 24;
constexpr std::size_t kReason = 2 + 4;
constexpr std::size_t kReasonSize = 96;
constexpr std::size_t kHelloLog2Ring = kText + kName + 5 * 2;

// A peer has one connection; one that ends and the next may overlap.
constexpr std::size_t kMostChannels = 8;
// Those of users who have to prove something first keep nobody else out.
constexpr std::ptrdiff_t kMostUnproven = 4;
// Offsets in the shared memory have 32 bits.
constexpr std::uint64_t kLargestRegion = std::uint64_t{1} << 32;
constexpr unsigned kLargestLog2Ring = 14;

template <typename T>
T field(std::span<const std::byte> message, std::size_t at) {
  T value;
  memcpy(&value, message.data() + at, sizeof value);
  return value;
}

void end_text(std::span<std::byte> message, std::size_t at, std::size_t size) { message[at + size - 1] = std::byte{0}; }

// Without reading or writing it: what else a peer might have sent (a file of a file system that it serves itself, a pipe)
// could block whoever touches it.
bool is_eventfd(int fd) {
  const long own = system_call(SYS_eventfd2, 0, EFD_CLOEXEC);
  if (own < 0) return false;
  struct stat theirs {}, ours {};
  const bool same = system_call(SYS_fstat, fd, reinterpret_cast<long>(&theirs)) == 0 &&
                    system_call(SYS_fstat, own, reinterpret_cast<long>(&ours)) == 0 && theirs.st_dev == ours.st_dev &&
                    theirs.st_ino == ours.st_ino && theirs.st_mode == ours.st_mode;
  system_call(SYS_close, own);
  if (!same) return false;
  // All of the kernel's nameless files look alike to fstat; who has /proc can tell more.
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  char name[64];
  const long n = system_call(SYS_readlinkat, AT_FDCWD, reinterpret_cast<long>(path.c_str()), reinterpret_cast<long>(name),
                             sizeof name);
  return n < 0 || std::string_view(name, static_cast<std::size_t>(n)) == "anon_inode:[eventfd]";
}

// Memory that stays: its owner can't cut it off under us (which would be a SIGBUS), and no huge pages, of which there
// may be none left when they are touched.
bool stays(int fd, std::uint64_t size) {
  struct stat file {};
  struct statfs where {};
  const long seals = system_call(SYS_fcntl, fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && (seals & F_SEAL_WRITE) == 0 &&
         system_call(SYS_fstat, fd, reinterpret_cast<long>(&file)) == 0 && S_ISREG(file.st_mode) &&
         static_cast<std::uint64_t>(file.st_size) >= size &&
         system_call(SYS_fstatfs, fd, reinterpret_cast<long>(&where)) == 0 && where.f_type == TMPFS_MAGIC;
}

}  // namespace

MemifGuard& memif_guard() {
  static MemifGuard instance;
  return instance;
}

bool MemifGuard::refuse(const char* why) {
  refusal_ = why;
  return false;
}

bool MemifGuard::admit(int fd, bool server) {
  forget(fd);
  ucred peer{};
  socklen_t size = sizeof peer;
  if (system_call(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, reinterpret_cast<long>(&peer),
                  reinterpret_cast<long>(&size)) != 0)
    return refuse("a memif peer cannot be asked who it is");
  const auto own = static_cast<uid_t>(system_call(SYS_geteuid));
  const bool stranger = peer.uid != 0 && peer.uid != own && std::ranges::find(allowed_, peer.uid) == allowed_.end();
  if (stranger && (!key_ || std::ranges::count(channels_, false, &Channel::proven) >= kMostUnproven))
    return refuse_user(peer.uid, server);
  if (channels_.size() >= kMostChannels) return refuse("too many connections to this memif at a time");
  channels_.push_back({.fd = fd, .server = server, .peer = peer, .proven = !stranger});
  return true;
}

bool MemifGuard::refuse_user(uid_t user, bool server) {
  refusal_ = std::string(server ? "user " : "the server of this memif socket is user ") + std::to_string(user) +
             (server ? " has tried to attach to this memif" : "") + ": refused; [device] peer_users = [" +
             std::to_string(user) + "] allows it";
  return false;
}

// The first message of each end: has it the right to this wire, and is it a stack?
bool MemifGuard::hear_name(Channel& c, std::span<const std::byte> name) {
  const std::string_view text(reinterpret_cast<const char*>(name.data()));
  if (!c.proven && !proves(*key_, c.peer.pid, text)) return refuse_user(c.peer.uid, c.server);
  c.proven = true;
  c.stack = text.starts_with(kStack);
  c.stage = Stage::named;
  return true;
}

void MemifGuard::note_connected(Channel& c) {
  c.stage = Stage::connected;
  peer_is_stack_ = c.stack;
}

bool MemifGuard::is_connected(int fd) const {
  const auto c = std::ranges::find(channels_, fd, &Channel::fd);
  return c != channels_.end() && c->stage == Stage::connected;
}

void MemifGuard::sign(std::span<std::byte> message) const {
  if (message.size() != kMessage) return;
  const auto type = field<std::uint16_t>(message, 0);
  if (type != kHello && type != kInit) return;
  const std::span<std::byte> name = message.subspan(type == kHello ? kText : kInitName, kName);
  std::ranges::fill(name, std::byte{0});
  memcpy(name.data(), kStack.data(), kStack.size());
  if (key_) write_proof(*key_, name);
}

void MemifGuard::forget(int fd) {
  const auto c = std::ranges::find(channels_, fd, &Channel::fd);
  if (c == channels_.end()) return;
  // The driver forgets memory that it has not mapped yet.
  const int unmapped = c->stage == Stage::mapped ? c->memory : -1;
  channels_.erase(c);
  if (unmapped >= 0) mtcp_dpdk_close(unmapped);
}

bool MemifGuard::check(int fd, std::span<std::byte> message, int descriptor) {
  const auto c = std::ranges::find(channels_, fd, &Channel::fd);
  if (c == channels_.end()) return false;
  if (message.size() != kMessage) return refuse("a memif peer does not keep to the protocol");
  const auto type = field<std::uint16_t>(message, 0);
  const bool carries = type == kAddRegion || type == kAddRing;
  if (carries != (descriptor >= 0)) return refuse("a memif peer sends descriptors with the wrong messages");
  if (type == kDisconnect) {
    end_text(message, kReason, kReasonSize);
    return true;
  }
  if (type == kAck) return true;
  if (c->server ? check_server(*c, message, descriptor) : check_client(*c, message)) return true;
  if (refusal_.empty()) refusal_ = "a memif peer does not keep to the protocol";
  return false;
}

bool MemifGuard::check_client(Channel& c, std::span<std::byte> message) {
  const auto type = field<std::uint16_t>(message, 0);
  end_text(message, kText, kName);
  if (type == kHello && c.stage == Stage::start) {
    if (!hear_name(c, message.subspan(kText, kName))) return false;
    return field<std::uint8_t>(message, kHelloLog2Ring) >= 1 || refuse("a memif peer wants rings of one slot");
  }
  if (type != kConnected || c.stage != Stage::named) return refuse("a memif server does not keep to the protocol");
  note_connected(c);
  return true;
}

bool MemifGuard::check_server(Channel& c, std::span<std::byte> message, int descriptor) {
  switch (field<std::uint16_t>(message, 0)) {
    case kInit:
      if (c.stage != Stage::start) break;
      end_text(message, kInitName, kName);
      return hear_name(c, message.subspan(kInitName, kName));
    case kAddRegion:
      if (c.stage != Stage::named) break;
      if (!check_region(c, message, descriptor)) return false;
      c.stage = Stage::mapped;
      c.memory = descriptor;
      return true;
    case kAddRing:
      if (c.stage != Stage::mapped) break;
      return check_ring(c, message, descriptor);
    case kConnect:
      if (c.stage != Stage::mapped || c.rings[0] == 0 || c.rings[1] == 0) break;
      end_text(message, kText, kName);
      note_connected(c);
      return true;
    default:
      break;
  }
  return refuse("a memif client does not keep to the protocol");
}

bool MemifGuard::check_region(Channel& c, std::span<const std::byte> message, int descriptor) {
  c.region = field<std::uint64_t>(message, 4);
  if (field<std::uint16_t>(message, 2) != 0)
    return refuse("a memif client has several regions (zero-copy), of which this end takes one only");
  if (c.region == 0 || c.region > kLargestRegion || !stays(descriptor, c.region))
    return refuse("a memif client's memory is shorter than it says, or not sealed against shrinking");
  return true;
}

bool MemifGuard::check_ring(Channel& c, std::span<const std::byte> message, int descriptor) {
  const unsigned direction = field<std::uint16_t>(message, 2) & 1;
  const auto index = field<std::uint16_t>(message, 4);
  const auto region = field<std::uint16_t>(message, 6);
  const std::uint64_t offset = field<std::uint32_t>(message, 8);
  const unsigned log2_size = field<std::uint8_t>(message, 12);
  if (index != c.rings[direction]++) return refuse("a memif client's rings are out of order");
  if (region != 0 || log2_size < 1 || log2_size > kLargestLog2Ring || offset % alignof(MemifRing) != 0 ||
      offset + sizeof(MemifRing) + (sizeof(MemifDescriptor) << log2_size) > c.region)
    return refuse("a memif client's ring does not lie in its memory");
  if (!is_eventfd(descriptor)) return refuse("a memif client's descriptor for wake-ups is no eventfd");
  // The flag belongs to the peer as well, but an honest one leaves it alone.
  const long flags = system_call(SYS_fcntl, descriptor, F_GETFL);
  if (flags >= 0) system_call(SYS_fcntl, descriptor, F_SETFL, flags | O_NONBLOCK);
  return true;
}

}  // namespace mtcp::stack::dpdk

// ---- the names in redirect_memif.map ----------------------------------------------------------------------------

using mtcp::stack::dpdk::memif_guard;
using mtcp::stack::dpdk::move_high;
using mtcp::stack::dpdk::system_call;

extern "C" {

int mtcp_memif_accept(int fd, sockaddr* address, socklen_t* length) {
  const int accepted = move_high(static_cast<int>(system_call(SYS_accept4, fd, reinterpret_cast<long>(address),
                                                              reinterpret_cast<long>(length),
                                                              SOCK_CLOEXEC | SOCK_NONBLOCK)));
  if (accepted < 0 || memif_guard().admit(accepted, true)) return accepted;
  mtcp_dpdk_close(accepted);
  errno = EACCES;
  return -1;
}

int mtcp_memif_connect(int fd, const sockaddr* address, socklen_t length) {
  if (system_call(SYS_connect, fd, reinterpret_cast<long>(address), length) != 0) return -1;
  if (memif_guard().admit(fd, false)) return 0;
  errno = EACCES;
  return -1;
}

// A peer that is gone is no reason for a SIGPIPE, and one that does not read none to wait. Neither is an error to the driver,
// which would free the connection and leave its callback behind: that the peer has hung up it learns when it receives.
ssize_t mtcp_memif_sendmsg(int fd, const msghdr* message, int flags) {
  const std::span<std::byte> text(static_cast<std::byte*>(message->msg_iov->iov_base), message->msg_iov->iov_len);
  memif_guard().sign(text);
  (void)system_call(SYS_sendmsg, fd, reinterpret_cast<long>(message), flags | MSG_NOSIGNAL | MSG_DONTWAIT);
  return static_cast<ssize_t>(text.size());
}

// What the guard does not let pass is the end of the connection to the driver.
ssize_t mtcp_memif_recvmsg(int fd, msghdr* message, int flags) {
  const long n = system_call(SYS_recvmsg, fd, reinterpret_cast<long>(message), flags | MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  std::vector<int> descriptors;
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int received;
      unsigned char* place = CMSG_DATA(c) + i * sizeof(int);
      memcpy(&received, place, sizeof received);
      received = move_high(received);
      memcpy(place, &received, sizeof received);
      descriptors.push_back(received);
    }
  }
  const std::span<std::byte> text(static_cast<std::byte*>(message->msg_iov->iov_base), static_cast<std::size_t>(n));
  const int descriptor = descriptors.empty() ? -1 : descriptors.front();
  if (n > 0 && descriptors.size() <= 1 && memif_guard().check(fd, text, descriptor)) return n;
  for (const int d : descriptors) mtcp_dpdk_close(d);
  return 0;
}

// A socket file that a server has left which was killed would be in the way of the next.
int mtcp_memif_bind(int fd, const sockaddr* address, socklen_t length) {
  const auto bind = [&] { return system_call(SYS_bind, fd, reinterpret_cast<long>(address), length); };
  if (bind() == 0) return 0;
  const auto& name = *reinterpret_cast<const sockaddr_un*>(address);
  if (errno != EADDRINUSE || name.sun_path[0] == 0) return -1;
  const long probe = system_call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool dead = probe >= 0 &&
                    system_call(SYS_connect, probe, reinterpret_cast<long>(address), length) != 0 && errno == ECONNREFUSED;
  if (probe >= 0) system_call(SYS_close, probe);
  if (dead && system_call(SYS_unlinkat, AT_FDCWD, reinterpret_cast<long>(name.sun_path), 0) == 0) return bind() == 0 ? 0 : -1;
  errno = EADDRINUSE;
  return -1;
}

}  // extern "C"

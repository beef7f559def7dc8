#include "intercept/sockets/local_listener.hh"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "intercept/descriptors/holders.hh"
#include "intercept/lifetime/program_key.hh"
#include "intercept/process.hh"
#include "intercept/relay/relay_name.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/address.hh"
#include "intercept/sockets/freebind.hh"
#include "intercept/sockets/local_name.hh"
#include "intercept/support/peer_user.hh"
#include "stack/base/siphash.hh"

namespace mtcp::intercept {
namespace {

constexpr int kNameTries = 16;  // of a port that is free, each at random

// `dual`: of a listener on :: that takes IPv4, too.
LocalName name_of(const stack::Endpoint& e, bool dual = false) {
  LocalName name;
  std::memcpy(name.tag, LocalName::kTag, sizeof name.tag);
  std::uint64_t address[2];
  std::memcpy(address, e.address.bytes.data(), sizeof address);
  const stack::SipKey key = program_key();
  for (std::uint64_t half = 0; half < 2; ++half)
    name.which[half] = stack::siphash_words<2, 4>(key, address[0], address[1], std::uint64_t{e.port} << 2 | (dual ? 2U : 0U) | half);
  return name;
}

const sockaddr* generic(const auto& name) { return reinterpret_cast<const sockaddr*>(&name); }

void write_name(const stack::Endpoint& e, sockaddr_in6& out) {
  socklen_t size = sizeof out;
  (void)write_address(e, !e.address.is_v4(), reinterpret_cast<sockaddr*>(&out), &size);
}

stack::Endpoint read_name(const sockaddr_in6& a) {
  stack::Endpoint e;
  (void)read_address(generic(a), sizeof a, a.sin6_family == AF_INET6, e);
  return e;
}

// A port that is free, as the kernel sees it.
int choose_port(Process& process, const stack::IpAddress& address, stack::Endpoint& out) {
  const bool v6 = !address.is_v4();
  const int fd = process.kernel.socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return fd;
  sockaddr_storage a{};
  socklen_t n = sizeof a;
  (void)write_address({address, 0}, v6, reinterpret_cast<sockaddr*>(&a), &n);
  set_freebind(process.kernel, fd, v6, true);
  int error = process.kernel.bind(fd, generic(a), n);
  n = sizeof a;
  if (error == 0) error = process.kernel.getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n);
  if (error == 0) error = read_address(generic(a), n, v6, out);
  (void)process.kernel.close(fd);
  return error;
}

// Others see the names that are in use (proc_net_unix), and may take one when it is free. But they don't know the key, and
// can't be another user: so a name proves that who has it is a process of this program.
std::uint64_t proof_of(const RelayName& name, uid_t user) {
  const stack::SipKey key = program_key();
  const std::uint64_t from = stack::siphash<2, 4>(key, std::as_bytes(std::span(&name.local, 1)));
  const std::uint64_t to = stack::siphash<2, 4>(key, std::as_bytes(std::span(&name.remote, 1)));
  return stack::siphash_words<2, 4>(key, from, to, std::uint64_t{user});
}

bool is_of_this_program(Kernel& kernel, int fd, const RelayName& name) {
  const std::optional<uid_t> user = user_of_peer(kernel, fd);
  if (!user.has_value()) return false;
  const std::uint64_t proof = proof_of(name, *user);
  return std::memcmp(name.unique, &proof, sizeof proof) == 0;
}

// Who listens at the other end: this user, root, or whoever listens there in the kernel, as a listener of the stack does, too (a
// process of this program that has given up root).
bool is_trusted(Kernel& kernel, int fd, const stack::Endpoint& listener) {
  const std::optional<uid_t> user = user_of_peer(kernel, fd);
  if (!user.has_value()) return false;
  return *user == ::geteuid() || *user == 0 || listening_user(kernel, listener) == *user;
}

// A Unix socket whose name tells the listener's side the addresses, as a relay's does. No two have the same.
int named_socket(Process& process, const stack::Endpoint& local, const stack::Endpoint& remote) {
  const int fd = process.kernel.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  RelayName name;
  std::memcpy(name.tag, RelayName::kTag, sizeof name.tag);
  write_name(remote, name.local);  // as the other end sees it
  write_name(local, name.remote);
  const std::uint64_t proof = proof_of(name, ::geteuid());
  static_assert(sizeof proof <= sizeof name.unique);
  std::memcpy(name.unique, &proof, sizeof proof);
  const int error = process.kernel.bind(fd, generic(name), sizeof name);
  if (error == 0) return fd;
  (void)process.kernel.close(fd);
  return error;
}

// To the listener of the address itself, or of the wildcard address.
int connect_to_listener(Process& process, int fd, const stack::Endpoint& remote) {
  const stack::IpAddress any = remote.address.is_v4() ? stack::IpAddress::any_v4() : stack::IpAddress::any_v6();
  const stack::Endpoint anywhere{any, remote.port}, dual{stack::IpAddress::any_v6(), remote.port};
  for (const auto& [listener, name] : {std::pair(remote, name_of(remote)), std::pair(anywhere, name_of(anywhere)),
                                      std::pair(dual, name_of(dual, true))}) {
    const int error = process.kernel.connect(fd, generic(name), sizeof name);
    if (error == 0 && !is_trusted(process.kernel, fd, listener)) return -ECONNREFUSED;
    if (error != -ECONNREFUSED) return error;
  }
  return -ECONNREFUSED;
}

}  // namespace

void open_local_listener(Process& process, Socket& s) {
  const bool any = s.local.address.is_any();
  if (s.local_fd >= 0 || s.local.address.is_loopback() || (any && process.options.stack.interface.addresses.empty()) ||
      process.options.stack.interface.from_kernel) return;
  const int fd = process.kernel.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  const LocalName name = name_of(s.local, s.local.address == stack::IpAddress::any_v6() && !s.v6_only);
  constexpr int kBacklog = 4096;  // who is too many waits in connect(2) here, which a TCP socket would not
  if (fd >= process.files.size() || process.kernel.bind(fd, generic(name), sizeof name) != 0 ||
      process.kernel.listen(fd, kBacklog) != 0) {
    (void)process.kernel.close(fd);
    return;
  }
  s.local_fd = process.keep_high(fd);
  process.sync_local_listener(s);
}

void close_local_listener(Process& process, Socket& s) {
  if (s.local_fd < 0) return;
  process.files.clear(s.local_fd);
  (void)process.kernel.close(s.local_fd);
  s.local_fd = -1;
}

int connect_locally(Process& process, Socket& s, const stack::Endpoint& remote) {
  stack::Endpoint local{s.local.address.is_any() ? remote.address : s.local.address, s.local.port};
  int fd = -EADDRINUSE;
  for (int tries = 0; fd == -EADDRINUSE && tries < (s.bound ? 1 : kNameTries); ++tries) {
    if (const int error = s.bound ? 0 : choose_port(process, local.address, local); error != 0) return error;
    fd = named_socket(process, local, remote);
  }
  if (fd < 0) return fd == -EADDRINUSE ? -EADDRNOTAVAIL : fd;
  int error = connect_to_listener(process, fd, remote);
  if (error == 0) {
    s.serial = s.shard->next_serial();
    s.local = local;
    s.remote = remote;
    error = become_relayed(process, s, fd);
  }
  (void)process.kernel.close(fd);
  return error;
}

int accept_locally(Process& process, const Socket& listener, int flags, LocalConnection& out) {
  for (;;) {
    RelayName name;
    socklen_t size = sizeof name;
    const int fd = process.kernel.accept4(listener.local_fd, reinterpret_cast<sockaddr*>(&name), &size, flags | SOCK_CLOEXEC);
    if (fd < 0) return fd;
    out = {.fd = fd, .local = read_name(name.local), .remote = read_name(name.remote)};
    const bool sound = name.is_one(size) && process.router.owns(out.remote.address, listener.shard->kernel_view()) && fd < process.files.size();
    if (sound && is_of_this_program(process.kernel, fd, name)) return 0;
    (void)process.kernel.close(fd);
  }
}

}  // namespace mtcp::intercept

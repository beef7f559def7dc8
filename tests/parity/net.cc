#include "tests/parity/net.hh"

#include <arpa/inet.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#include <cstdlib>
#include <ostream>

namespace parity {

std::ostream& operator<<(std::ostream& out, Errno e) {
  if (e.value == 0) return out << "success";
  const char* name = ::strerrorname_np(e.value);
  return out << (name != nullptr ? name : "?") << " (" << e.value << ")";
}

std::ostream& operator<<(std::ostream& out, const Address& a) {
  return out << '[' << a.host() << "]:" << a.port();
}

std::uint16_t Address::port() const {
  if (storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

std::string Address::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  const void* source = &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr;
  if (family() == AF_INET6) source = &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr;
  ::inet_ntop(family(), source, text, sizeof text);
  return text;
}

Address Address::with_port(std::uint16_t port) const {
  Address a = *this;
  if (family() == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(&a.storage)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(&a.storage)->sin_port = htons(port);
  }
  return a;
}

Address make_address(const std::string& host, std::uint16_t port) {
  Address a;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&a.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&a.storage);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    a.size = sizeof *v4;
  } else {
    REQUIRE(::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1);
    v6->sin6_family = AF_INET6;
    a.size = sizeof *v6;
  }
  return a.with_port(port);
}

Address server_address(int family, std::uint16_t port) {
  const char* host = std::getenv(family == AF_INET6 ? "MTCP_TEST_ADDRESS6" : "MTCP_TEST_ADDRESS");
  if (host == nullptr) host = family == AF_INET6 ? "::1" : "127.0.0.1";
  return make_address(host, port);
}

Address wildcard_address(int family, std::uint16_t port) {
  return make_address(family == AF_INET6 ? "::" : "0.0.0.0", port);
}

Address local_of(int fd) {
  Address a;
  a.size = sizeof a.storage;
  REQUIRE(error_of(::getsockname(fd, a.get(), &a.size)) == 0);
  return a;
}

Address peer_of(int fd) {
  Address a;
  a.size = sizeof a.storage;
  REQUIRE(error_of(::getpeername(fd, a.get(), &a.size)) == 0);
  return a;
}

Fd stream_socket(int family, int flags) {
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  REQUIRE(error_of(fd) == 0);
  return Fd(fd);
}

Fd bound_socket(int family) {
  Fd fd = stream_socket(family);
  const Address a = server_address(family);
  REQUIRE(error_of(::bind(fd, a.get(), a.size)) == 0);
  return fd;
}

Fd listener(int backlog, int family, int flags) {
  Fd fd = stream_socket(family, flags);
  const Address a = server_address(family);
  REQUIRE(error_of(::bind(fd, a.get(), a.size)) == 0);
  REQUIRE(error_of(::listen(fd, backlog)) == 0);
  return fd;
}

Fd connected_to(const Address& to) {
  Fd fd = stream_socket(to.family());
  REQUIRE(error_of(::connect(fd, to.get(), to.size)) == 0);
  return fd;
}

Fd accept_from(int listener, int flags) {
  REQUIRE(becomes(listener, POLLIN));
  const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | flags);
  REQUIRE(error_of(fd) == 0);
  return Fd(fd);
}

Pair connected_pair_via(int listener) {
  Pair pair;
  pair.client = connected_to(local_of(listener));
  pair.server = accept_from(listener);
  return pair;
}

Pair connected_pair(int family) {
  const Fd l = listener(16, family);
  return connected_pair_via(l);
}

Pair small_pair() {
  const Fd l = stream_socket();
  const Address a = server_address();
  set_option(l, SOL_SOCKET, SO_RCVBUF, 8192);
  set_option(l, SOL_SOCKET, SO_SNDBUF, 8192);
  REQUIRE(error_of(::bind(l, a.get(), a.size)) == 0);
  REQUIRE(error_of(::listen(l, 16)) == 0);
  Pair pair;
  pair.client = stream_socket();
  set_option(pair.client, SOL_SOCKET, SO_RCVBUF, 8192);
  set_option(pair.client, SOL_SOCKET, SO_SNDBUF, 8192);
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(pair.client, to.get(), to.size)) == 0);
  pair.server = accept_from(l);
  return pair;
}

void set_nonblocking(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  REQUIRE(error_of(flags) == 0);
  REQUIRE(error_of(::fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK)) == 0);
}

int poll_events(int fd, int events, milliseconds limit) {
  pollfd p{fd, static_cast<short>(events), 0};
  const int n = ::poll(&p, 1, static_cast<int>(limit.count()));
  REQUIRE(error_of(n) == 0);
  return p.revents;
}

bool becomes(int fd, int events, milliseconds limit) { return poll_events(fd, events, limit) != 0; }

LongInfo info_of(int fd) { return option<LongInfo>(fd, IPPROTO_TCP, TCP_INFO); }

int queued(int fd, unsigned long request) {
  int n = -1;
  REQUIRE(error_of(::ioctl(fd, request, &n)) == 0);
  return n;
}

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::string receive_exactly(int fd, std::size_t n) {
  std::string out(n, '\0');
  std::size_t got = 0;
  while (got < n) {
    const ssize_t r = ::recv(fd, out.data() + got, n - got, 0);
    if (r <= 0) break;
    got += static_cast<std::size_t>(r);
  }
  out.resize(got);
  return out;
}

std::string receive_until_end(int fd) {
  std::string out;
  char buffer[65536];
  for (ssize_t r = 0; (r = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
    out.append(buffer, static_cast<std::size_t>(r));
  return out;
}

std::size_t fill(int fd) {
  static const std::string block(65536, 'f');
  std::size_t total = 0;
  do {
    for (ssize_t n = 0; (n = ::send(fd, block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;) {
      total += static_cast<std::size_t>(n);
    }
  } while (becomes(fd, POLLOUT, milliseconds(60)));
  return total;
}

std::size_t drain(int fd) {
  char buffer[65536];
  std::size_t total = 0;
  while (becomes(fd, POLLIN, milliseconds(50))) {
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n <= 0) break;
    total += static_cast<std::size_t>(n);
  }
  return total;
}

std::string pattern(std::size_t n, unsigned seed) {
  std::string out(n, '\0');
  std::uint32_t x = seed * 2654435761U + 1;
  for (std::size_t i = 0; i < n; ++i) {
    x = x * 1664525U + 1013904223U;
    out[i] = static_cast<char>(x >> 24);
  }
  return out;
}

int wait_for_child(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

}  // namespace parity

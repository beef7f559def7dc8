// Calls over the life of a socket: bind, listen, accept, connect, shutdown, close, and whose it becomes.
#include <netinet/tcp.h>
#include <poll.h>

#include <catch2/catch.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "tests/intercept/bench.hh"
#include "tests/limit.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

int bind_to(Bench& b, int fd, const char* host, std::uint16_t port) {
  const sockaddr_in a = Bench::address(host, port);
  return b->bind(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a);
}

// A port of 127.0.0.1 where the kernel listens.
struct KernelListener {
  KernelListener() : fd(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in a = Bench::address("127.0.0.1", 0);
    ::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a);
    ::listen(fd, 8);
    socklen_t n = sizeof a;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n);
    port = ntohs(a.sin_port);
  }
  ~KernelListener() { ::close(fd); }
  int fd;
  std::uint16_t port = 0;
};

}  // namespace

TEST_CASE("bind lets the kernel judge: port 0, EADDRINUSE, EADDRNOTAVAIL, twice") {
  Bench b;
  const int fd = b.tcp();
  REQUIRE(bind_to(b, fd, kOwn, 0) == 0);
  const auto port = b.port_of(fd);
  CHECK(port != 0);
  CHECK(bind_to(b, fd, kOwn, 0) == -EINVAL);
  CHECK(bind_to(b, b.tcp(), kOwn, port) == -EADDRINUSE);
  CHECK(bind_to(b, b.tcp(), "10.77.0.9", 0) == -EADDRNOTAVAIL);  // on the stack's network, but nobody's
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  CHECK(b->bind(b.tcp(), reinterpret_cast<sockaddr*>(&six), sizeof six) == -EAFNOSUPPORT);
  CHECK(b->bind(b.tcp(), reinterpret_cast<sockaddr*>(&six), 3) == -EINVAL);
}

TEST_CASE("SO_REUSEPORT set before bind lets two sockets have one port") {
  Bench b;
  const int one = b.tcp(), two = b.tcp();
  REQUIRE(b.set(one, SOL_SOCKET, SO_REUSEPORT, 1) == 0);
  REQUIRE(b.set(two, SOL_SOCKET, SO_REUSEPORT, 1) == 0);
  REQUIRE(bind_to(b, one, kOwn, 0) == 0);
  CHECK(bind_to(b, two, kOwn, b.port_of(one)) == 0);
  CHECK(b->listen(one, 1) == 0);
  CHECK(b->listen(two, 1) == 0);
}

TEST_CASE("two listeners cannot have one port even when both could bind it") {
  Bench b;
  const int one = b.tcp(), two = b.tcp();
  REQUIRE(b.set(one, SOL_SOCKET, SO_REUSEADDR, 1) == 0);
  REQUIRE(b.set(two, SOL_SOCKET, SO_REUSEADDR, 1) == 0);
  REQUIRE(bind_to(b, one, kOwn, 0) == 0);
  REQUIRE(bind_to(b, two, kOwn, b.port_of(one)) == 0);
  CHECK(b->listen(one, 1) == 0);
  CHECK(b->listen(two, 1) == -EADDRINUSE);
}

TEST_CASE("listening on an address of the stack does not start it") {
  Bench b;
  REQUIRE(b.listener() >= 0);
  CHECK_FALSE(b->started());
}

TEST_CASE("listen without bind takes a port, and again only changes the backlog") {
  Bench b;
  const int fd = b.tcp();
  REQUIRE(b->listen(fd, 5) == 0);
  CHECK(b.port_of(fd) != 0);
  CHECK(b->listen(fd, 7) == 0);
  CHECK(b.get(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1);
}

TEST_CASE("listen on a connected socket is EINVAL") {
  Bench b;
  const auto p = b.pair();
  CHECK(b->listen(p.client, 1) == -EINVAL);
  CHECK(b->accept4(p.client, nullptr, nullptr, 0) == -EINVAL);
}

TEST_CASE("a listener on an address of the kernel becomes the kernel's, flags and options included") {
  Bench b;
  const int fd = b.tcp(SOCK_NONBLOCK);
  REQUIRE(b.set(fd, SOL_SOCKET, SO_REUSEADDR, 1) == 0);
  REQUIRE(b.set(fd, IPPROTO_TCP, TCP_NODELAY, 1) == 0);
  REQUIRE(bind_to(b, fd, "127.0.0.1", 0) == 0);
  REQUIRE(b->listen(fd, 5) == 0);
  CHECK(b.table.kind(fd) == FdKind::kernel);
  CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  CHECK(::fcntl(fd, F_GETFD) == 0);
  int value = 0;
  socklen_t n = sizeof value;
  REQUIRE(::getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &n) == 0);
  CHECK(value == 1);
  CHECK(::accept(fd, nullptr, nullptr) == -1);
  CHECK(errno == EAGAIN);
  ::close(fd);
}

TEST_CASE("a wildcard listener is served by both sides") {
  Bench b;
  const int fd = b.tcp(SOCK_NONBLOCK);
  REQUIRE(bind_to(b, fd, "0.0.0.0", 0) == 0);
  REQUIRE(b->listen(fd, 5) == 0);
  const auto port = b.port_of(fd);
  // The kernel's side: a plain socket over the real loopback.
  const int plain = ::socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in a = Bench::address("127.0.0.1", port);
  REQUIRE(::connect(plain, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0);
  const int from_kernel = b->accept4(fd, nullptr, nullptr, 0);
  REQUIRE(from_kernel >= 0);
  CHECK(b.table.kind(from_kernel) == FdKind::kernel);
  // The stack's.
  const int client = b.tcp(SOCK_NONBLOCK);
  REQUIRE(b.connect(client, kOwn, port) == -EINPROGRESS);
  b.settle();
  const int from_stack = b->accept4(fd, nullptr, nullptr, 0);
  REQUIRE(from_stack >= 0);
  CHECK(b.table.kind(from_stack) == FdKind::socket);
  CHECK(b->accept4(fd, nullptr, nullptr, 0) == -EAGAIN);
  ::close(plain);
  ::close(from_kernel);
}

TEST_CASE("connect to what the stack does not reach is the kernel's") {
  Bench b;
  const KernelListener k;
  const int fd = b.tcp();
  REQUIRE(b.connect(fd, "127.0.0.1", k.port) == 0);
  CHECK(b.table.kind(fd) == FdKind::kernel);
  CHECK_FALSE(b->started());
  ::close(fd);
}

TEST_CASE("a socket bound to a kernel device is the kernel's whatever it connects to") {
  Bench b;
  const int fd = b.tcp(SOCK_NONBLOCK);
  if (b->setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) != 0) return;  // not permitted here
  (void)b.connect(fd, kOwn, 9);
  CHECK(b.table.kind(fd) == FdKind::kernel);
  ::close(fd);
}

TEST_CASE("a blocking connect and accept meet over the loopback wire, with the right names") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(p.server >= 0);
  sockaddr_in a{};
  socklen_t n = sizeof a;
  REQUIRE(b->getpeername(p.client, reinterpret_cast<sockaddr*>(&a), &n) == 0);
  CHECK(ntohs(a.sin_port) == b.port);
  n = sizeof a;
  REQUIRE(b->getpeername(p.server, reinterpret_cast<sockaddr*>(&a), &n) == 0);
  CHECK(ntohs(a.sin_port) == b.port_of(p.client));
  CHECK(b.port_of(p.server) == b.port);
}

TEST_CASE("accept4 fills in the peer's address and truncates it as the kernel does") {
  Bench b;
  const int l = b.listener();
  const int c = b.tcp();
  REQUIRE(b.connect(c, kOwn, b.port) == 0);
  sockaddr_in a{};
  socklen_t n = 4;
  REQUIRE(b->accept4(l, reinterpret_cast<sockaddr*>(&a), &n, SOCK_CLOEXEC) >= 0);
  CHECK(n == sizeof a);
  CHECK(ntohs(a.sin_port) == b.port_of(c));
  CHECK(a.sin_addr.s_addr == 0);
  CHECK(b->accept4(l, nullptr, nullptr, 1) == -EINVAL);
}

TEST_CASE("accept4 sets flags itself and does not inherit O_NONBLOCK") {
  Bench b;
  const int l = b.listener(SOCK_NONBLOCK);
  for (const int flags : {0, SOCK_NONBLOCK | SOCK_CLOEXEC}) {
    const int c = b.tcp(SOCK_NONBLOCK);
    REQUIRE(b.connect(c, kOwn, b.port) == -EINPROGRESS);
    b.settle();
    const int s = b->accept4(l, nullptr, nullptr, flags);
    REQUIRE(s >= 0);
    CHECK(((b->fcntl(s, F_GETFL, 0) & O_NONBLOCK) != 0) == (flags != 0));
    CHECK(b->fcntl(s, F_GETFD, 0) == (flags != 0 ? FD_CLOEXEC : 0));
  }
}

TEST_CASE("accept inherits the options of its listener") {
  Bench b;
  const int l = b.tcp();
  REQUIRE(b.set(l, IPPROTO_TCP, TCP_NODELAY, 1) == 0);
  REQUIRE(b.set(l, SOL_SOCKET, SO_KEEPALIVE, 1) == 0);
  REQUIRE(bind_to(b, l, kOwn, 0) == 0);
  REQUIRE(b->listen(l, 5) == 0);
  const int c = b.tcp();
  REQUIRE(b.connect(c, kOwn, b.port_of(l)) == 0);
  const int s = b->accept4(l, nullptr, nullptr, 0);
  CHECK(b.get(s, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(b.get(s, SOL_SOCKET, SO_KEEPALIVE) == 1);
}

TEST_CASE("a nonblocking accept that is called in a loop makes progress by itself") {
  Bench b;
  const int l = b.listener(SOCK_NONBLOCK);
  const int c = b.tcp(SOCK_NONBLOCK);
  REQUIRE(b.connect(c, kOwn, b.port) == -EINPROGRESS);
  int s = -EAGAIN;
  for (int i = 0; i < 20 && s == -EAGAIN; ++i) s = b->accept4(l, nullptr, nullptr, 0);
  CHECK(s >= 0);
}

TEST_CASE("SO_RCVTIMEO bounds accept") {
  Bench b;
  const int l = b.listener();
  const timeval t{.tv_sec = 0, .tv_usec = 20000};
  REQUIRE(b->setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0);
  CHECK(b->accept4(l, nullptr, nullptr, 0) == -EAGAIN);
}

TEST_CASE("a nonblocking connect says EINPROGRESS, 0 once, and then EISCONN") {
  Bench b;
  b.listener();
  const int c = b.tcp(SOCK_NONBLOCK);
  CHECK(b.connect(c, kOwn, b.port) == -EINPROGRESS);
  CHECK(b.get(c, SOL_SOCKET, SO_ERROR) == 0);
  CHECK(b.connect(c, kOwn, b.port) == 0);
  CHECK(b.connect(c, kOwn, b.port) == -EISCONN);
}

TEST_CASE("a refused connect is ECONNREFUSED, and the socket can be used again") {
  Bench b;
  const int l = b.listener();
  const auto port = b.port;
  const int c = b.tcp();
  REQUIRE(b->close(l) == 0);
  CHECK(b.connect(c, kOwn, port) == -ECONNREFUSED);
  b.listener();
  CHECK(b.connect(c, kOwn, b.port) == 0);
}

TEST_CASE("a refused nonblocking connect tells SO_ERROR once, and then connect says ECONNABORTED") {
  Bench b;
  const int l = b.listener();
  const auto port = b.port;
  REQUIRE(b->close(l) == 0);
  const int c = b.tcp(SOCK_NONBLOCK);
  REQUIRE(b.connect(c, kOwn, port) == -EINPROGRESS);
  b.settle();
  CHECK(b.get(c, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
  CHECK(b.get(c, SOL_SOCKET, SO_ERROR) == 0);
  CHECK(b.connect(c, kOwn, port) == -ECONNABORTED);
  CHECK(b.connect(c, kOwn, port) == -EINPROGRESS);
}

TEST_CASE("connect judges its address like the kernel") {
  Bench b;
  const int fd = b.tcp();
  sockaddr_in a = Bench::address(kOwn, 80);
  CHECK(b->connect(fd, reinterpret_cast<sockaddr*>(&a), 1) == -EINVAL);
  CHECK(b->connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a - 1) == -EINVAL);
  CHECK(b->connect(fd, nullptr, sizeof a) == -EFAULT);
  a.sin_family = AF_INET6;
  CHECK(b->connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == -EAFNOSUPPORT);
}

TEST_CASE("connect with AF_UNSPEC dissolves a connection, and the socket can connect again") {
  Bench b;
  const auto p = b.pair();
  const sockaddr none{.sa_family = AF_UNSPEC, .sa_data = {}};
  REQUIRE(b->connect(p.client, &none, sizeof none) == 0);
  sockaddr_in a{};
  socklen_t n = sizeof a;
  CHECK(b->getpeername(p.client, reinterpret_cast<sockaddr*>(&a), &n) == -ENOTCONN);
  b.settle();
  CHECK(b.recv(p.server) == "error " + std::to_string(ECONNRESET));
  CHECK(b.connect(p.client, kOwn, b.port) == 0);
}

TEST_CASE("shutdown of what is not connected is ENOTCONN, of a connection a half-close") {
  Bench b;
  const auto p = b.pair();
  CHECK(b->shutdown(b.tcp(), SHUT_RDWR) == -ENOTCONN);
  CHECK(b->shutdown(p.client, 3) == -EINVAL);
  REQUIRE(b->shutdown(p.client, SHUT_WR) == 0);
  CHECK(b.send(p.client, "x") == -EPIPE);
  b.settle();
  CHECK(b.recv(p.server).empty());
  REQUIRE(b.send(p.server, "the other way") == 13);
  b.settle();
  CHECK(b.recv(p.client) == "the other way");
}

TEST_CASE("shutdown for reading makes reads end") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(b->shutdown(p.server, SHUT_RD) == 0);
  CHECK(b.recv(p.server).empty());
}

TEST_CASE("shutdown of a listener stops it and wakes who waits in accept") {
  Bench b;
  const int l = b.listener();
  int result = 0;
  std::thread waiting([&] { result = b->accept4(l, nullptr, nullptr, 0); });
  while (b->first().sleepers.empty()) std::this_thread::yield();
  REQUIRE(b->shutdown(l, SHUT_RDWR) == 0);
  waiting.join();
  CHECK(result == -EINVAL);
  CHECK(b.get(l, SOL_SOCKET, SO_ACCEPTCONN) == 0);
  const int c = b.tcp();
  CHECK(b.connect(c, kOwn, b.port) == -ECONNREFUSED);
  CHECK(b->listen(l, 4) == 0);
}

TEST_CASE("closing a listener resets what has not been accepted") {
  Bench b;
  const int l = b.listener();
  const int c = b.tcp();
  REQUIRE(b.connect(c, kOwn, b.port) == 0);
  REQUIRE(b->close(l) == 0);
  b.settle();
  CHECK(b.recv(c) == "error " + std::to_string(ECONNRESET));
}

TEST_CASE("close with unread data resets, and so does SO_LINGER with no time") {
  Bench b;
  auto p = b.pair();
  REQUIRE(b.send(p.client, "unread") == 6);
  b.settle();
  REQUIRE(b->close(p.server) == 0);
  b.settle();
  CHECK(b.recv(p.client) == "error " + std::to_string(ECONNRESET));
  p = b.pair();
  const linger l{.l_onoff = 1, .l_linger = 0};
  REQUIRE(b->setsockopt(p.server, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
  REQUIRE(b->close(p.server) == 0);
  b.settle();
  CHECK(b.recv(p.client) == "error " + std::to_string(ECONNRESET));
}

TEST_CASE("close with SO_LINGER returns when the peer has everything") {
  Bench b;
  const auto p = b.pair();
  const linger l{.l_onoff = 1, .l_linger = 5};
  REQUIRE(b->setsockopt(p.client, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
  REQUIRE(b.send(p.client, "all of it") == 9);
  REQUIRE(b->close(p.client) == 0);
  CHECK(b.recv(p.server) == "all of it");
  CHECK(b.recv(p.server).empty());
}

TEST_CASE("a call on a descriptor that is not ours is EBADF") {
  Bench b;
  CHECK(b->listen(999, 1) == -EBADF);
  CHECK(b->close(999) == -EBADF);
  CHECK(b.recv(999) == "error " + std::to_string(EBADF));
}

TEST_CASE("an AF_INET6 socket without V6ONLY accepts IPv4 and names it as mapped") {
  Bench b;
  const int l = b.tcp(0, AF_INET6);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  if (b->bind(l, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0) return;  // a kernel without IPv6
  REQUIRE(b->listen(l, 4) == 0);
  socklen_t n = sizeof any;
  REQUIRE(b->getsockname(l, reinterpret_cast<sockaddr*>(&any), &n) == 0);
  const int c = b.tcp();
  REQUIRE(b.connect(c, kOwn, ntohs(any.sin6_port)) == 0);
  sockaddr_in6 peer{};
  n = sizeof peer;
  REQUIRE(b->accept4(l, reinterpret_cast<sockaddr*>(&peer), &n, 0) >= 0);
  CHECK(n == sizeof peer);
  CHECK(IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
}

#ifndef __SANITIZE_ADDRESS__  // which ends the program where memory is short
TEST_CASE("a poll of more descriptors than there is memory for is ENOMEM") {
  Bench b;
  const int fd = b.tcp();
  std::vector<pollfd> fds(1 << 20, pollfd{fd, POLLIN, 0});
  const timespec zero{};
  const auto [many, one] = mtcp::test::with_limit(RLIMIT_AS, 1, [&] {
    const int refused = b->poll(fds.data(), fds.size(), &zero, nullptr);
    return std::pair(refused, b->poll(fds.data(), 1, &zero, nullptr));
  });
  CHECK(many == -ENOMEM);
  CHECK(one == 1);
  CHECK(b->poll(fds.data(), fds.size(), &zero, nullptr) == static_cast<int>(fds.size()));
}
#endif

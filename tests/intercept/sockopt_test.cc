#include <linux/tcp.h>

#include <catch2/catch.hpp>

#include "intercept/descriptors/holders.hh"
#include "tests/intercept/bench.hh"
#include "tests/intercept/wired_device.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

TEST_CASE("options of an int read back as they were set") {
  Bench b;
  struct Case {
    int level, name, value, reads;
  };
  const Case cases[] = {
      {SOL_SOCKET, SO_REUSEADDR, 1, 1},
      {SOL_SOCKET, SO_REUSEPORT, 1, 1},
      {SOL_SOCKET, SO_KEEPALIVE, 1, 1},
      {SOL_SOCKET, SO_OOBINLINE, 1, 1},
      {SOL_SOCKET, SO_RCVLOWAT, 5, 5},
      {SOL_SOCKET, SO_RCVLOWAT, 0, 1},
      {SOL_SOCKET, SO_RCVBUF, 50000, 100000},
      {SOL_SOCKET, SO_RCVBUF, 1, 2304},
      {SOL_SOCKET, SO_SNDBUF, 50000, 100000},
      {SOL_SOCKET, SO_SNDBUF, 1, 4608},
      {IPPROTO_TCP, TCP_NODELAY, 5, 1},
      {IPPROTO_TCP, TCP_CORK, 1, 1},
      {IPPROTO_TCP, TCP_MAXSEG, 1000, 1000},
      {IPPROTO_TCP, TCP_KEEPIDLE, 7, 7},
      {IPPROTO_TCP, TCP_KEEPINTVL, 8, 8},
      {IPPROTO_TCP, TCP_KEEPCNT, 9, 9},
      {IPPROTO_TCP, TCP_SYNCNT, 3, 3},
      {IPPROTO_TCP, TCP_LINGER2, 10, 10},
      {IPPROTO_TCP, TCP_LINGER2, -5, -1},
      {IPPROTO_TCP, TCP_DEFER_ACCEPT, 1, 1},
      {IPPROTO_TCP, TCP_DEFER_ACCEPT, 5, 7},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, 1500, 1500},
      {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1, 1},
      {IPPROTO_TCP, TCP_QUICKACK, 0, 0},
      {IPPROTO_TCP, TCP_WINDOW_CLAMP, 9999, 9999},
      {IPPROTO_IP, IP_TOS, 0x13, 0x10},
      {IPPROTO_IP, IP_TTL, 33, 33},
      {IPPROTO_IP, IP_TTL, -1, 64},
  };
  for (const auto& c : cases) {
    INFO("level " << c.level << " name " << c.name << " value " << c.value);
    // The kernel agrees, or this table is wrong.
    const int plain = ::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(::setsockopt(plain, c.level, c.name, &c.value, sizeof c.value) == 0);
    int kernel_reads = 0;
    socklen_t n = sizeof kernel_reads;
    REQUIRE(::getsockopt(plain, c.level, c.name, &kernel_reads, &n) == 0);
    ::close(plain);
    const int fd = b.tcp();
    CHECK(b.set(fd, c.level, c.name, c.value) == 0);
    CHECK(b.get(fd, c.level, c.name) == c.reads);
    if (c.name != TCP_MAXSEG) CHECK(kernel_reads == c.reads);
  }
}

TEST_CASE("values out of range are refused as the kernel refuses them") {
  Bench b;
  struct Case {
    int level, name, value;
  };
  const Case cases[] = {
      {IPPROTO_TCP, TCP_MAXSEG, 10},
      {IPPROTO_TCP, TCP_MAXSEG, 40000},
      {IPPROTO_TCP, TCP_KEEPIDLE, 0},
      {IPPROTO_TCP, TCP_KEEPIDLE, 32768},
      {IPPROTO_TCP, TCP_KEEPINTVL, 0},
      {IPPROTO_TCP, TCP_KEEPCNT, 128},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, -1},
      {IPPROTO_TCP, TCP_SYNCNT, 0},
      {SOL_SOCKET, SO_TYPE, 1},
      {SOL_SOCKET, SO_ERROR, 1},
      {SOL_SOCKET, SO_ACCEPTCONN, 1},
      {SOL_SOCKET, SO_SNDLOWAT, 1},
      {IPPROTO_IP, IP_TTL, 0},
      {IPPROTO_IP, IP_TTL, 256},
      {SOL_SOCKET, 9999, 1},
      {IPPROTO_TCP, 9999, 1},
      {1234, 1, 1},
  };
  for (const auto& c : cases) {
    INFO("level " << c.level << " name " << c.name << " value " << c.value);
    const int plain = ::socket(AF_INET, SOCK_STREAM, 0);
    const int refused = ::setsockopt(plain, c.level, c.name, &c.value, sizeof c.value) == 0 ? 0 : -errno;
    ::close(plain);
    REQUIRE(refused != 0);
    CHECK(b.set(b.tcp(), c.level, c.name, c.value) == refused);
  }
}

TEST_CASE("defaults are those of the kernel where they do not depend on the configuration") {
  Bench b;
  const int plain = ::socket(AF_INET, SOCK_STREAM, 0);
  const int fd = b.tcp();
  const std::pair<int, int> options[] = {
      {SOL_SOCKET, SO_TYPE},
      {SOL_SOCKET, SO_DOMAIN},
      {SOL_SOCKET, SO_PROTOCOL},
      {SOL_SOCKET, SO_ACCEPTCONN},
      {SOL_SOCKET, SO_ERROR},
      {SOL_SOCKET, SO_REUSEADDR},
      {SOL_SOCKET, SO_KEEPALIVE},
      {SOL_SOCKET, SO_RCVLOWAT},
      {SOL_SOCKET, SO_SNDLOWAT},
      {SOL_SOCKET, SO_OOBINLINE},
      {IPPROTO_TCP, TCP_NODELAY},
      {IPPROTO_TCP, TCP_CORK},
      {IPPROTO_TCP, TCP_QUICKACK},
      {IPPROTO_TCP, TCP_KEEPIDLE},
      {IPPROTO_TCP, TCP_KEEPCNT},
      {IPPROTO_TCP, TCP_KEEPINTVL},
      {IPPROTO_TCP, TCP_SYNCNT},
      {IPPROTO_TCP, TCP_LINGER2},
      {IPPROTO_TCP, TCP_MAXSEG},
      {IPPROTO_TCP, TCP_DEFER_ACCEPT},
      {IPPROTO_TCP, TCP_USER_TIMEOUT},
      {IPPROTO_IP, IP_TOS},
      {IPPROTO_IP, IP_TTL},
      {IPPROTO_IP, IP_FREEBIND},
  };
  for (const auto& [level, name] : options) {
    INFO("level " << level << " name " << name);
    int expected = 0;
    socklen_t n = sizeof expected;
    REQUIRE(::getsockopt(plain, level, name, &expected, &n) == 0);
    CHECK(b.get(fd, level, name) == expected);
  }
  ::close(plain);
}

TEST_CASE("lengths are checked and truncated like the kernel's") {
  Bench b;
  const int fd = b.tcp();
  const int one = 1;
  CHECK(b->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, 3) == -EINVAL);
  CHECK(b->setsockopt(fd, SOL_SOCKET, SO_LINGER, &one, 4) == -EINVAL);
  CHECK(b->setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &one, 4) == -EINVAL);
  CHECK(b->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, nullptr, 4) == -EFAULT);
  int value = 0x55555555;
  socklen_t n = 1;
  REQUIRE(b->getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &n) == 0);
  CHECK(n == 1);
  CHECK(value == 0x55555501);
  n = static_cast<socklen_t>(-1);
  CHECK(b->getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &n) == -EINVAL);
  CHECK(b->getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, nullptr) == -EFAULT);
}

TEST_CASE("timeouts and linger are structures") {
  Bench b;
  const int fd = b.tcp();
  timeval t{.tv_sec = 1, .tv_usec = 500000};
  REQUIRE(b->setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) == 0);
  timeval got{};
  socklen_t n = sizeof got;
  REQUIRE(b->getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &got, &n) == 0);
  CHECK(n == sizeof got);
  CHECK(got.tv_sec == 1);
  CHECK(got.tv_usec == 500000);
  t.tv_usec = 1000000;
  CHECK(b->setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) == -EDOM);
  const linger l{.l_onoff = 1, .l_linger = 3};
  REQUIRE(b->setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
  linger back{};
  n = sizeof back;
  REQUIRE(b->getsockopt(fd, SOL_SOCKET, SO_LINGER, &back, &n) == 0);
  CHECK(back.l_onoff == 1);
  CHECK(back.l_linger == 3);
}

TEST_CASE("congestion control is chosen by name, and one that there is not is ENOENT") {
  Bench b;
  const int fd = b.tcp();
  char name[16];
  socklen_t n = sizeof name;
  REQUIRE(b->getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n) == 0);
  CHECK(std::string(name) == "cubic");
  CHECK(n == 16);
  CHECK(b->setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
  REQUIRE(b->getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n) == 0);
  CHECK(std::string(name) == "reno");
  CHECK(b->setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "newreno", 8) == -ENOENT);
  REQUIRE(b->getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n) == 0);
  CHECK(std::string(name) == "reno");
}

TEST_CASE("TCP_INFO tells state and counters, as much as there is room for") {
  Bench b;
  const auto p = b.pair();
  tcp_info info{};
  socklen_t n = sizeof info;
  REQUIRE(b->getsockopt(p.client, IPPROTO_TCP, TCP_INFO, &info, &n) == 0);
  CHECK(n == sizeof info);
  CHECK(info.tcpi_state == 1);
  CHECK(info.tcpi_snd_cwnd >= 10);
  CHECK(info.tcpi_snd_mss > 500);
  n = 1;
  info.tcpi_ca_state = 77;
  REQUIRE(b->getsockopt(p.listener, IPPROTO_TCP, TCP_INFO, &info, &n) == 0);
  CHECK(info.tcpi_state == 10);
  CHECK(info.tcpi_ca_state == 77);
  n = sizeof info;
  REQUIRE(b->getsockopt(b.tcp(), IPPROTO_TCP, TCP_INFO, &info, &n) == 0);
  CHECK(info.tcpi_state == 7);
}

TEST_CASE("what the stack cannot do is refused instead of pretended") {
  Bench b;
  const auto p = b.pair();
  CHECK(b.set(b.tcp(), IPPROTO_TCP, TCP_ULP, 5) == -ENOPROTOOPT);
  CHECK(b.set(p.client, IPPROTO_IPV6, IPV6_TCLASS, 5) == -ENOPROTOOPT);
}

TEST_CASE("an option that was changed on a connection reaches it") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  REQUIRE(b.set(p.client, IPPROTO_TCP, TCP_CORK, 1) == 0);
  REQUIRE(b.send(p.client, "held back") == 9);
  b.settle();
  CHECK(b.recv(p.server) == "error " + std::to_string(EAGAIN));
  REQUIRE(b.set(p.client, IPPROTO_TCP, TCP_CORK, 0) == 0);
  b.settle();
  CHECK(b.recv(p.server) == "held back");
}

TEST_CASE("setting options before connect makes no system call") {
  Bench b;
  b->close(b.tcp());
  const int before = b.kernel.total();
  const int fd = b.tcp();
  REQUIRE(b.set(fd, IPPROTO_TCP, TCP_NODELAY, 1) == 0);
  REQUIRE(b.set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) == 0);
  REQUIRE(b.set(fd, SOL_SOCKET, SO_RCVBUF, 65536) == 0);
  REQUIRE(b->close(fd) == 0);
  CHECK(b.kernel.total() == before);
}

TEST_CASE(
    "a listener on the wildcard address is known to be the stack's, whatever its program sets IP_FREEBIND "
    "to") {
  TestWire wire;
  Options o = Bench::default_options();
  o.device.port = "wire0";
  Bench b(o, &TestWire::open);
  const int fd = b.tcp();
  const sockaddr_in any = Bench::address("0.0.0.0", 0);
  REQUIRE(b->bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
  REQUIRE(b->listen(fd, 4) == 0);
  const stack::Endpoint at{stack::IpAddress::v4(10, 77, 0, 1), b.port_of(fd)};
  CHECK(b.get(fd, IPPROTO_IP, IP_FREEBIND) == 0);
  for (const int value : {0, 1, 0}) {
    REQUIRE(b.set(fd, IPPROTO_IP, IP_FREEBIND, value) == 0);
    CHECK(b.get(fd, IPPROTO_IP, IP_FREEBIND) == value);
    CHECK(is_listener_of_stack(b.kernel, at));
  }
  REQUIRE(b->shutdown(fd, SHUT_RD) == 0);
  int in_kernel = 1;
  socklen_t n = sizeof in_kernel;
  REQUIRE(b.kernel.getsockopt(fd, IPPROTO_IP, IP_FREEBIND, &in_kernel, &n) == 0);
  CHECK(in_kernel == 0);
}

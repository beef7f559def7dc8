// getsockopt() and setsockopt(): the options of SOL_SOCKET and the calls' own rules.
#include <sys/time.h>

#include <cstring>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("option: SO_TYPE, SO_DOMAIN and SO_PROTOCOL say what the socket is", "[sockopt]") {
  const Pair pair = connected_pair();
  const Fd l = listener();
  const Fd v6 = stream_socket(AF_INET6);
  for (const int fd : {int(pair.client), int(pair.server), int(l), int(v6)}) {
    REQUIRE(option(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
    REQUIRE(option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
    REQUIRE(option(fd, SOL_SOCKET, SO_DOMAIN) == (fd == v6 ? AF_INET6 : AF_INET));
  }
}

TEST_CASE("option: what says what the socket is cannot be set", "[sockopt]") {
  const Fd fd = stream_socket();
  const int one = 1;
  for (const int name : {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_ACCEPTCONN}) {
    REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, name, &one, sizeof one)) == ENOPROTOOPT);
  }
}

TEST_CASE("option: SO_ERROR of a healthy socket is 0", "[sockopt]") {
  const Pair pair = connected_pair();
  const Fd l = listener();
  for (const int fd : {int(pair.client), int(pair.server), int(l)})
    REQUIRE(option(fd, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("option: switches of SOL_SOCKET are off at first, and go on and off", "[sockopt]") {
  const Fd fd = stream_socket();
  for (const int name :
       {SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE, SO_BROADCAST, SO_DONTROUTE, SO_OOBINLINE}) {
    CAPTURE(name);
    REQUIRE(option(fd, SOL_SOCKET, name) == 0);
    set_option(fd, SOL_SOCKET, name, 1);
    REQUIRE(option(fd, SOL_SOCKET, name) == 1);
    set_option(fd, SOL_SOCKET, name, 0);
    REQUIRE(option(fd, SOL_SOCKET, name) == 0);
  }
}

TEST_CASE("option: any value but 0 switches on", "[sockopt]") {
  const Fd fd = stream_socket();
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 42);
  REQUIRE(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 7);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
}

TEST_CASE("option: switches work on a live connection too", "[sockopt]") {
  const Pair pair = connected_pair();
  for (const int fd : {int(pair.client), int(pair.server)}) {
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    REQUIRE(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    REQUIRE(option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    REQUIRE(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
  }
}

TEST_CASE("option: set before connect or listen is kept after it", "[sockopt]") {
  const Fd l = stream_socket();
  set_option(l, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
  const Address any = server_address();
  REQUIRE(::bind(l, any.get(), any.size) == 0);
  REQUIRE(::listen(l, 4) == 0);
  REQUIRE(option(l, SOL_SOCKET, SO_REUSEADDR) == 1);
  REQUIRE(option(l, SOL_SOCKET, SO_KEEPALIVE) == 1);
  const Fd client = stream_socket();
  set_option(client, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(client, IPPROTO_TCP, TCP_KEEPIDLE, 33);
  const Address to = local_of(l);
  REQUIRE(::connect(client, to.get(), to.size) == 0);
  REQUIRE(option(client, IPPROTO_TCP, TCP_NODELAY) == 1);
  REQUIRE(option(client, IPPROTO_TCP, TCP_KEEPIDLE) == 33);
}

TEST_CASE("option: SO_SNDBUF and SO_RCVBUF answer twice what was asked", "[sockopt]") {
  const Fd fd = stream_socket();
  const Pair pair = connected_pair();
  for (const int each : {int(fd), int(pair.client), int(pair.server)}) {
    set_option(each, SOL_SOCKET, SO_SNDBUF, 30000);
    set_option(each, SOL_SOCKET, SO_RCVBUF, 20000);
    REQUIRE(option(each, SOL_SOCKET, SO_SNDBUF) == 60000);
    REQUIRE(option(each, SOL_SOCKET, SO_RCVBUF) == 40000);
  }
}

TEST_CASE("option: a tiny buffer size is raised to a minimum", "[sockopt]") {
  const Fd fd = stream_socket();
  set_option(fd, SOL_SOCKET, SO_SNDBUF, 1);
  set_option(fd, SOL_SOCKET, SO_RCVBUF, 1);
  REQUIRE(option(fd, SOL_SOCKET, SO_SNDBUF) >= 2048);
  REQUIRE(option(fd, SOL_SOCKET, SO_RCVBUF) >= 2048);
}

TEST_CASE("option: a huge buffer size is cut and not refused", "[sockopt]") {
  const Fd fd = stream_socket();
  set_option(fd, SOL_SOCKET, SO_SNDBUF, 1 << 30);
  set_option(fd, SOL_SOCKET, SO_RCVBUF, 1 << 30);
  REQUIRE(option(fd, SOL_SOCKET, SO_SNDBUF) < 1 << 30);
  REQUIRE(option(fd, SOL_SOCKET, SO_RCVBUF) < 1 << 30);
}

TEST_CASE("option: buffers have a size that nobody set", "[sockopt]") {
  const Pair pair = connected_pair();
  for (const int fd : {int(pair.client), int(pair.server)}) {
    REQUIRE(option(fd, SOL_SOCKET, SO_SNDBUF) >= 4096);
    REQUIRE(option(fd, SOL_SOCKET, SO_RCVBUF) >= 4096);
  }
}

TEST_CASE("option: SO_RCVBUF limits what a peer can queue", "[sockopt]") {
  const Pair pair = small_pair();
  const std::size_t queued = fill(pair.client);
  REQUIRE(queued > 4096);
  REQUIRE(queued < 400000);
}

TEST_CASE("option: SO_LINGER is kept as it was set", "[sockopt]") {
  const Fd fd = stream_socket();
  REQUIRE(option<linger>(fd, SOL_SOCKET, SO_LINGER).l_onoff == 0);
  set_option(fd, SOL_SOCKET, SO_LINGER, linger{1, 12});
  const auto got = option<linger>(fd, SOL_SOCKET, SO_LINGER);
  REQUIRE(got.l_onoff == 1);
  REQUIRE(got.l_linger == 12);
}

TEST_CASE("option: SO_RCVTIMEO and SO_SNDTIMEO are kept as they were set", "[sockopt]") {
  const Fd fd = stream_socket();
  for (const int name : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    REQUIRE(option<timeval>(fd, SOL_SOCKET, name).tv_sec == 0);
    set_option(fd, SOL_SOCKET, name, timeval{3, 500000});
    const auto got = option<timeval>(fd, SOL_SOCKET, name);
    REQUIRE(got.tv_sec == 3);
    REQUIRE(got.tv_usec == 500000);
  }
}

TEST_CASE("option: a timeout with too many microseconds is EDOM", "[sockopt]") {
  const Fd fd = stream_socket();
  const timeval bad{1, 1000000};
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bad, sizeof bad)) == EDOM);
}

TEST_CASE("option: SO_RCVLOWAT is 1 at first and is kept", "[sockopt]") {
  const Fd fd = stream_socket();
  REQUIRE(option(fd, SOL_SOCKET, SO_RCVLOWAT) == 1);
  set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 64);
  REQUIRE(option(fd, SOL_SOCKET, SO_RCVLOWAT) == 64);
}

TEST_CASE("option: SO_SNDLOWAT cannot be set", "[sockopt]") {
  const Fd fd = stream_socket();
  const int value = 100;
  REQUIRE(option(fd, SOL_SOCKET, SO_SNDLOWAT) == 1);
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, SO_SNDLOWAT, &value, sizeof value)) == ENOPROTOOPT);
}

TEST_CASE("option: SO_PRIORITY is kept", "[sockopt]") {
  const Fd fd = stream_socket();
  set_option(fd, SOL_SOCKET, SO_PRIORITY, 4);
  REQUIRE(option(fd, SOL_SOCKET, SO_PRIORITY) == 4);
}

TEST_CASE("option: an unknown option or level fails as Linux says", "[sockopt]") {
  const Fd fd = stream_socket();
  int value = 1;
  socklen_t size = sizeof value;
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, 9999, &value, size)) == ENOPROTOOPT);
  REQUIRE(error_of(::getsockopt(fd, SOL_SOCKET, 9999, &value, &size)) == ENOPROTOOPT);
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, 9999, &value, size)) == ENOPROTOOPT);
  REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, 9999, &value, &size)) == ENOPROTOOPT);
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_IP, 9999, &value, size)) == ENOPROTOOPT);
  REQUIRE(error_of(::setsockopt(fd, 9999, 1, &value, size)) == ENOPROTOOPT);
}

TEST_CASE("option: setsockopt with fewer bytes than the value is EINVAL", "[sockopt]") {
  const Fd fd = stream_socket();
  const int value = 1;
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 2)) == EINVAL);
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 3)) == EINVAL);
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value)) == EINVAL);
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value)) == EINVAL);
}

TEST_CASE("option: getsockopt into fewer bytes gives those bytes", "[sockopt]") {
  const Fd fd = stream_socket();
  unsigned char bytes[4];
  std::memset(bytes, 0xee, sizeof bytes);
  socklen_t size = 1;
  REQUIRE(error_of(::getsockopt(fd, SOL_SOCKET, SO_TYPE, bytes, &size)) == 0);
  REQUIRE(size == 1);
  REQUIRE(bytes[0] == SOCK_STREAM);
  REQUIRE(bytes[1] == 0xee);
}

TEST_CASE("option: getsockopt into more bytes reports how many it used", "[sockopt]") {
  const Pair pair = connected_pair();
  char bytes[64];
  socklen_t size = sizeof bytes;
  REQUIRE(error_of(::getsockopt(pair.client, SOL_SOCKET, SO_ERROR, bytes, &size)) == 0);
  REQUIRE(size == sizeof(int));
  size = sizeof bytes;
  REQUIRE(error_of(::getsockopt(pair.client, IPPROTO_TCP, TCP_NODELAY, bytes, &size)) == 0);
  REQUIRE(size == sizeof(int));
}

TEST_CASE("option: getsockopt with a negative length is EINVAL", "[sockopt]") {
  const Pair pair = connected_pair();
  int value = 0;
  auto size = static_cast<socklen_t>(-1);
  REQUIRE(error_of(::getsockopt(pair.client, IPPROTO_TCP, TCP_NODELAY, &value, &size)) == EINVAL);
}

namespace {

// By both names, where the socket has both.
void expect_freebind(int fd, int family, int value) {
  REQUIRE(option(fd, IPPROTO_IP, IP_FREEBIND) == value);
  if (family == AF_INET6) REQUIRE(option(fd, IPPROTO_IPV6, IPV6_FREEBIND) == value);
}

// What a connection from `host` has when it is accepted.
void expect_accepted_freebind(int l, const std::string& host, int value) {
  const Fd client = connected_to(make_address(host, local_of(l).port()));
  const Fd server = accept_from(l);
  expect_freebind(server, local_of(l).family(), value);
}

}  // namespace

TEST_CASE("option: IP_FREEBIND is as it was set in every state", "[sockopt]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const Fd l = stream_socket(family);
  expect_freebind(l, family, 0);
  for (const int value : {1, 0}) {
    set_option(l, IPPROTO_IP, IP_FREEBIND, value);
    expect_freebind(l, family, value);
  }
  const Address own = server_address(family);
  REQUIRE(error_of(::bind(l, own.get(), own.size)) == 0);
  expect_freebind(l, family, 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  for (const int value : {0, 1, 0}) {
    if (family == AF_INET) set_option(l, IPPROTO_IP, IP_FREEBIND, value);
    if (family == AF_INET6) set_option(l, IPPROTO_IPV6, IPV6_FREEBIND, value);
    expect_freebind(l, family, value);
    expect_accepted_freebind(l, own.host(), value);
  }
}

TEST_CASE(
    "option: IP_FREEBIND of a listener on the wildcard address, and of what comes to it from anywhere, is as "
    "it was set",
    "[sockopt]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const Fd l = stream_socket(family);
  const Address any = wildcard_address(family);
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  for (const int value : {-1, 1, 0}) {
    if (value >= 0) set_option(l, IPPROTO_IP, IP_FREEBIND, value);
    const int expected = value > 0 ? 1 : 0;
    expect_freebind(l, family, expected);
    expect_accepted_freebind(l, server_address(family).host(), expected);
    expect_accepted_freebind(l, family == AF_INET ? "127.0.0.1" : "::1", expected);
  }
  REQUIRE(error_of(::shutdown(l, SHUT_RD)) == 0);
  expect_freebind(l, family, 0);
}

TEST_CASE("option: of a pipe is ENOTSOCK", "[sockopt]") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  const Fd in(fds[0]);
  const Fd out(fds[1]);
  int value = 1;
  socklen_t size = sizeof value;
  REQUIRE(error_of(::getsockopt(in, SOL_SOCKET, SO_TYPE, &value, &size)) == ENOTSOCK);
  REQUIRE(error_of(::setsockopt(in, SOL_SOCKET, SO_KEEPALIVE, &value, size)) == ENOTSOCK);
}

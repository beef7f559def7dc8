#include "intercept/descriptors/holders.hh"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "intercept/support/peer_user.hh"
#include "tests/intercept/fake_kernel.hh"

using namespace mtcp;
using namespace mtcp::intercept;

TEST_CASE("the kernel tells whether anybody listens at an endpoint", "[holders]") {
  testing::FakeKernel kernel;
  const bool anywhere = GENERATE(true, false);
  CAPTURE(anywhere);
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(anywhere ? INADDR_ANY : INADDR_LOOPBACK);
  socklen_t n = sizeof a;
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&a), n) == 0);
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n) == 0);
  const stack::Endpoint local{stack::IpAddress::v4(ntohl(a.sin_addr.s_addr)), ntohs(a.sin_port)};
  CHECK_FALSE(listens_in_kernel(kernel, local));  // bound only
  REQUIRE(::listen(fd, 1) == 0);
  CHECK(listens_in_kernel(kernel, local));
  CHECK(listening_user(kernel, local) == ::geteuid());
  CHECK_FALSE(listens_in_kernel(kernel, {local.address, 1}));
  CHECK(is_listener_of_stack(kernel, local));
  const stack::Endpoint another{stack::IpAddress::v4(0x7f000002), local.port};
  CHECK_FALSE(is_listener_of_stack(kernel, another));  // of one on the wildcard address: any program's
  mark_listener(kernel, fd, false);
  CHECK(is_listener_of_stack(kernel, another) == anywhere);
  const int copy = ::dup(fd);
  ::close(fd);
  CHECK(listens_in_kernel(kernel, local));  // as another process's
  ::close(copy);
  CHECK_FALSE(listens_in_kernel(kernel, local));
}

TEST_CASE("a listener on :: that is marked is the stack's for both families", "[holders]") {
  testing::FakeKernel kernel;
  const int fd = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  socklen_t n = sizeof a;
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&a), n) == 0);
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n) == 0);
  REQUIRE(::listen(fd, 1) == 0);
  stack::IpAddress one{};
  one.bytes[15] = 1;
  for (const bool marked : {false, true}) {
    if (marked) mark_listener(kernel, fd, true);
    CHECK(is_listener_of_stack(kernel, {stack::IpAddress::v4(0x7f000002), ntohs(a.sin6_port)}) == marked);
    CHECK(is_listener_of_stack(kernel, {one, ntohs(a.sin6_port)}) == marked);
  }
  ::close(fd);
}

TEST_CASE("the kernel tells whose a Unix socket's name is, whether it listens or has no more room; of other types it is another name", "[holders]") {
  testing::FakeKernel kernel;
  const std::string name = std::string(1, '\0') + "mtcp-holders-test-" + std::to_string(::getpid());
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::ranges::copy(name, a.sun_path);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  const auto user_of = [&](int type) { return user_of_name(kernel, type, std::as_bytes(std::span(name))); };
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  CHECK_FALSE(user_of(SOCK_SEQPACKET).has_value());
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&a), size) == 0);
  CHECK(user_of(SOCK_SEQPACKET) == ::geteuid());
  CHECK_FALSE(user_of(SOCK_DGRAM).has_value());
  REQUIRE(::listen(fd, 0) == 0);
  std::vector<int> waiting;
  do waiting.push_back(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  while (::connect(waiting.back(), reinterpret_cast<const sockaddr*>(&a), size) == 0);
  CHECK(errno == EAGAIN);
  CHECK(user_of(SOCK_SEQPACKET) == ::geteuid());
  for (const int each : waiting) ::close(each);
  ::close(fd);
  CHECK_FALSE(user_of(SOCK_SEQPACKET).has_value());
}

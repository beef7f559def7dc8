#include "intercept/descriptors/holders.hh"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <catch2/catch.hpp>

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
  CHECK(is_bound_listener(kernel, local));
  CHECK(is_bound_listener(kernel, {stack::IpAddress::v4(0x7f000002), local.port}) == false);
  const int copy = ::dup(fd);
  ::close(fd);
  CHECK(listens_in_kernel(kernel, local));  // as another process's
  ::close(copy);
  CHECK_FALSE(listens_in_kernel(kernel, local));
}

#include "intercept/sockets/address.hh"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "intercept/support/errors.hh"

using namespace mtcp;
using namespace mtcp::intercept;

TEST_CASE("an IPv4 endpoint survives the way to a sockaddr and back") {
  const stack::Endpoint e{stack::IpAddress::v4(10, 1, 2, 3), 8080};
  sockaddr_storage a{};
  socklen_t n = sizeof a;
  REQUIRE(write_address(e, false, reinterpret_cast<sockaddr*>(&a), &n) == 0);
  CHECK(n == sizeof(sockaddr_in));
  stack::Endpoint back;
  REQUIRE(read_address(reinterpret_cast<sockaddr*>(&a), n, false, back) == 0);
  CHECK(back == e);
}

TEST_CASE("an IPv4 endpoint of an AF_INET6 socket is written as ::ffff:a.b.c.d") {
  sockaddr_in6 a{};
  socklen_t n = sizeof a;
  REQUIRE(write_address({stack::IpAddress::v4(192, 0, 2, 1), 80}, true, reinterpret_cast<sockaddr*>(&a),
                        &n) == 0);
  CHECK(n == sizeof a);
  char text[64];
  inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof text);
  CHECK(std::string(text) == "::ffff:192.0.2.1");
  stack::Endpoint back;
  REQUIRE(read_address(reinterpret_cast<sockaddr*>(&a), n, true, back) == 0);
  CHECK(back.address == stack::IpAddress::v4(192, 0, 2, 1));
}

TEST_CASE("a short buffer gets the beginning of the address and the full length") {
  char buffer[8];
  std::memset(buffer, 'x', sizeof buffer);
  socklen_t n = 4;
  REQUIRE(write_address({stack::IpAddress::v4(1, 2, 3, 4), 0x1234}, false,
                        reinterpret_cast<sockaddr*>(buffer), &n) == 0);
  CHECK(n == sizeof(sockaddr_in));
  CHECK(buffer[2] == 0x12);
  CHECK(buffer[4] == 'x');
}

TEST_CASE("addresses that make no sense are refused as Linux refuses them") {
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  sockaddr_in four{};
  four.sin_family = AF_INET;
  const auto* as6 = reinterpret_cast<sockaddr*>(&six);
  const auto* as4 = reinterpret_cast<sockaddr*>(&four);
  stack::Endpoint e;
  CHECK(read_address(as4, sizeof four - 1, false, e) == -EINVAL);
  CHECK(read_address(as6, sizeof six, false, e) == -EAFNOSUPPORT);
  CHECK(read_address(as4, 16, true, e) == -EINVAL);  // too short for IPv6 before its family is looked at
  CHECK(read_address(as6, 24, true, e) == 0);        // RFC 2133's form, without the scope
  CHECK(read_address(nullptr, 16, false, e) == -EFAULT);
  CHECK(read_address(as4, static_cast<socklen_t>(-1), false, e) == -EINVAL);
  socklen_t negative = static_cast<socklen_t>(-1);
  CHECK(write_address(e, false, reinterpret_cast<sockaddr*>(&four), &negative) == -EINVAL);
  CHECK(write_address(e, false, reinterpret_cast<sockaddr*>(&four), nullptr) == -EFAULT);
}

TEST_CASE("every reason of the stack has an errno of its own kind") {
  CHECK(to_errno(stack::Errc::ok) == 0);
  CHECK(to_errno(stack::Errc::connection_refused) == ECONNREFUSED);
  CHECK(to_errno(stack::Errc::connection_reset) == ECONNRESET);
  CHECK(to_errno(stack::Errc::timed_out) == ETIMEDOUT);
  CHECK(to_errno(stack::Errc::would_block) == EAGAIN);
  for (int i = 1; i <= static_cast<int>(stack::Errc::shut_down); ++i) {
    CHECK(to_errno(static_cast<stack::Errc>(i)) != EIO);
  }
}

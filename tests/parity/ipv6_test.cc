// IPv6 and dual-stack sockets.
#include <cstring>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("v6: a connection carries data both ways", "[v6]") {
  const Pair pair = connected_pair(AF_INET6);
  REQUIRE(send_all(pair.client, "six"));
  REQUIRE(receive_exactly(pair.server, 3) == "six");
  REQUIRE(send_all(pair.server, "back"));
  REQUIRE(receive_exactly(pair.client, 4) == "back");
}

TEST_CASE("v6: accept and the name calls give v6 addresses", "[v6]") {
  const Fd l = listener(4, AF_INET6);
  const Fd client = connected_to(local_of(l));
  Address a;
  a.size = sizeof a.storage;
  const Fd server(::accept(l, a.get(), &a.size));
  REQUIRE(server >= 0);
  REQUIRE(a.size == sizeof(sockaddr_in6));
  REQUIRE(a == local_of(client));
  REQUIRE(peer_of(client) == local_of(l));
  REQUIRE(local_of(server).host() == server_address(AF_INET6).host());
}

TEST_CASE("v6: a short address buffer is cut and the full size reported", "[v6]") {
  const Fd l = listener(4, AF_INET6);
  const Fd client = connected_to(local_of(l));
  unsigned char bytes[32];
  std::memset(bytes, 0xee, sizeof bytes);
  socklen_t size = 16;
  const Fd server(::accept(l, reinterpret_cast<sockaddr*>(bytes), &size));
  REQUIRE(server >= 0);
  REQUIRE(size == sizeof(sockaddr_in6));
  REQUIRE(bytes[16] == 0xee);
}

TEST_CASE("v6: a refused connect is ECONNREFUSED", "[v6]") {
  const Fd holder = bound_socket(AF_INET6);
  const Address to = local_of(holder);
  const Fd client = stream_socket(AF_INET6);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("v6: a wildcard listener takes v4 clients with mapped addresses", "[v6]") {
  const Fd l = stream_socket(AF_INET6);
  const Address any = wildcard_address(AF_INET6);
  REQUIRE(option(l, IPPROTO_IPV6, IPV6_V6ONLY) == 0);
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  const Fd client = connected_to(server_address(AF_INET, local_of(l).port()));
  Address a;
  a.size = sizeof a.storage;
  const Fd server(::accept(l, a.get(), &a.size));
  REQUIRE(server >= 0);
  REQUIRE(a.size == sizeof(sockaddr_in6));
  REQUIRE(a.host() == "::ffff:" + local_of(client).host());
  REQUIRE(local_of(server).host() == "::ffff:" + server_address().host());
  REQUIRE(send_all(client, "mapped"));
  REQUIRE(receive_exactly(server, 6) == "mapped");
}

TEST_CASE("v6: a dual-stack listener takes v6 clients too", "[v6]") {
  const Fd l = stream_socket(AF_INET6);
  const Address any = wildcard_address(AF_INET6);
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  const Fd client = connected_to(server_address(AF_INET6, local_of(l).port()));
  const Fd server = accept_from(l);
  REQUIRE(peer_of(server) == local_of(client));
}

TEST_CASE("v6: with IPV6_V6ONLY a v4 client is refused", "[v6]") {
  const Fd l = stream_socket(AF_INET6);
  set_option(l, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  REQUIRE(option(l, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  const Address any = wildcard_address(AF_INET6);
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  const Address to = server_address(AF_INET, local_of(l).port());
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("v6: with IPV6_V6ONLY a v4 listener can have the same port", "[v6]") {
  Errno last;
  for (int i = 0; i < 20; ++i) {  // a v4 connection of an earlier case may hold the port that came out
    const Fd six = stream_socket(AF_INET6);
    set_option(six, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    const Address any6 = wildcard_address(AF_INET6);
    REQUIRE(error_of(::bind(six, any6.get(), any6.size)) == 0);
    const Fd four = stream_socket(AF_INET);
    const Address any4 = wildcard_address(AF_INET, local_of(six).port());
    last = error_of(::bind(four, any4.get(), any4.size));
    if (last == 0) break;
  }
  REQUIRE(last == 0);
}

TEST_CASE("v6: a v6 socket connects to a v4 server by its mapped address", "[v6]") {
  const Fd l = listener();
  const Address to = make_address("::ffff:" + server_address().host(), local_of(l).port());
  const Fd client = stream_socket(AF_INET6);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  const Fd server = accept_from(l);
  REQUIRE(peer_of(client) == to);
  REQUIRE(peer_of(server).family() == AF_INET);
  REQUIRE(send_all(client, "x"));
  REQUIRE(receive_exactly(server, 1) == "x");
}

TEST_CASE("v6: a v4 address on a v6 socket is refused", "[v6]") {
  const Fd fd = stream_socket(AF_INET6);
  const Address v4 = server_address();
  REQUIRE(error_of(::bind(fd, v4.get(), v4.size)) == EINVAL);
}

TEST_CASE("v6: IPV6_V6ONLY cannot be changed after bind", "[v6]") {
  const Fd fd = bound_socket(AF_INET6);
  const int one = 1;
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one)) == EINVAL);
}

TEST_CASE("v6: IPV6_TCLASS and IPV6_UNICAST_HOPS are kept", "[v6]") {
  const Fd fd = stream_socket(AF_INET6);
  set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, 0x20);
  REQUIRE(option(fd, IPPROTO_IPV6, IPV6_TCLASS) == 0x20);
  set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
  REQUIRE(option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) == 9);
}

// accept(), accept4() and the addresses of both ends.
#include <fcntl.h>
#include <sys/un.h>

#include <cstring>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("accept: gives the client's address", "[accept]") {
  const Fd l = listener();
  const Fd client = connected_to(local_of(l));
  Address a;
  a.size = sizeof a.storage;
  const Fd server(::accept(l, a.get(), &a.size));
  REQUIRE(server >= 0);
  REQUIRE(a.size == sizeof(sockaddr_in));
  REQUIRE(a == local_of(client));
}

TEST_CASE("accept: both ends agree about their names", "[accept]") {
  const Fd l = listener();
  const Pair pair = connected_pair_via(l);
  REQUIRE(local_of(pair.server) == local_of(l));
  REQUIRE(peer_of(pair.client) == local_of(l));
  REQUIRE(peer_of(pair.server) == local_of(pair.client));
}

TEST_CASE("accept: a short address buffer is cut and the full size reported", "[accept]") {
  const Fd l = listener();
  const Fd client = connected_to(local_of(l));
  unsigned char bytes[16];
  std::memset(bytes, 0xee, sizeof bytes);
  socklen_t size = 4;
  const Fd server(::accept(l, reinterpret_cast<sockaddr*>(bytes), &size));
  REQUIRE(server >= 0);
  REQUIRE(size == sizeof(sockaddr_in));
  sa_family_t family = 0;
  std::memcpy(&family, bytes, sizeof family);
  REQUIRE(family == AF_INET);
  REQUIRE(bytes[4] == 0xee);
}

TEST_CASE("accept: a null address with a length is fine", "[accept]") {
  const Fd l = listener();
  const Fd client = connected_to(local_of(l));
  socklen_t size = 100;
  const Fd server(::accept(l, nullptr, &size));
  REQUIRE(server >= 0);
  REQUIRE(size == 100);
}

TEST_CASE("accept: a negative address length is EINVAL", "[accept]") {
  const Fd l = listener();
  const Fd client = connected_to(local_of(l));
  Address a;
  a.size = static_cast<socklen_t>(-1);
  REQUIRE(error_of(::accept(l, a.get(), &a.size)) == EINVAL);
}

TEST_CASE("accept: on an empty queue without blocking is EAGAIN", "[accept]") {
  const Fd l = listener(16, AF_INET, SOCK_NONBLOCK);
  REQUIRE(error_of(::accept(l, nullptr, nullptr)) == EAGAIN);
  REQUIRE(error_of(::accept4(l, nullptr, nullptr, SOCK_NONBLOCK)) == EAGAIN);
}

TEST_CASE("accept: of a socket that does not listen is EINVAL", "[accept]") {
  const Fd fresh = stream_socket();
  const Fd bound = bound_socket();
  const Pair pair = connected_pair();
  REQUIRE(error_of(::accept(fresh, nullptr, nullptr)) == EINVAL);
  REQUIRE(error_of(::accept(bound, nullptr, nullptr)) == EINVAL);
  REQUIRE(error_of(::accept(pair.client, nullptr, nullptr)) == EINVAL);
}

TEST_CASE("accept: a closed descriptor is EBADF and a pipe ENOTSOCK", "[accept]") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  const Fd out(fds[1]);
  Fd in(fds[0]);
  REQUIRE(error_of(::accept(in, nullptr, nullptr)) == ENOTSOCK);
  const int number = in;
  in.reset();
  REQUIRE(error_of(::accept(number, nullptr, nullptr)) == EBADF);
}

TEST_CASE("accept: does not pass on O_NONBLOCK and FD_CLOEXEC of the listener", "[accept]") {
  const Fd l = listener(16, AF_INET, SOCK_NONBLOCK);
  const Fd client = connected_to(local_of(l));
  REQUIRE(becomes(l, POLLIN));
  const Fd server(::accept(l, nullptr, nullptr));
  REQUIRE(server >= 0);
  REQUIRE((::fcntl(server, F_GETFL) & O_NONBLOCK) == 0);
  REQUIRE(::fcntl(server, F_GETFD) == 0);
}

TEST_CASE("accept4: SOCK_NONBLOCK and SOCK_CLOEXEC do what they say, each alone", "[accept]") {
  const Fd l = listener();
  const Fd a = connected_to(local_of(l));
  const Fd b = connected_to(local_of(l));
  const Fd quick(::accept4(l, nullptr, nullptr, SOCK_NONBLOCK));
  const Fd closing(::accept4(l, nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE((::fcntl(quick, F_GETFL) & O_NONBLOCK) != 0);
  REQUIRE(::fcntl(quick, F_GETFD) == 0);
  REQUIRE((::fcntl(closing, F_GETFL) & O_NONBLOCK) == 0);
  REQUIRE(::fcntl(closing, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("accept4: an unknown flag is EINVAL and leaves the connection in the queue", "[accept]") {
  const Fd l = listener();
  const Fd client = connected_to(local_of(l));
  REQUIRE(error_of(::accept4(l, nullptr, nullptr, 0x10000)) == EINVAL);
  REQUIRE(accept_from(l) >= 0);
}

TEST_CASE("accept: a connection inherits the listener's options", "[accept]") {
  const Fd l = listener();
  set_option(l, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(l, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set_option(l, SOL_SOCKET, SO_LINGER, linger{1, 3});
  set_option(l, SOL_SOCKET, SO_RCVTIMEO, timeval{2, 0});
  const Pair pair = connected_pair_via(l);
  REQUIRE(option(pair.server, IPPROTO_TCP, TCP_NODELAY) == 1);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_KEEPALIVE) == 1);
  REQUIRE(option(pair.server, IPPROTO_TCP, TCP_KEEPIDLE) == 77);
  REQUIRE(option<linger>(pair.server, SOL_SOCKET, SO_LINGER).l_linger == 3);
  REQUIRE(option<timeval>(pair.server, SOL_SOCKET, SO_RCVTIMEO).tv_sec == 2);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_NODELAY) == 0);
}

TEST_CASE("accept: a connection inherits the listener's buffer sizes", "[accept]") {
  const Fd l = listener();
  set_option(l, SOL_SOCKET, SO_RCVBUF, 20000);
  set_option(l, SOL_SOCKET, SO_SNDBUF, 30000);
  const Pair pair = connected_pair_via(l);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_RCVBUF) == 40000);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_SNDBUF) == 60000);
}

TEST_CASE("accept: options of the listener set later do not reach an accepted connection", "[accept]") {
  const Fd l = listener();
  const Pair pair = connected_pair_via(l);
  set_option(l, IPPROTO_TCP, TCP_NODELAY, 1);
  REQUIRE(option(pair.server, IPPROTO_TCP, TCP_NODELAY) == 0);
}

TEST_CASE("accept: blocks until a client comes", "[accept]") {
  const Fd l = listener();
  const Address to = local_of(l);
  int client = -1;
  std::thread late([&] {
    std::this_thread::sleep_for(milliseconds(50));
    client = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(client, to.get(), to.size) != 0) client = -1;
  });
  const Fd server(::accept(l, nullptr, nullptr));
  late.join();
  const Fd guard(client);
  REQUIRE(server >= 0);
  REQUIRE(client >= 0);
}

TEST_CASE("accept: a wildcard listener shows the address that was called", "[accept]") {
  const Fd l = stream_socket();
  const Address any = wildcard_address();
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  REQUIRE(local_of(l).host() == "0.0.0.0");
  const Fd client = connected_to(server_address(AF_INET, local_of(l).port()));
  const Fd server = accept_from(l);
  REQUIRE(local_of(server) == server_address(AF_INET, local_of(l).port()));
}

TEST_CASE("name: getpeername of an unconnected socket is ENOTCONN", "[accept]") {
  const Fd fresh = stream_socket();
  const Fd bound = bound_socket();
  Address a;
  a.size = sizeof a.storage;
  REQUIRE(error_of(::getpeername(fresh, a.get(), &a.size)) == ENOTCONN);
  REQUIRE(error_of(::getpeername(bound, a.get(), &a.size)) == ENOTCONN);
}

TEST_CASE("name: short buffers are cut and the full size reported", "[accept]") {
  const Pair pair = connected_pair();
  unsigned char bytes[16];
  for (auto* call : {&::getsockname, &::getpeername}) {
    std::memset(bytes, 0xee, sizeof bytes);
    socklen_t size = 2;
    REQUIRE(error_of((*call)(pair.client, reinterpret_cast<sockaddr*>(bytes), &size)) == 0);
    REQUIRE(size == sizeof(sockaddr_in));
    REQUIRE(bytes[2] == 0xee);
  }
}

TEST_CASE("name: getpeername still works after the peer has closed", "[accept]") {
  Pair pair = connected_pair();
  const Address was = peer_of(pair.client);
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client).empty());
  REQUIRE(peer_of(pair.client) == was);
}

// socket() and bind().
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("socket: SOCK_NONBLOCK sets O_NONBLOCK and its absence does not", "[socket]") {
  const Fd plain = stream_socket(AF_INET);
  const Fd quick = stream_socket(AF_INET, SOCK_NONBLOCK);
  REQUIRE((::fcntl(plain, F_GETFL) & O_NONBLOCK) == 0);
  REQUIRE((::fcntl(quick, F_GETFL) & O_NONBLOCK) != 0);
}

TEST_CASE("socket: SOCK_CLOEXEC sets FD_CLOEXEC and its absence does not", "[socket]") {
  const Fd plain(::socket(AF_INET, SOCK_STREAM, 0));
  const Fd closing(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::fcntl(plain, F_GETFD) == 0);
  REQUIRE(::fcntl(closing, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("socket: is open for reading and writing", "[socket]") {
  const Fd fd = stream_socket();
  REQUIRE((::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
}

TEST_CASE("socket: takes IPPROTO_TCP by name", "[socket]") {
  const Fd fd(::socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
  REQUIRE(fd >= 0);
  REQUIRE(option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
}

TEST_CASE("socket: a stream of UDP is EPROTONOSUPPORT", "[socket]") {
  REQUIRE(error_of(::socket(AF_INET, SOCK_STREAM, IPPROTO_UDP)) == EPROTONOSUPPORT);
}

TEST_CASE("socket: an unknown family is EAFNOSUPPORT", "[socket]") {
  REQUIRE(error_of(::socket(AF_MAX + 5, SOCK_STREAM, 0)) == EAFNOSUPPORT);
}

TEST_CASE("socket: an unknown type is EINVAL", "[socket]") {
  REQUIRE(error_of(::socket(AF_INET, 15, 0)) == EINVAL);
}

TEST_CASE("socket: an unknown flag is EINVAL", "[socket]") {
  REQUIRE(error_of(::socket(AF_INET, SOCK_STREAM | 0x10000, 0)) == EINVAL);
}

TEST_CASE("socket: takes the lowest free descriptor", "[socket]") {
  Fd first = stream_socket();
  const Fd second = stream_socket();
  const int number = first;
  first.reset();
  const Fd again = stream_socket();
  REQUIRE(again == number);
  REQUIRE(second != number);
}

TEST_CASE("socket: fstat says socket", "[socket]") {
  struct stat info {};
  const Pair pair = connected_pair();
  const Fd l = listener();
  for (const int fd : {int(pair.client), int(pair.server), int(l)}) {
    REQUIRE(error_of(::fstat(fd, &info)) == 0);
    REQUIRE(S_ISSOCK(info.st_mode));
  }
}

TEST_CASE("socket: two descriptors are two inodes", "[socket]") {
  const Pair pair = connected_pair();
  struct stat client {};
  struct stat server {};
  REQUIRE(::fstat(pair.client, &client) == 0);
  REQUIRE(::fstat(pair.server, &server) == 0);
  REQUIRE(client.st_ino != server.st_ino);
}

TEST_CASE("socket: cannot seek and is no terminal", "[socket]") {
  const Pair pair = connected_pair();
  char byte = 0;
  REQUIRE(error_of(::lseek(pair.client, 0, SEEK_CUR)) == ESPIPE);
  REQUIRE(error_of(::pread(pair.client, &byte, 1, 0)) == ESPIPE);
  REQUIRE(::isatty(pair.client) == 0);
  REQUIRE(errno == ENOTTY);
}

TEST_CASE("socket: datagram and unix sockets work beside it", "[socket]") {
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  const Fd a(fds[0]);
  const Fd b(fds[1]);
  const Fd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const Address any = make_address("127.0.0.1", 0);
  REQUIRE(::bind(udp, any.get(), any.size) == 0);
  const Address to = local_of(udp);
  char text[8] = "";
  REQUIRE(::sendto(udp, "hi", 2, 0, to.get(), to.size) == 2);
  REQUIRE(::recv(udp, text, sizeof text, 0) == 2);
  REQUIRE(::send(a, "yes", 3, 0) == 3);
  REQUIRE(::recv(b, text, sizeof text, 0) == 3);
}

TEST_CASE("bind: port 0 gives a free port that getsockname shows", "[bind]") {
  const Fd a = bound_socket();
  const Fd b = bound_socket();
  REQUIRE(local_of(a).port() != 0);
  REQUIRE(local_of(b).port() != 0);
  REQUIRE(local_of(a).port() != local_of(b).port());
  REQUIRE(local_of(a).host() == server_address().host());
}

TEST_CASE("bind: an unbound socket's name is the wildcard with port 0", "[bind]") {
  const Fd v4 = stream_socket(AF_INET);
  const Fd v6 = stream_socket(AF_INET6);
  REQUIRE(local_of(v4) == wildcard_address(AF_INET));
  REQUIRE(local_of(v6) == wildcard_address(AF_INET6));
}

TEST_CASE("bind: a port in use is EADDRINUSE", "[bind]") {
  const Fd first = bound_socket();
  const Fd second = stream_socket();
  const Address a = local_of(first);
  REQUIRE(error_of(::bind(second, a.get(), a.size)) == EADDRINUSE);
}

TEST_CASE("bind: a port that a listener has is EADDRINUSE, even on the wildcard address", "[bind]") {
  const Fd l = listener();
  const Fd second = stream_socket();
  const Address a = wildcard_address(AF_INET, local_of(l).port());
  REQUIRE(error_of(::bind(second, a.get(), a.size)) == EADDRINUSE);
}

TEST_CASE("bind: SO_REUSEADDR does not share a port with a listener", "[bind]") {
  const Fd l = listener();
  const Fd second = stream_socket();
  set_option(second, SOL_SOCKET, SO_REUSEADDR, 1);
  const Address a = local_of(l);
  REQUIRE(error_of(::bind(second, a.get(), a.size)) == EADDRINUSE);
}

TEST_CASE("bind: with SO_REUSEADDR two may bind, and the second to listen gets EADDRINUSE", "[bind]") {
  const Fd first = stream_socket();
  const Fd second = stream_socket();
  set_option(first, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(second, SOL_SOCKET, SO_REUSEADDR, 1);
  const Address any = server_address();
  REQUIRE(error_of(::bind(first, any.get(), any.size)) == 0);
  const Address a = local_of(first);
  REQUIRE(error_of(::bind(second, a.get(), a.size)) == 0);
  REQUIRE(error_of(::listen(first, 4)) == 0);
  REQUIRE(error_of(::listen(second, 4)) == EADDRINUSE);
}

TEST_CASE("bind: a port is free again when its socket has been closed", "[bind]") {
  Fd first = listener();
  const Address a = local_of(first);
  first.reset();
  const Fd second = stream_socket();
  REQUIRE(error_of(::bind(second, a.get(), a.size)) == 0);
  REQUIRE(error_of(::listen(second, 4)) == 0);
}

TEST_CASE("bind: SO_REUSEADDR takes a port whose connections are in TIME-WAIT", "[bind]") {
  Fd l = stream_socket();
  set_option(l, SOL_SOCKET, SO_REUSEADDR, 1);
  const Address any = server_address();
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 4)) == 0);
  const Address a = local_of(l);
  Pair pair = connected_pair_via(l);
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client).empty());
  pair.client.reset();
  l.reset();
  const Fd again = stream_socket();
  set_option(again, SOL_SOCKET, SO_REUSEADDR, 1);
  REQUIRE(error_of(::bind(again, a.get(), a.size)) == 0);
  REQUIRE(error_of(::listen(again, 4)) == 0);
  Pair next = connected_pair_via(again);
  REQUIRE(send_all(next.client, "again"));
  REQUIRE(receive_exactly(next.server, 5) == "again");
}

TEST_CASE("bind: an address of nobody here is EADDRNOTAVAIL", "[bind]") {
  const Fd fd = stream_socket();
  const Address a = make_address("192.0.2.77", 0);
  REQUIRE(error_of(::bind(fd, a.get(), a.size)) == EADDRNOTAVAIL);
}

TEST_CASE("bind: twice is EINVAL", "[bind]") {
  const Fd fd = bound_socket();
  const Address a = server_address();
  REQUIRE(error_of(::bind(fd, a.get(), a.size)) == EINVAL);
}

TEST_CASE("bind: of a connected socket is EINVAL", "[bind]") {
  const Pair pair = connected_pair();
  const Address a = server_address();
  REQUIRE(error_of(::bind(pair.client, a.get(), a.size)) == EINVAL);
}

TEST_CASE("bind: a short address is EINVAL", "[bind]") {
  const Fd v4 = stream_socket(AF_INET);
  const Fd v6 = stream_socket(AF_INET6);
  const Address a4 = server_address(AF_INET);
  const Address a6 = server_address(AF_INET6);
  REQUIRE(error_of(::bind(v4, a4.get(), sizeof(sockaddr_in) - 1)) == EINVAL);
  REQUIRE(error_of(::bind(v6, a6.get(), 20)) == EINVAL);
}

TEST_CASE("bind: another family's address is EAFNOSUPPORT", "[bind]") {
  const Fd v4 = stream_socket(AF_INET);
  const Address a6 = server_address(AF_INET6);
  REQUIRE(error_of(::bind(v4, a6.get(), a6.size)) == EAFNOSUPPORT);
}

TEST_CASE("bind: a privileged port without the privilege is EACCES", "[bind]") {
  if (::geteuid() != 0) return;
  REQUIRE(in_child([] {
            if (::setuid(65534) != 0) return 1;
            const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
            const Address a = server_address(AF_INET, 81);
            if (::bind(fd, a.get(), a.size) != -1) return 2;
            return errno == EACCES ? 0 : 3;
          }) == 0);
}

TEST_CASE("bind: a connect goes out from the bound address and port", "[bind]") {
  const Fd l = listener();
  const Fd client = bound_socket();
  const Address mine = local_of(client);
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  const Fd server = accept_from(l);
  REQUIRE(local_of(client) == mine);
  REQUIRE(peer_of(server) == mine);
}

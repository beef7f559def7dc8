// connect() in all its states.
#include <fcntl.h>
#include <sys/un.h>

#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

// An address that a socket holds but does not listen on: a connect to it is refused.
struct Refusing {
  Fd holder = bound_socket();
  Address address = local_of(holder);
};

// A listener whose backlog is full, so that the next connect stays in progress.
struct Full {
  Fd listening = listener(0);
  std::vector<Fd> clients;
  Full() {
    const Address to = local_of(listening);
    for (int i = 0; i < 8; ++i) {
      clients.push_back(stream_socket(AF_INET, SOCK_NONBLOCK));
      const Errno e = error_of(::connect(clients.back(), to.get(), to.size));
      REQUIRE((e == 0 || e == EINPROGRESS));
      // For the first there is room, however long it takes.
      if (!becomes(clients.back(), POLLOUT, milliseconds(i == 0 ? 5000 : 60))) return;
    }
    FAIL("the backlog of 0 took 8 connections");
  }
  [[nodiscard]] int pending() const { return clients.back(); }
};

}  // namespace

TEST_CASE("connect: a blocking connect returns when the connection is there", "[connect]") {
  const Fd l = listener();
  const Fd client = stream_socket();
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  REQUIRE(poll_events(client, POLLOUT) == POLLOUT);
  REQUIRE(local_of(client).port() != 0);
}

TEST_CASE("connect: without blocking is EINPROGRESS or done, then writable with SO_ERROR 0", "[connect]") {
  const Fd l = listener();
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  const Address to = local_of(l);
  const Errno e = error_of(::connect(client, to.get(), to.size));
  REQUIRE((e == EINPROGRESS || e == 0));
  REQUIRE(becomes(client, POLLOUT));
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
  REQUIRE(peer_of(client) == to);
}

TEST_CASE("connect: a second connect of an established connection is EISCONN", "[connect]") {
  const Fd l = listener();
  const Address to = local_of(l);
  const Pair pair = connected_pair_via(l);
  REQUIRE(error_of(::connect(pair.client, to.get(), to.size)) == EISCONN);
  REQUIRE(error_of(::connect(pair.server, to.get(), to.size)) == EISCONN);
}

TEST_CASE("connect: the call that follows a connect in progress succeeds once, then is EISCONN",
          "[connect]") {
  const Fd l = listener();
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  const Address to = local_of(l);
  const Errno first = error_of(::connect(client, to.get(), to.size));
  REQUIRE(becomes(client, POLLOUT));
  if (first == EINPROGRESS) REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == EISCONN);
}

TEST_CASE("connect: while one is in progress another is EALREADY", "[connect]") {
  const Full full;
  const Address to = local_of(full.listening);
  REQUIRE(error_of(::connect(full.pending(), to.get(), to.size)) == EALREADY);
}

TEST_CASE("connect: a connect in progress is neither readable nor writable", "[connect]") {
  const Full full;
  char byte = 0;
  REQUIRE(poll_events(full.pending(), POLLIN | POLLOUT | POLLRDHUP) == 0);
  REQUIRE(error_of(::recv(full.pending(), &byte, 1, 0)) == EAGAIN);
  REQUIRE(error_of(::send(full.pending(), "x", 1, MSG_NOSIGNAL)) == EAGAIN);
  REQUIRE(option(full.pending(), SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("connect: shutdown breaks off one in progress, with ECONNRESET, and the socket can connect again", "[connect]") {
  const Full full;
  REQUIRE(error_of(::shutdown(full.pending(), SHUT_WR)) == 0);
  REQUIRE(poll_events(full.pending(), POLLOUT) == (POLLOUT | POLLERR | POLLHUP));
  REQUIRE(option(full.pending(), SOL_SOCKET, SO_ERROR) == ECONNRESET);
  REQUIRE(poll_events(full.pending(), POLLOUT) == (POLLOUT | POLLHUP));
  REQUIRE(error_of(::shutdown(full.pending(), SHUT_WR)) == ENOTCONN);
  const Fd l = listener();
  const Address to = local_of(l);
  const Errno e = error_of(::connect(full.pending(), to.get(), to.size));
  REQUIRE((e == EINPROGRESS || e == 0));
  REQUIRE(becomes(full.pending(), POLLOUT));
  REQUIRE(option(full.pending(), SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("connect: AF_UNSPEC breaks off one in progress, with ECONNRESET", "[connect]") {
  const Full full;
  const sockaddr none{.sa_family = AF_UNSPEC, .sa_data = {}};
  REQUIRE(error_of(::connect(full.pending(), &none, sizeof none)) == 0);
  REQUIRE(option(full.pending(), SOL_SOCKET, SO_ERROR) == ECONNRESET);
}

TEST_CASE("connect: a connect in progress has a local name but no peer", "[connect]") {
  const Full full;
  Address a;
  a.size = sizeof a.storage;
  REQUIRE(error_of(::getpeername(full.pending(), a.get(), &a.size)) == ENOTCONN);
  REQUIRE(local_of(full.pending()).port() != 0);
}

TEST_CASE("connect: SO_SNDTIMEO bounds a blocking connect with EINPROGRESS", "[connect]") {
  const Full full;
  const Address to = local_of(full.listening);
  const Fd client = stream_socket();
  set_option(client, SOL_SOCKET, SO_SNDTIMEO, timeval{0, 80000});
  const Stopwatch watch;
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == EINPROGRESS);
  REQUIRE(watch.elapsed() >= milliseconds(75));
  REQUIRE(watch.elapsed() < milliseconds(3000));
}

TEST_CASE("connect: closing a connect in progress is no error", "[connect]") {
  Full full;
  REQUIRE(error_of(::close(full.clients.back().release())) == 0);
}

TEST_CASE("connect: to a port without a listener is ECONNREFUSED", "[connect]") {
  const Refusing refusing;
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, refusing.address.get(), refusing.address.size)) == ECONNREFUSED);
}

TEST_CASE("connect: a blocking refusal leaves no SO_ERROR behind", "[connect]") {
  const Refusing refusing;
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, refusing.address.get(), refusing.address.size)) == ECONNREFUSED);
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("connect: a refusal without blocking shows in poll and SO_ERROR, once", "[connect]") {
  const Refusing refusing;
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  const Errno e = error_of(::connect(client, refusing.address.get(), refusing.address.size));
  REQUIRE(e == EINPROGRESS);
  REQUIRE(becomes(client, POLLOUT));
  REQUIRE((poll_events(client, POLLIN | POLLOUT) & POLLERR) != 0);
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("connect: after a refusal without blocking the next connect reports it", "[connect]") {
  const Refusing refusing;
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  REQUIRE(error_of(::connect(client, refusing.address.get(), refusing.address.size)) == EINPROGRESS);
  REQUIRE(becomes(client, POLLOUT));
  REQUIRE(error_of(::connect(client, refusing.address.get(), refusing.address.size)) == ECONNREFUSED);
}

TEST_CASE("connect: after a refusal reading reports it once, then end of stream", "[connect]") {
  const Refusing refusing;
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  REQUIRE(error_of(::connect(client, refusing.address.get(), refusing.address.size)) == EINPROGRESS);
  REQUIRE(becomes(client, POLLIN));
  char byte = 0;
  REQUIRE(error_of(::recv(client, &byte, 1, 0)) == ECONNREFUSED);
  REQUIRE(::recv(client, &byte, 1, 0) == 0);
}

TEST_CASE("connect: a refused socket can connect elsewhere", "[connect]") {
  const Refusing refusing;
  const Fd l = listener();
  const Fd client = stream_socket();
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(client, refusing.address.get(), refusing.address.size)) == ECONNREFUSED);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  const Fd server = accept_from(l);
  REQUIRE(send_all(client, "now"));
  REQUIRE(receive_exactly(server, 3) == "now");
}

TEST_CASE("connect: of a listener is EISCONN", "[connect]") {
  const Fd l = listener();
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(l, to.get(), to.size)) == EISCONN);
}

TEST_CASE("connect: a short address is EINVAL", "[connect]") {
  const Fd l = listener();
  const Address to = local_of(l);
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, to.get(), 8)) == EINVAL);
}

TEST_CASE("connect: another family's address is EAFNOSUPPORT", "[connect]") {
  const Fd client = stream_socket();
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  REQUIRE(error_of(::connect(client, reinterpret_cast<sockaddr*>(&name), sizeof name)) == EAFNOSUPPORT);
}

TEST_CASE("connect: of a closed descriptor is EBADF", "[connect]") {
  Fd client = stream_socket();
  const int number = client;
  client.reset();
  const Address to = server_address(AF_INET, 9);
  REQUIRE(error_of(::connect(number, to.get(), to.size)) == EBADF);
}

TEST_CASE("connect: many in progress at once all complete", "[connect]") {
  const Fd l = listener(128);
  const Address to = local_of(l);
  std::vector<Fd> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(stream_socket(AF_INET, SOCK_NONBLOCK));
    const Errno e = error_of(::connect(clients.back(), to.get(), to.size));
    REQUIRE((e == 0 || e == EINPROGRESS));
  }
  for (int i = 0; i < 64; ++i) REQUIRE(accept_from(l) >= 0);
  for (const Fd& client : clients) {
    REQUIRE(becomes(client, POLLOUT));
    REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
  }
}

TEST_CASE("connect: local ports of connections to one server differ", "[connect]") {
  const Fd l = listener();
  const Pair a = connected_pair_via(l);
  const Pair b = connected_pair_via(l);
  REQUIRE(local_of(a.client).port() != local_of(b.client).port());
}

TEST_CASE("connect: AF_UNSPEC on a fresh socket is accepted", "[connect]") {
  const Fd client = stream_socket();
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  REQUIRE(error_of(::connect(client, &none, sizeof none)) == 0);
}

TEST_CASE("connect: AF_UNSPEC dissolves a connection, and the socket can connect anew", "[connect]") {
  const Fd l = listener();
  const Pair pair = connected_pair_via(l);
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  REQUIRE(error_of(::connect(pair.client, &none, sizeof none)) == 0);
  char byte = 0;
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(error_of(::recv(pair.server, &byte, 1, 0)) == ECONNRESET);
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(pair.client, to.get(), to.size)) == 0);
  const Fd server = accept_from(l);
  REQUIRE(send_all(pair.client, "anew"));
  REQUIRE(receive_exactly(server, 4) == "anew");
}

TEST_CASE(
    "connect: a listener on the wildcard address that does not listen any more connects, and blocks as "
    "before",
    "[connect]") {
  const Fd other = stream_socket();
  const Address loopback = make_address("127.0.0.1", 0);
  REQUIRE(error_of(::bind(other, loopback.get(), loopback.size)) == 0);
  REQUIRE(error_of(::listen(other, 4)) == 0);
  const Fd s = stream_socket();
  const Address any = wildcard_address();
  REQUIRE(error_of(::bind(s, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(s, 4)) == 0);
  const sockaddr none{.sa_family = AF_UNSPEC, .sa_data = {}};
  REQUIRE(error_of(::connect(s, &none, sizeof none)) == 0);
  const Address to = local_of(other);
  REQUIRE(error_of(::connect(s, to.get(), to.size)) == 0);
  REQUIRE((::fcntl(s, F_GETFL) & O_NONBLOCK) == 0);
  const Fd server = accept_from(other);
  REQUIRE(peer_of(server) == local_of(s));
}

TEST_CASE("connect: the wildcard address means this host", "[connect]") {
  const Fd l = stream_socket();
  const Address any = wildcard_address();
  REQUIRE(::bind(l, any.get(), any.size) == 0);
  REQUIRE(::listen(l, 4) == 0);
  const Fd client = connected_to(any.with_port(local_of(l).port()));
  const Fd server = accept_from(l);
  REQUIRE(send_all(client, "home"));
  REQUIRE(receive_exactly(server, 4) == "home");
}

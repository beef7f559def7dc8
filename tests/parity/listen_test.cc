// listen() and the accept queue.
#include <fcntl.h>

#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("listen: without bind takes a port of the system's choice", "[listen]") {
  const Fd fd = stream_socket();
  REQUIRE(error_of(::listen(fd, 4)) == 0);
  const Address a = local_of(fd);
  REQUIRE(a.port() != 0);
  REQUIRE(a.host() == "0.0.0.0");
  const Fd client = connected_to(server_address(AF_INET, a.port()));
  const Fd server = accept_from(fd);
  REQUIRE(local_of(server).host() == server_address().host());
}

TEST_CASE("listen: twice changes the backlog and is no error", "[listen]") {
  const Fd fd = listener(1);
  REQUIRE(error_of(::listen(fd, 64)) == 0);
  std::vector<Fd> clients;
  for (int i = 0; i < 32; ++i) clients.push_back(connected_to(local_of(fd)));
  for (int i = 0; i < 32; ++i) REQUIRE(accept_from(fd) >= 0);
}

TEST_CASE("listen: of a connected socket is EINVAL", "[listen]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::listen(pair.client, 4)) == EINVAL);
}

TEST_CASE("listen: a negative backlog counts as a very large one", "[listen]") {
  const Fd fd = bound_socket();
  REQUIRE(error_of(::listen(fd, -1)) == 0);
  const Fd a = connected_to(local_of(fd));
  const Fd b = connected_to(local_of(fd));
  REQUIRE(accept_from(fd) >= 0);
  REQUIRE(accept_from(fd) >= 0);
}

TEST_CASE("listen: backlog 0 still takes a connection", "[listen]") {
  const Fd fd = listener(0);
  const Pair pair = connected_pair_via(fd);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("listen: SO_ACCEPTCONN says which socket listens", "[listen]") {
  const Fd fd = bound_socket();
  REQUIRE(option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 0);
  REQUIRE(error_of(::listen(fd, 4)) == 0);
  REQUIRE(option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1);
  const Pair pair = connected_pair_via(fd);
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ACCEPTCONN) == 0);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_ACCEPTCONN) == 0);
}

TEST_CASE("listen: connections complete and carry data before they are accepted", "[listen]") {
  const Fd fd = listener();
  const Fd client = connected_to(local_of(fd));
  REQUIRE(send_all(client, "early"));
  const Fd server = accept_from(fd);
  REQUIRE(receive_exactly(server, 5) == "early");
}

TEST_CASE("listen: connections are accepted in the order of their coming", "[listen]") {
  const Fd fd = listener();
  std::vector<Fd> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(connected_to(local_of(fd)));
  for (const Fd& client : clients) REQUIRE(peer_of(accept_from(fd)) == local_of(client));
}

TEST_CASE("listen: a client that has closed is still accepted, with its data and its end", "[listen]") {
  const Fd fd = listener();
  Fd client = connected_to(local_of(fd));
  REQUIRE(send_all(client, "bye"));
  client.reset();
  const Fd server = accept_from(fd);
  REQUIRE(receive_until_end(server) == "bye");
}

TEST_CASE("listen: a full backlog leaves a connect pending until somebody accepts", "[listen]") {
  const Fd fd = listener(1);
  const Address to = local_of(fd);
  std::vector<Fd> clients;
  int pending = -1;
  for (int i = 0; i < 8 && pending < 0; ++i) {
    clients.push_back(stream_socket(AF_INET, SOCK_NONBLOCK));
    const Errno e = error_of(::connect(clients.back(), to.get(), to.size));
    REQUIRE((e == 0 || e == EINPROGRESS));
    // For two there is room, however long it takes.
    if (!becomes(clients.back(), POLLOUT, milliseconds(i < 2 ? 5000 : 100))) pending = clients.back();
  }
  REQUIRE(clients.size() >= 2);
  REQUIRE(pending >= 0);
  for (std::size_t i = 1; i < clients.size(); ++i) REQUIRE(accept_from(fd) >= 0);
  REQUIRE(becomes(pending, POLLOUT, milliseconds(8000)));
  REQUIRE(option(pending, SOL_SOCKET, SO_ERROR) == 0);
  REQUIRE(accept_from(fd) >= 0);
}

TEST_CASE("listen: closing the listener resets the connections that nobody accepted", "[listen]") {
  Fd fd = listener();
  const Fd client = connected_to(local_of(fd));
  fd.reset();
  char byte = 0;
  REQUIRE(becomes(client, POLLIN));
  REQUIRE(error_of(::recv(client, &byte, 1, 0)) == ECONNRESET);
}

TEST_CASE("listen: closing the listener does not touch accepted connections", "[listen]") {
  Fd fd = listener();
  const Pair pair = connected_pair_via(fd);
  fd.reset();
  REQUIRE(send_all(pair.client, "still here"));
  REQUIRE(receive_exactly(pair.server, 10) == "still here");
}

TEST_CASE("listen: after the listener's close a connect is refused", "[listen]") {
  Fd fd = listener();
  const Address to = local_of(fd);
  fd.reset();
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("listen: SO_REUSEPORT lets two listeners share a port, and each connection goes to one",
          "[listen]") {
  const Fd a = stream_socket();
  const Fd b = stream_socket();
  set_option(a, SOL_SOCKET, SO_REUSEPORT, 1);
  set_option(b, SOL_SOCKET, SO_REUSEPORT, 1);
  const Address any = server_address();
  REQUIRE(error_of(::bind(a, any.get(), any.size)) == 0);
  const Address to = local_of(a);
  REQUIRE(error_of(::bind(b, to.get(), to.size)) == 0);
  REQUIRE(error_of(::listen(a, 128)) == 0);
  REQUIRE(error_of(::listen(b, 128)) == 0);
  set_nonblocking(a);
  set_nonblocking(b);
  std::vector<Fd> clients;
  for (int i = 0; i < 40; ++i) clients.push_back(connected_to(to));
  int accepted = 0;
  while (accepted < 40) {
    pollfd p[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    REQUIRE(::poll(p, 2, 3000) > 0);
    for (const auto& each : p) {
      if ((each.revents & POLLIN) == 0) continue;
      const Fd connection(::accept(each.fd, nullptr, nullptr));
      REQUIRE(connection >= 0);
      ++accepted;
    }
  }
  REQUIRE(error_of(::accept(a, nullptr, nullptr)) == EAGAIN);
  REQUIRE(error_of(::accept(b, nullptr, nullptr)) == EAGAIN);
}

TEST_CASE("listen: a listener that is shut down for reading no longer accepts", "[listen]") {
  const Fd fd = listener();
  const Address to = local_of(fd);
  REQUIRE(error_of(::shutdown(fd, SHUT_RD)) == 0);
  REQUIRE(error_of(::accept(fd, nullptr, nullptr)) == EINVAL);
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("listen: a listener that was shut down can listen again", "[listen]") {
  const Fd fd = listener();
  REQUIRE(error_of(::shutdown(fd, SHUT_RD)) == 0);
  REQUIRE(error_of(::listen(fd, 16)) == 0);
  const Pair pair = connected_pair_via(fd);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("listen: shutting a listener down wakes a thread in accept", "[listen]") {
  const Fd fd = listener();
  Errno result;
  std::thread waiter([&] { result = error_of(::accept(fd, nullptr, nullptr)); });
  std::this_thread::sleep_for(milliseconds(50));
  REQUIRE(::shutdown(fd, SHUT_RDWR) == 0);
  waiter.join();
  REQUIRE(result == EINVAL);
}

TEST_CASE("listen: a listener has neither data nor a peer", "[listen]") {
  const Fd fd = listener();
  char byte = 0;
  Address a;
  a.size = sizeof a.storage;
  REQUIRE(error_of(::recv(fd, &byte, 1, 0)) == ENOTCONN);
  REQUIRE(error_of(::send(fd, "x", 1, MSG_NOSIGNAL)) == EPIPE);
  REQUIRE(error_of(::getpeername(fd, a.get(), &a.size)) == ENOTCONN);
}

TEST_CASE("listen: TCP_DEFER_ACCEPT holds a connection back until its data comes", "[listen]") {
  const Fd fd = listener();
  set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
  const Fd client = connected_to(local_of(fd));
  REQUIRE_FALSE(becomes(fd, POLLIN, milliseconds(50)));
  REQUIRE(send_all(client, "GET"));
  const Fd server = accept_from(fd);
  REQUIRE(receive_exactly(server, 3) == "GET");
}

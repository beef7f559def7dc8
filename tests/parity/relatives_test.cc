// Processes of one program that connect to each other's listeners.
#include <sys/ioctl.h>

#include <set>
#include <thread>

#include "tests/parity/child.hh"
#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

// As an exit status: 0 is good. Says "ping" and hears "pong".
int talk_as_client(const Address& to) {
  const Fd s(::socket(to.family(), SOCK_STREAM, 0));
  if (::connect(s, to.get(), to.size) != 0) return 1;
  if (!send_all(s, "ping")) return 2;
  return receive_exactly(s, 4) == "pong" && ends(s) ? 0 : 3;
}

int answer(int fd) {
  if (fd < 0) return 11;
  if (receive_exactly(fd, 4) != "ping") return 12;
  return send_all(fd, "pong") ? 0 : 13;
}

int talk_as_server(int listener) {
  const Fd s(::accept(listener, nullptr, nullptr));
  return answer(s);
}

std::uint16_t read_port(int pipe) {
  std::uint16_t port = 0;
  REQUIRE(::read(pipe, &port, sizeof port) == sizeof port);
  return port;
}

}  // namespace

TEST_CASE("relatives: a child connects to its parent's listener", "[relatives]") {
  const Fd l = listener();
  Child child([&] { return talk_as_client(local_of(l)); });
  REQUIRE(talk_as_server(l) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: a child accepts, its parent connects", "[relatives]") {
  const Fd l = listener();
  Child child([&] { return talk_as_server(l); });
  REQUIRE(talk_as_client(local_of(l)) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: one child accepts, another one connects", "[relatives]") {
  const Fd l = listener();
  Child server([&] { return talk_as_server(l); });
  Child client([&] { return talk_as_client(local_of(l)); });
  REQUIRE(client.wait() == 0);
  REQUIRE(server.wait() == 0);
}

TEST_CASE("relatives: a child listens, its parent connects", "[relatives]") {
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  const Fd in(pipe[0]), out(pipe[1]);
  Child child([&] {
    const Fd l = listener();
    const std::uint16_t port = local_of(l).port();
    if (::write(out, &port, sizeof port) != sizeof port) return 20;
    return talk_as_server(l);
  });
  REQUIRE(talk_as_client(server_address(AF_INET, read_port(in))) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: a parent that listens after the fork is reached by its child", "[relatives]") {
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  const Fd in(pipe[0]), out(pipe[1]);
  Child child([&] { return talk_as_client(server_address(AF_INET, read_port(in))); });
  const Fd l = listener();
  const std::uint16_t port = local_of(l).port();
  REQUIRE(::write(out, &port, sizeof port) == sizeof port);
  REQUIRE(talk_as_server(l) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: the listener is on the wildcard address", "[relatives]") {
  for (const int family : {AF_INET, AF_INET6}) {
    const Fd l = stream_socket(family);
    const Address any = wildcard_address(family);
    REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
    REQUIRE(error_of(::listen(l, 8)) == 0);
    const std::uint16_t port = local_of(l).port();
    Child child([&] { return talk_as_client(server_address(AF_INET, port)) + 100 * talk_as_client(server_address(family, port)); });
    REQUIRE(talk_as_server(l) == 0);
    REQUIRE(talk_as_server(l) == 0);
    REQUIRE(child.wait() == 0);
  }
}

TEST_CASE("relatives: a set and poll tell of the child's connection", "[relatives]") {
  const Fd l = listener();
  set_nonblocking(l);
  const Epoll set;
  set.add(l, EPOLLIN);
  Child first([&] { return talk_as_client(local_of(l)); });
  REQUIRE(set.next(l) == EPOLLIN);
  REQUIRE(talk_as_server(l) == 0);
  REQUIRE(error_of(::accept(l, nullptr, nullptr)) == EAGAIN);
  REQUIRE(first.wait() == 0);
  Child second([&] { return talk_as_client(local_of(l)); });
  REQUIRE(becomes(l, POLLIN));
  REQUIRE(talk_as_server(l) == 0);
  REQUIRE(second.wait() == 0);
  REQUIRE(set.wait(0).empty());
}

TEST_CASE("relatives: a one-shot is reported once, whoever connects", "[relatives]") {
  const Fd l = listener();
  set_nonblocking(l);
  const Epoll set;
  const Fd own = connected_to(local_of(l));
  const Gate there, done;
  Child child([&] {
    const Fd s = connected_to(local_of(l));
    there.open();
    done.wait();
    return 0;
  });
  set.add(l, EPOLLIN | EPOLLONESHOT);
  there.wait();
  REQUIRE(set.next(l) == EPOLLIN);
  REQUIRE(set.quiet());
  set.modify(l, EPOLLIN | EPOLLONESHOT);
  REQUIRE(set.next(l) == EPOLLIN);
  REQUIRE(set.quiet());
  const Fd first = accept_from(l), second = accept_from(l);
  set.modify(l, EPOLLIN | EPOLLONESHOT);
  REQUIRE(set.quiet());
  done.open();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: a listener that is shut down while a thread polls it", "[relatives]") {
  const Fd l = listener();
  const Gate done;
  Child child([&] {
    done.wait();
    return 0;
  });
  int seen = 0;
  std::thread poller([&] { seen = poll_events(l, POLLIN, milliseconds(3000)); });
  std::this_thread::sleep_for(milliseconds(50));
  const Errno error = error_of(::shutdown(l, SHUT_RDWR));
  poller.join();
  REQUIRE(error == 0);
  REQUIRE((seen & (POLLHUP | POLLNVAL)) == POLLHUP);
  done.open();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: what a set no longer has does not wake it", "[relatives]") {
  const Fd l = listener();
  const Epoll set;
  set.add(l, EPOLLIN);
  const Gate gate;
  Child child([&] {
    gate.wait();
    return talk_as_client(local_of(l));
  });
  set.modify(l, EPOLLOUT);
  gate.open();
  REQUIRE(becomes(l, POLLIN));
  REQUIRE(set.wait(0).empty());
  set.modify(l, EPOLLIN);
  REQUIRE(set.next(l) == EPOLLIN);
  set.remove(l);
  REQUIRE(set.wait(0).empty());
  REQUIRE(talk_as_server(l) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: both ends know their addresses", "[relatives]") {
  const Fd l = listener();
  Child child([&] {
    const Fd s = connected_to(local_of(l));
    const Address own = local_of(s), peer = peer_of(s);
    if (!(peer == local_of(l)) || own.host() != peer.host() || own.port() == 0) return 1;
    const std::uint16_t port = own.port();
    return ::write(s, &port, sizeof port) == sizeof port && ends(s) ? 0 : 2;
  });
  Address told;
  told.size = sizeof told.storage;
  const Fd s(::accept(l, told.get(), &told.size));
  REQUIRE(s >= 0);
  REQUIRE(local_of(s) == local_of(l));
  REQUIRE(peer_of(s) == told);
  REQUIRE(told.host() == local_of(l).host());
  std::uint16_t port = 0;
  REQUIRE(::read(s, &port, sizeof port) == sizeof port);
  REQUIRE(port == told.port());
  REQUIRE(::shutdown(s, SHUT_WR) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: a bound socket connects from its address and port", "[relatives]") {
  const Fd l = listener();
  Child child([&] {
    const Fd s = bound_socket();
    const Address own = local_of(s), to = local_of(l);
    if (::connect(s, to.get(), to.size) != 0) return 1;
    const std::uint16_t port = own.port();
    return local_of(s) == own && ::write(s, &port, sizeof port) == sizeof port && ends(s) ? 0 : 2;
  });
  const Fd s = accept_from(l);
  std::uint16_t port = 0;
  REQUIRE(::read(s, &port, sizeof port) == sizeof port);
  REQUIRE(peer_of(s).port() == port);
  REQUIRE(::shutdown(s, SHUT_WR) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: a hundred connections of one child have a hundred names", "[relatives]") {
  constexpr int kMany = 100;
  const Fd l = listener();
  const Gate gate;
  Child child([&] {
    std::vector<Fd> all;
    for (int i = 0; i < kMany; ++i) all.push_back(connected_to(local_of(l)));
    gate.wait();
    return 0;
  });
  std::vector<Fd> accepted;
  std::set<std::uint16_t> ports;
  for (int i = 0; i < kMany; ++i) {
    accepted.push_back(accept_from(l));
    ports.insert(peer_of(accepted.back()).port());
  }
  REQUIRE(ports.size() == kMany);
  gate.open();
  REQUIRE(child.wait() == 0);
  REQUIRE(ends(accepted.back()));
}

TEST_CASE("relatives: a connect that does not wait, and a half close", "[relatives]") {
  const Fd l = listener();
  Child child([&] {
    const Fd s = stream_socket(AF_INET, SOCK_NONBLOCK);
    const Address to = local_of(l);
    if (::connect(s, to.get(), to.size) != 0 && errno != EINPROGRESS) return 1;
    if (!becomes(s, POLLOUT) || option(s, SOL_SOCKET, SO_ERROR) != 0) return 2;
    if ((::fcntl(s, F_GETFL) & O_NONBLOCK) == 0) return 3;
    if (!send_all(s, "ask") || ::shutdown(s, SHUT_WR) != 0) return 4;
    set_nonblocking(s, false);
    return receive_until_end(s) == "answer" ? 0 : 5;
  });
  const Fd s = accept_from(l);
  REQUIRE((::fcntl(s, F_GETFL) & O_NONBLOCK) == 0);
  REQUIRE(receive_until_end(s) == "ask");
  REQUIRE(send_all(s, "answer"));
  REQUIRE(::shutdown(s, SHUT_WR) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: sixteen megabytes each way", "[relatives]") {
  const Fd l = listener();
  const std::string block = pattern(1 << 20, 5);
  Child child([&] {
    const Fd s = connected_to(local_of(l));
    for (int i = 0; i < 16; ++i) {
      if (!send_all(s, block) || receive_exactly(s, block.size()) != block) return 1;
    }
    return 0;
  });
  const Fd s = accept_from(l);
  for (int i = 0; i < 16; ++i) {
    REQUIRE(receive_exactly(s, block.size()) == block);
    REQUIRE(send_all(s, block));
  }
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: options of an accepted connection", "[relatives]") {
  const Fd l = listener();
  set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(l, IPPROTO_TCP, TCP_NODELAY, 1);
  Child child([&] { return talk_as_client(local_of(l)); });
  const Fd s = accept_from(l);
  REQUIRE(option(s, SOL_SOCKET, SO_KEEPALIVE) == 1);
  REQUIRE(option(s, IPPROTO_TCP, TCP_NODELAY) != 0);
  set_option(s, IPPROTO_TCP, TCP_NODELAY, 0);
  REQUIRE(option(s, IPPROTO_TCP, TCP_NODELAY) == 0);
  REQUIRE(option(s, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
  REQUIRE(option(s, SOL_SOCKET, SO_DOMAIN) == AF_INET);
  REQUIRE(option(s, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
  REQUIRE(option(s, SOL_SOCKET, SO_ACCEPTCONN) == 0);
  REQUIRE(answer(s) == 0);
  REQUIRE(::shutdown(s, SHUT_WR) == 0);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("relatives: a child's child goes on with the connection", "[relatives]") {
  const Fd l = listener();
  Child client([&] { return talk_as_client(local_of(l)); });
  Child server([&] {
    const Fd s(::accept(l, nullptr, nullptr));
    return in_child([&] { return answer(s); });
  });
  REQUIRE(client.wait() == 0);
  REQUIRE(server.wait() == 0);
}

TEST_CASE("relatives: a program that a child starts knows the names of its connection", "[relatives]") {
  const Fd l = listener();
  for (const bool accepts : {true, false}) {
    Child child([&] {
      const Fd s = accepts ? Fd(::accept(l, nullptr, nullptr)) : connected_to(local_of(l));
      ::dup2(s, 0);
      ::execlp("python3", "python3", "-c",
               "import socket\ns = socket.fromfd(0, socket.AF_INET, socket.SOCK_STREAM)\n"
               "s.sendall(('%d %d' % (s.getsockname()[1], s.getpeername()[1])).encode())\n",
               nullptr);
      return 98;
    });
    const Fd s = accepts ? connected_to(local_of(l)) : accept_from(l);
    const std::string wanted = std::to_string(peer_of(s).port()) + " " + std::to_string(local_of(s).port());
    REQUIRE(receive_until_end(s) == wanted);
    REQUIRE(child.wait() == 0);
  }
}

TEST_CASE("relatives: when all have closed the listener a connect is refused", "[relatives]") {
  Fd l = listener();
  const Address to = local_of(l);
  Child child([&] {
    ::close(l.release());
    return 0;
  });
  REQUIRE(child.wait() == 0);
  l.reset();
  REQUIRE(in_child([&] {
            const Fd s = stream_socket();
            return ::connect(s, to.get(), to.size) == -1 && errno == ECONNREFUSED ? 0 : 1;
          }) == 0);
  const Fd s = stream_socket();
  REQUIRE(error_of(::connect(s, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("relatives: the listener goes on in the child when the parent has closed it", "[relatives]") {
  Fd l = listener();
  const Address to = local_of(l);
  const Gate gate;
  Child child([&] {
    gate.wait();
    return talk_as_server(l);
  });
  l.reset();
  gate.open();
  REQUIRE(talk_as_client(to) == 0);
  REQUIRE(child.wait() == 0);
}

// Connections that several processes have, step by step: the owner serves when the test says so.
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <functional>
#include <utility>

#include "intercept/relay/relay_channel.hh"
#include "tests/intercept/bench.hh"

using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

void serve(Bench& b) {
  for (int i = 0; i < 4; ++i) {
    {
      const Guard guard(*b, Guard::Everything{});
      b->relay.serve();
    }
    b.settle();
  }
}

// Passes `fd` on as sendmsg(2) with SCM_RIGHTS would, and returns the copy that its receiver would have.
int pass(Bench& b, int fd) {
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    cmsghdr align;
  } control{};
  msghdr m{};
  m.msg_control = control.bytes;
  m.msg_controllen = sizeof control.bytes;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  b->pass_descriptors(&m);
  return ::dup(fd);
}

std::string read_kernel(int fd) {
  char buffer[4096];
  const ssize_t n = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
  return n < 0 ? "error " + std::to_string(errno) : std::string(buffer, static_cast<std::size_t>(n));
}

std::uint64_t relayed(Bench& b) {
  return b->first().instance->stats().get(mtcp::stack::Counter::relayed_connections);
}

// Forks; the child runs `body` and this process serves until it is done. The child's exit status.
int in_child(
    Bench& b, const std::function<int()>& body, const std::function<void()>& meanwhile = [] {}) {
  b->before_fork();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  b->after_fork(child == 0);
  if (child == 0) {
    ::alarm(60);
    ::_exit(body());
  }
  meanwhile();
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    serve(b);
    ::usleep(200);
  }
  serve(b);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a connection that is passed on works at both ends, and ends with the last of them") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(b.send(p.client, "before") == 6);
  b.settle();
  const int other = pass(b, p.server);
  serve(b);
  CHECK(relayed(b) == 1);
  CHECK(read_kernel(other) == "before");
  REQUIRE(b.send(p.server, "one ") == 4);
  REQUIRE(::send(other, "two", 3, MSG_NOSIGNAL) == 3);
  serve(b);
  CHECK(b.recv(p.client) == "one two");
  REQUIRE(b->close(p.server) == 0);
  serve(b);
  CHECK(b.recv(p.client, 1, MSG_DONTWAIT) == "error " + std::to_string(EAGAIN));
  REQUIRE(::send(other, "three", 5, MSG_NOSIGNAL) == 5);
  ::close(other);
  serve(b);
  CHECK(b.recv(p.client) == "three");
  CHECK(b.recv(p.client).empty());
}

TEST_CASE("a passed connection keeps its name, its options and its half closes") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(b.set(p.server, SOL_SOCKET, SO_KEEPALIVE, 1) == 0);
  const std::uint16_t port = b.port_of(p.server);
  const int other = pass(b, p.server);
  CHECK(b.port_of(p.server) == port);
  sockaddr_in peer{};
  socklen_t n = sizeof peer;
  CHECK(b->getpeername(p.server, reinterpret_cast<sockaddr*>(&peer), &n) == 0);
  CHECK(peer.sin_family == AF_INET);
  CHECK(b.get(p.server, SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(b.get(p.server, SOL_SOCKET, SO_ERROR) == 0);
  REQUIRE(b->shutdown(p.server, SHUT_WR) == 0);
  serve(b);
  CHECK(b.recv(p.client).empty());
  REQUIRE(b.send(p.client, "reply") == 5);
  serve(b);
  CHECK(b.recv(p.server) == "reply");
  REQUIRE(b->shutdown(p.client, SHUT_WR) == 0);
  serve(b);
  CHECK(read_kernel(other).empty());
  ::close(other);
}

// A child has copies of what this process has open until it has closed them, which may take it a while.
TEST_CASE("what becomes of an earlier relay does not end a later one, while a child still has copies of it") {
  Bench b;
  const auto first = b.pair();
  const int first_user = pass(b, first.server);
  serve(b);
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  b->before_fork();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(60);
    char c = 0;
    ::close(gate[1]);
    ::_exit(::read(gate[0], &c, 1) == 0 ? 0 : 1);
  }
  b->after_fork(false);
  REQUIRE(::shutdown(first_user, SHUT_RDWR) == 0);
  serve(b);
  const auto second = b.pair();
  const int second_user = pass(b, second.server);
  serve(b);
  REQUIRE(relayed(b) == 2);
  REQUIRE(::shutdown(first_user, SHUT_RDWR) == 0);  // an event once more, though it has no relay by now
  serve(b);
  REQUIRE(::send(second_user, "still here", 10, MSG_NOSIGNAL) == 10);
  serve(b);
  CHECK(b.recv(second.client, 100, MSG_DONTWAIT) == "still here");
  REQUIRE(b.send(second.client, "so am I") == 7);
  serve(b);
  CHECK(read_kernel(second_user) == "so am I");
  ::close(gate[0]);
  ::close(gate[1]);
  int status = 1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  ::close(first_user);
  ::close(second_user);
}

TEST_CASE("more than the pair and the window hold waits, and none of it is lost") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  const int other = pass(b, p.server);
  std::string sent, got;
  char buffer[8192];
  for (int round = 0; round < 4000 && sent.size() < (4U << 20); ++round) {
    for (std::size_t i = 0; i < sizeof buffer; ++i) buffer[i] = static_cast<char>(sent.size() + i * 7);
    const ssize_t n = ::send(other, buffer, sizeof buffer, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent.append(buffer, static_cast<std::size_t>(n));
    if (n < 0 || round % 5 == 0) {
      serve(b);
      std::string part = b.recv(p.client, 100'000, MSG_DONTWAIT);
      if (!part.starts_with("error")) got += part;
    }
  }
  ::close(other);
  REQUIRE(b->close(p.server) == 0);
  for (int i = 0; i < 4000; ++i) {
    serve(b);
    const std::string part = b.recv(p.client, 100'000, MSG_DONTWAIT);
    if (part.empty()) break;
    if (!part.starts_with("error")) got += part;
  }
  REQUIRE(sent.size() >= (4U << 20));
  CHECK(got.size() == sent.size());
  CHECK((got == sent));
}

TEST_CASE("a reset of the connection ends the relay for its users") {
  Bench b;
  const auto p = b.pair();
  const int other = pass(b, p.server);
  serve(b);
  const linger hard{.l_onoff = 1, .l_linger = 0};
  REQUIRE(b->setsockopt(p.client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  REQUIRE(b->close(p.client) == 0);
  serve(b);
  pollfd look{other, POLLIN, 0};
  CHECK(::poll(&look, 1, 0) == 1);
  CHECK((look.revents & (POLLIN | POLLERR | POLLHUP)) == (POLLIN | POLLERR | POLLHUP));
  CHECK(read_kernel(other) == "error " + std::to_string(ECONNRESET));
  CHECK(read_kernel(other).empty());
  CHECK(::send(other, "x", 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);
  ::close(other);
}

TEST_CASE("a reset is told to users who have written before, whether long messages or short ones, if the last is short") {
  Bench b;
  for (const std::size_t last : {1UL, 2UL, 128UL}) {
    const auto p = b.pair();
    const int other = pass(b, p.server);
    std::string sent;
    for (const std::size_t n : {1UL, 700UL, 3UL, 5000UL, 60'000UL, last}) {
      const std::string part(n, static_cast<char>('a' + n % 26));
      REQUIRE(::send(other, part.data(), n, MSG_NOSIGNAL) == static_cast<ssize_t>(n));
      sent += part;
      serve(b);
    }
    std::string got;
    while (got.size() < sent.size()) {
      got += b.recv(p.client, 100'000);
      serve(b);
    }
    CHECK((got == sent));
    const linger hard{.l_onoff = 1, .l_linger = 0};
    REQUIRE(b->setsockopt(p.client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    REQUIRE(b->close(p.client) == 0);
    serve(b);
    CHECK(read_kernel(other) == "error " + std::to_string(ECONNRESET));
    CHECK(b.send(p.server, "x") == -EPIPE);  // the error has been told
    ::close(other);
    REQUIRE(b->close(p.server) == 0);
  }
}

TEST_CASE("with the smallest SO_SNDBUF a user can write after the byte that is left of each short message") {
  Bench b;
  const auto p = b.pair();
  const int other = pass(b, p.server);
  const int smallest = 1;
  REQUIRE(::setsockopt(other, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest) == 0);
  for (const std::size_t n : {1UL, 64UL, 127UL, 128UL, 129UL, 500UL, 2000UL}) {
    const std::string part(n, 'x');
    REQUIRE(::send(other, part.data(), n, MSG_NOSIGNAL) == static_cast<ssize_t>(n));
    serve(b);
    CHECK(b.recv(p.client, 10'000) == part);
    pollfd look{other, POLLOUT, 0};
    CHECK(::poll(&look, 1, 0) == 1);
  }
  ::close(other);
}

TEST_CASE("the process that has the connection tells of a reset, and that nothing is queued") {
  Bench b;
  const auto p = b.pair();
  const int other = pass(b, p.server);
  REQUIRE(b.send(p.server, "short") == 5);
  serve(b);
  int queued = -1;
  CHECK(b->ioctl(p.server, SIOCOUTQ, &queued) == 0);
  CHECK(queued == 0);
  const linger hard{.l_onoff = 1, .l_linger = 0};
  REQUIRE(b->setsockopt(p.client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  REQUIRE(b->close(p.client) == 0);
  serve(b);
  CHECK(b.send(p.server, "x") == -ECONNRESET);
  CHECK(b.send(p.server, "x") == -EPIPE);
  ::close(other);
}

TEST_CASE("an option that is set after the connection was passed on is the connection's") {
  Bench b;
  const auto p = b.pair();
  const int other = pass(b, p.server);
  const linger hard{.l_onoff = 1, .l_linger = 0};
  REQUIRE(b->setsockopt(p.server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  ::close(other);
  REQUIRE(b->close(p.server) == 0);
  serve(b);
  CHECK(b.recv(p.client) == "error " + std::to_string(ECONNRESET));
}

TEST_CASE("without room for a relay the connection stays as it was") {
  Bench b;
  const auto p = b.pair();
  b.kernel.fail_next["socketpair"] = EMFILE;
  ::close(pass(b, p.server));
  REQUIRE(b.send(p.client, "unharmed") == 8);
  b.settle();
  CHECK(b.recv(p.server) == "unharmed");
  CHECK(relayed(b) == 0);
}

TEST_CASE("a fork without connections makes no channel") {
  Bench b;
  const int l = b.listener();
  REQUIRE(l >= 0);
  b->before_fork();  // the first one gives the listener its Unix socket
  b->after_fork(false);
  const int before = b.kernel.total();
  b->before_fork();
  b->after_fork(false);
  CHECK(b.kernel.total() == before);
  CHECK(b.kernel.calls["socketpair"] == 0);
}

TEST_CASE("a child that uses a connection gets a relay, one that does not gets none") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(in_child(b, [] { return 0; }) == 0);
  CHECK(relayed(b) == 0);
  REQUIRE(in_child(b, [&] { return b.send(p.server, "child") == 5 ? 0 : 1; }) == 0);
  CHECK(relayed(b) == 1);
  CHECK(b.recv(p.client) == "child");
  REQUIRE(b.send(p.server, "parent") == 6);
  serve(b);
  CHECK(b.recv(p.client) == "parent");
}

TEST_CASE("a connection that its process has closed stays open for a child that has not decided") {
  Bench b;
  const auto p = b.pair();
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  const auto child = [&] {
    char c = 0;
    if (::read(gate[0], &c, 1) != 1) return 1;
    return b->close(p.server) == 0 && ::read(gate[0], &c, 1) == 1 ? 0 : 2;
  };
  const auto parent = [&] {
    REQUIRE(b->close(p.server) == 0);
    serve(b);
    CHECK(b.recv(p.client, 1, MSG_DONTWAIT) == "error " + std::to_string(EAGAIN));
    REQUIRE(::write(gate[1], "x", 1) == 1);
    std::string end = "nothing yet";
    for (int i = 0; i < 10'000 && !end.empty(); ++i) {
      serve(b);
      end = b.recv(p.client, 1, MSG_DONTWAIT);
      ::usleep(200);
    }
    CHECK(end.empty());
    REQUIRE(::write(gate[1], "x", 1) == 1);
  };
  REQUIRE(in_child(b, child, parent) == 0);
  ::close(gate[0]);
  ::close(gate[1]);
}

TEST_CASE("a connection made after the fork is not held by the child") {
  Bench b;
  const auto p = b.pair();
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  const auto parent = [&] {
    const auto q = b.pair();
    REQUIRE(b->close(q.server) == 0);
    b.settle();
    CHECK(b.recv(q.client).empty());
    REQUIRE(::write(gate[1], "x", 1) == 1);
  };
  const auto child = [&] {
    char c = 0;
    return ::read(gate[0], &c, 1) == 1 ? 0 : 1;
  };
  REQUIRE(in_child(b, child, parent) == 0);
  REQUIRE(b.send(p.client, "x") == 1);
  ::close(gate[0]);
  ::close(gate[1]);
}

TEST_CASE("a child whose owner is gone is told that there is no connection") {
  Bench b;
  const auto p = b.pair();
  b->before_fork();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  b->after_fork(child == 0);
  if (child == 0) {
    ::alarm(60);
    char c = 0;
    const ssize_t got = b->recv(p.server, &c, 1, 0);
    ::_exit(got == -ECONNRESET || got == -ENOTCONN ? 0 : 1);
  }
  // This process closes its channel as if it ended.
  ::usleep(20'000);
  {
    const Guard guard(*b, Guard::Everything{});
    (void)b->relay.after_fork_in_child();
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

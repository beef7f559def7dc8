// posix_spawn with connections: what is behind their numbers meanwhile, and what becomes of them.
#include <fcntl.h>

#include <catch2/catch.hpp>
#include <vector>

#include "intercept/lifetime/program_key.hh"
#include "tests/intercept/bench.hh"

using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

using Kind = SpawnAction::Kind;

void serve(Bench& b) {
  for (int i = 0; i < 4; ++i) {
    {
      const Guard guard(*b, Guard::Everything{});
      b->relay.serve();
    }
    b.settle();
  }
}

// The kernel's view of a number: AF_INET is the unconnected socket behind a connection of ours.
int family(int fd) {
  int value = -1;
  socklen_t n = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &n) == 0 ? value : -1;
}

Start* begin(Bench& b, const std::vector<SpawnAction>& actions) {
  return b->before_spawn(actions.data(), actions.size(), false);
}

std::uint64_t relayed(Bench& b) {
  return b->first().instance->stats().get(mtcp::stack::Counter::relayed_connections);
}

// Whether both ends of a connection hear each other.
bool talks(Bench& b, const Bench::Pair& p) {
  if (b.send(p.client, "ping") != 4) return false;
  serve(b);
  if (b.recv(p.server) != "ping" || b.send(p.server, "pong") != 4) return false;
  serve(b);
  return b.recv(p.client) == "pong";
}

// Of the client nothing is passed on: programs get what has no FD_CLOEXEC.
Bench::Pair quiet_pair(Bench& b, int flags = 0) {
  const Bench::Pair p = b.pair(flags);
  REQUIRE(b->fcntl(p.client, F_SETFD, FD_CLOEXEC) == 0);
  return p;
}

}  // namespace

TEST_CASE("while a program is started the kernel has a pair's end under the number, and the connection goes on") {
  Bench b;
  const auto p = quiet_pair(b, SOCK_CLOEXEC);
  Start* start = begin(b, {{Kind::dup2, p.server, 0}});
  CHECK(family(p.server) == AF_UNIX);
  CHECK(family(p.client) == AF_INET);
  CHECK((::fcntl(p.server, F_GETFD) & FD_CLOEXEC) != 0);  // as the application has it: the copy is what is passed
  CHECK(talks(b, p));
  b->after_spawn(start, false);
  CHECK(family(p.server) == AF_INET);
  CHECK((::fcntl(p.server, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(talks(b, p));
  CHECK(relayed(b) == 0);
}

TEST_CASE("a program that came to life and its parent have the connection through a relay") {
  Bench b;
  const auto p = quiet_pair(b);
  REQUIRE(b->fcntl(p.server, F_SETFD, 0) == 0);
  Start* start = begin(b, {});
  CHECK((::fcntl(p.server, F_GETFD) & FD_CLOEXEC) == 0);
  const int childs = ::dup(p.server);
  REQUIRE(::send(childs, "early", 5, 0) == 5);
  b->after_spawn(start, true);
  serve(b);
  CHECK(relayed(b) == 1);
  CHECK(b.recv(p.client) == "early");
  CHECK((::fcntl(p.server, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(talks(b, p));
  REQUIRE(b->close(p.server) == 0);
  serve(b);
  REQUIRE(::send(childs, "more", 4, 0) == 4);
  ::close(childs);
  serve(b);
  CHECK(b.recv(p.client) == "more");
  CHECK(b.recv(p.client).empty());
}

TEST_CASE("a program that does not get the connection in the end has nothing put under its number") {
  Bench b;
  const auto p = quiet_pair(b);
  REQUIRE(b->fcntl(p.server, F_SETFD, 0) == 0);
  const std::vector<std::vector<SpawnAction>> closing = {
      {{Kind::close, p.server, -1}},
      {{Kind::close_from, 3, -1}},
      {{Kind::dup2, p.server, 900}, {Kind::close_from, 3, -1}},
      {{Kind::dup2, 1, p.server}},
      {{Kind::dup2, p.server, 900}, {Kind::close, p.server, -1}, {Kind::dup2, p.server, 900}},
  };
  for (const auto& actions : closing) {
    Start* start = begin(b, actions);
    CHECK(family(p.server) == AF_INET);
    CHECK((::fcntl(p.server, F_GETFD) & FD_CLOEXEC) != 0);
    b->after_spawn(start, true);
  }
  CHECK(relayed(b) == 0);
}

TEST_CASE("FD_CLOEXEC that merely was never set passes a few connections on, and none of many") {
  constexpr int kMany = 40;
  for (const int count : {1, kMany}) {
    Bench b;
    std::vector<Bench::Pair> pairs;
    for (int i = 0; i < count; ++i) pairs.push_back(quiet_pair(b));
    Start* start = begin(b, {});
    for (const auto& p : pairs) {
      CHECK(family(p.server) == (count == kMany ? AF_INET : AF_UNIX));
      CHECK(((::fcntl(p.server, F_GETFD) & FD_CLOEXEC) != 0) == (count == kMany));
    }
    b->after_spawn(start, true);
    CHECK(relayed(b) == (count == kMany ? 0U : 1U));
  }
}

TEST_CASE("two programs that are started at a time share one pair") {
  Bench b;
  const auto p = quiet_pair(b);
  Start* one = begin(b, {{Kind::dup2, p.server, 0}});
  Start* two = begin(b, {{Kind::dup2, p.server, 1}});
  b->after_spawn(one, false);
  CHECK(family(p.server) == AF_UNIX);
  const int childs = ::dup(p.server);
  b->after_spawn(two, true);
  CHECK(relayed(b) == 1);
  REQUIRE(::send(childs, "hello", 5, 0) == 5);
  serve(b);
  CHECK(b.recv(p.client) == "hello");
  ::close(childs);
}

TEST_CASE("a connection that is closed while the program is started is the program's, or ends") {
  Bench b;
  for (const bool made : {true, false}) {
    const auto p = quiet_pair(b);
    Start* start = begin(b, {{Kind::dup2, p.server, 0}});
    const int childs = ::dup(p.server);
    REQUIRE(b->close(p.server) == 0);
    serve(b);
    CHECK(b.recv(p.client, 1, MSG_DONTWAIT) == "error " + std::to_string(EAGAIN));
    if (!made) ::close(childs);
    b->after_spawn(start, made);
    if (made) {
      REQUIRE(::send(childs, "mine", 4, 0) == 4);
      ::close(childs);
    }
    serve(b);
    CHECK(b.recv(p.client) == (made ? "mine" : ""));
    CHECK(b.recv(p.client).empty());
  }
}

TEST_CASE("without descriptors for a pair a program is started without the connection") {
  Bench b;
  const auto p = quiet_pair(b);
  b.kernel.fail_next["socketpair"] = EMFILE;
  Start* start = begin(b, {{Kind::dup2, p.server, 0}});
  CHECK(family(p.server) == AF_INET);
  b->after_spawn(start, true);
  CHECK(talks(b, p));
  CHECK(relayed(b) == 0);
}

TEST_CASE("a listener is left to the next program, and taken up there") {
  Bench b;
  const int l = b.listener();
  REQUIRE(l >= 0);
  char text[64] = {};
  REQUIRE(b->fcntl(l, F_SETFD, FD_CLOEXEC) == 0);
  CHECK(b->describe_listeners(text, sizeof text) == 0);
  REQUIRE(b->fcntl(l, F_SETFD, 0) == 0);
  const std::size_t length = b->describe_listeners(text, sizeof text);
  CHECK(std::string(text, length).starts_with(std::to_string(l) + ":"));
  CHECK(b->describe_listeners(text, 3) == 0);  // no room: none rather than half a number
  const std::uint16_t port = b.port_of(l);
  const int left = ::dup(l);
  REQUIRE(b->close(l) == 0);

  CHECK(b->take_up_listener(left, 7, true) == 0);
  CHECK(b.port_of(left) == port);
  CHECK(b->fcntl(left, F_GETFD, 0) == 0);
  CHECK((::fcntl(left, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(b->take_up_listener(left, 7, true) == -EBADF);  // it is ours
  const std::string described(text, b->describe_listeners(text, sizeof text));
  CHECK(described.starts_with(std::to_string(left) + ":7,p"));
  REQUIRE(setenv("MTCP_LISTENERS", described.c_str(), 1) == 0);
  CHECK(number_of_predecessor() == program_number());
  REQUIRE(setenv("MTCP_LISTENERS", "5:7,6:128b,", 1) == 0);
  CHECK(number_of_predecessor() == 0);
  REQUIRE(unsetenv("MTCP_LISTENERS") == 0);
  CHECK(number_of_predecessor() == 0);
  const int other = ::socket(AF_INET, SOCK_STREAM, 0);
  CHECK(b->take_up_listener(other, 7, true) == -ENOTSOCK);  // does not listen
  CHECK(b->take_up_listener(-1, 7, true) == -EBADF);
  ::close(other);
}

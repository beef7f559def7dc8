// Descriptors: pool, close, dup, close_range, exec and fork.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/intercept/bench.hh"

using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

TEST_CASE("a socket of ours has a real kernel socket behind its number") {
  Bench b;
  const int fd = b.tcp();
  REQUIRE(fd >= 0);
  CHECK(b.table.kind(fd) == FdKind::socket);
  struct stat st {};
  REQUIRE(::fstat(fd, &st) == 0);
  CHECK(S_ISSOCK(st.st_mode));
  char c = 0;
  CHECK(::read(fd, &c, 1) == -1);
  CHECK(errno == ENOTCONN);  // what a call by a side door gets
}

TEST_CASE("what is not TCP over IP is not ours") {
  Bench b;
  CHECK(b->socket(AF_UNIX, SOCK_STREAM, 0) == -ENOTSUP);
  CHECK(b->socket(AF_INET, SOCK_DGRAM, 0) == -ENOTSUP);
  CHECK(b->socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP) == -ENOTSUP);
  CHECK(b->socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) >= 0);
}

TEST_CASE("closing and making sockets takes no system call once the pool is filled") {
  Bench b;
  CHECK(b->close(b.tcp()) == 0);
  const int before = b.kernel.total();
  for (int i = 0; i < 100; ++i) {
    const int fd = b.tcp();
    REQUIRE(fd >= 0);
    REQUIRE(b->close(fd) == 0);
  }
  CHECK(b.kernel.total() == before);
}

TEST_CASE("accepting and closing takes no system call once the pool is filled") {
  Bench b;
  const int l = b.listener(SOCK_NONBLOCK);
  const auto round = [&] {
    const int c = b.tcp(SOCK_NONBLOCK);
    REQUIRE(b.connect(c, kOwn, b.port) == -EINPROGRESS);
    b.settle();
    const int s = b->accept4(l, nullptr, nullptr, 0);
    REQUIRE(s >= 0);
    REQUIRE(b->close(c) == 0);
    REQUIRE(b->close(s) == 0);
    b.settle();
  };
  round();
  const int before = b.kernel.total();
  for (int i = 0; i < 20; ++i) round();
  CHECK(b.kernel.total() == before);
}

TEST_CASE("a bound socket is closed for real, so that its port is free again") {
  Bench b;
  const int fd = b.listener();
  const auto port = b.port;
  REQUIRE(b->close(fd) == 0);
  CHECK(b.table.kind(fd) == FdKind::kernel);
  CHECK(::fcntl(fd, F_GETFD) == -1);
  const int again = b.tcp();
  const sockaddr_in a = Bench::address(kOwn, port);
  CHECK(b->bind(again, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0);
}

TEST_CASE("the standard streams' numbers never stay in the pool") {
  Bench b;
  const int saved = ::dup(0);
  ::close(0);
  const int fd = b.tcp();
  CHECK(fd == 0);
  CHECK(b->close(fd) == 0);
  CHECK(b.table.kind(0) == FdKind::kernel);
  CHECK(::fcntl(0, F_GETFD) == -1);
  REQUIRE(::dup2(saved, 0) == 0);
  ::close(saved);
}

TEST_CASE("EMFILE of the kernel is EMFILE of accept, and the connection stays in the queue") {
  Bench b;
  const int l = b.listener(SOCK_NONBLOCK);
  const int c = b.tcp(SOCK_NONBLOCK);
  REQUIRE(b.connect(c, kOwn, b.port) == -EINPROGRESS);
  b.settle();
  b.kernel.fail_next["socket"] = EMFILE;
  CHECK(b->accept4(l, nullptr, nullptr, 0) == -EMFILE);
  CHECK(b->accept4(l, nullptr, nullptr, 0) >= 0);
}

TEST_CASE("dup shares the description, and only the last close ends the connection") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(p.server >= 0);
  const int twin = b->dup(p.server);
  REQUIRE(twin >= 0);
  REQUIRE(b->fcntl(twin, F_SETFL, O_NONBLOCK) == 0);
  CHECK((b->fcntl(p.server, F_GETFL, 0) & O_NONBLOCK) != 0);
  REQUIRE(b->close(p.server) == 0);
  REQUIRE(b.send(p.client, "still there") == 11);
  b.settle();
  CHECK(b.recv(twin) == "still there");
  REQUIRE(b->close(twin) == 0);
  b.settle();
  CHECK(b.recv(p.client).empty());  // the end of the stream
}

TEST_CASE("dup2 onto a socket of ours closes what was there, and onto itself does nothing") {
  Bench b;
  const auto p = b.pair();
  const int other = b.tcp();
  CHECK(b->dup3(other, p.server, 0, true) == p.server);
  b.settle();
  CHECK(b.recv(p.client).empty());
  CHECK(b->dup3(other, other, 0, true) == other);
  CHECK(b->dup3(other, other, 0, false) == -EINVAL);
  CHECK(b->dup3(other, -1, 0, true) == -EBADF);
  CHECK(b->dup3(other, 100, O_NONBLOCK, false) == -EINVAL);
}

TEST_CASE("dup2 of a kernel descriptor over ours, and of ours over a kernel descriptor") {
  Bench b;
  const int ours = b.tcp();
  const int pipe_end = ::dup(1);
  CHECK(b->dup3(pipe_end, ours, 0, true) == ours);
  CHECK(b.table.kind(ours) == FdKind::kernel);
  const int another = b.tcp();
  CHECK(b->dup3(another, pipe_end, O_CLOEXEC, false) == pipe_end);
  CHECK(b.table.kind(pipe_end) == FdKind::socket);
  CHECK(b->fcntl(pipe_end, F_GETFD, 0) == FD_CLOEXEC);
  CHECK(b->fcntl(another, F_GETFD, 0) == 0);
  // A source that is not open leaves the target alone.
  CHECK(b->dup3(3000, another, 0, true) == -EBADF);
  CHECK(b.table.kind(another) == FdKind::socket);
  ::close(ours);
}

TEST_CASE("F_DUPFD gives the lowest free number from its argument on") {
  Bench b;
  const int fd = b.tcp();
  const int high = b->fcntl(fd, F_DUPFD, 200);
  CHECK(high == 200);
  CHECK(b->fcntl(high, F_GETFD, 0) == 0);
  const int closed = b->fcntl(fd, F_DUPFD_CLOEXEC, 200);
  CHECK(closed == 201);
  CHECK(b->fcntl(closed, F_GETFD, 0) == FD_CLOEXEC);
}

TEST_CASE("close_range closes ours and the kernel's and spares what is internal") {
  Bench b;
  const int ours = b->fcntl(b.tcp(), F_DUPFD, 300);
  const int spare = b->fcntl(b.tcp(), F_DUPFD, 302);
  REQUIRE(b->close(spare) == 0);  // a duplicate: its number is free
  REQUIRE(::dup2(1, 301) == 301);
  REQUIRE(::dup2(1, 303) == 303);
  REQUIRE(::dup2(1, 304) == 304);
  b->files.put_reserved(303);
  REQUIRE(b->close_range(300, 400, 0) == 0);
  CHECK(b.table.kind(ours) == FdKind::kernel);
  CHECK(::fcntl(301, F_GETFD) == -1);
  CHECK(::fcntl(303, F_GETFD) != -1);
  CHECK(::fcntl(304, F_GETFD) == -1);
  b->files.clear(303);
  ::close(303);
  CHECK(b->close_range(5, 4, 0) == -EINVAL);
  CHECK(b->close_range(5, 6, 64) == -EINVAL);
}

TEST_CASE("close_range with CLOEXEC only marks") {
  Bench b;
  const int fd = b.tcp();
  REQUIRE(b->close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), 4) == 0);
  CHECK(b.table.kind(fd) == FdKind::socket);
  CHECK(b->fcntl(fd, F_GETFD, 0) == FD_CLOEXEC);
}

TEST_CASE(
    "before exec the kernel's close-on-exec flag is what the application asked for, but never for "
    "connections") {
  Bench b;
  const auto p = b.pair();
  const int closed = b.tcp(SOCK_CLOEXEC);
  b->before_exec();
  CHECK(::fcntl(p.listener, F_GETFD) == 0);
  CHECK(::fcntl(p.client, F_GETFD) == FD_CLOEXEC);
  CHECK(::fcntl(closed, F_GETFD) == FD_CLOEXEC);
  b->after_failed_exec();
  CHECK(::fcntl(p.listener, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("after a fork connections stay the parent's and the child's listeners start anew") {
  Bench b;
  const auto p = b.pair();
  b->services.has_relatives = [] { return true; };
  b->before_fork();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  b->after_fork(child == 0);
  if (child == 0) {
    ::alarm(60);
    int failed = 0;
    if (b->close(p.server) != 0) failed |= 4;
    if (b->started()) failed |= 8;
    // The listener works for the child, which reaches it as one that its parent has, too.
    const int fd = b.tcp();
    if (b.connect(fd, kOwn, b.port) != 0) failed |= 16;
    if (b->accept4(p.listener, nullptr, nullptr, 0) < 0) failed |= 32;
    b->at_exit();
    ::_exit(failed);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  REQUIRE(b.send(p.client, "unharmed") == 8);
  b.settle();
  CHECK(b.recv(p.server) == "unharmed");
  // The child had this kernel socket, too: it does not come back from the pool.
  REQUIRE(b->close(p.server) == 0);
  CHECK(b.table.kind(p.server) == FdKind::kernel);
}

TEST_CASE("at exit what has been written still arrives, and then the end of the stream") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(b.send(p.client, "last words") == 10);
  b->at_exit();
  CHECK(b.recv(p.client) == "error " + std::to_string(ENOTCONN));
}

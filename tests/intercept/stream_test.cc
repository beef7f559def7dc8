// Bytes: recv, send, their flags, timeouts, scatter lists, sendfile, and the ioctls that count.
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "tests/intercept/bench.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

std::string error(int e) { return "error " + std::to_string(e); }

std::string pattern(std::size_t n) {
  std::string s(n, '\0');
  for (std::size_t i = 0; i < n; ++i) s[i] = static_cast<char>('a' + (i * 7 + i / 1000) % 26);
  return s;
}

// An unnamed file with this in it.
int file_with(const std::string& s) {
  char name[] = "/tmp/mtcp-test-XXXXXX";
  const int fd = ::mkstemp(name);
  ::unlink(name);
  REQUIRE(::write(fd, s.data(), s.size()) == static_cast<ssize_t>(s.size()));
  ::lseek(fd, 0, SEEK_SET);
  return fd;
}

// Reads until `n` bytes or the end, in another thread, so that a blocking sender can go on.
struct Reader {
  Reader(Bench& b, int fd, std::size_t n)
      : thread([this, &b, fd, n] {
          while (got.size() < n) {
            const std::string s = b.recv(fd);
            if (s.empty() || s.starts_with("error")) return;
            got += s;
          }
        }) {}
  std::string got;
  std::thread thread;
};

}  // namespace

TEST_CASE(
    "a nonblocking read of nothing is EAGAIN, of an ended stream 0, of an unconnected socket ENOTCONN") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  CHECK(b.recv(p.server) == error(EAGAIN));
  CHECK(b.recv(b.tcp()) == error(ENOTCONN));
  CHECK(b.recv(p.listener) == error(ENOTCONN));
  REQUIRE(b->close(p.client) == 0);
  b.settle();
  CHECK(b.recv(p.server).empty());
  CHECK(b.recv(p.server).empty());
}

TEST_CASE("a program that only polls with recv makes progress") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  REQUIRE(b.send(p.client, "hello") == 5);
  std::string got = error(EAGAIN);
  for (int i = 0; i < 20 && got == error(EAGAIN); ++i) got = b.recv(p.server);
  CHECK(got == "hello");
}

TEST_CASE("sending on what was never connected is EPIPE") {
  Bench b;
  CHECK(b.send(b.tcp(), "x") == -EPIPE);
  CHECK(b.send(b.listener(), "x") == -EPIPE);
}

TEST_CASE("MSG_PEEK leaves the data, MSG_TRUNC throws it away, MSG_DONTWAIT does not wait") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(b.send(p.client, "abcdef") == 6);
  b.settle();
  CHECK(b.recv(p.server, 3, MSG_PEEK) == "abc");
  CHECK(b->recv(p.server, nullptr, 2, MSG_TRUNC) == 2);
  CHECK(b.recv(p.server, 10) == "cdef");
  CHECK(b.recv(p.server, 10, MSG_DONTWAIT) == error(EAGAIN));
  CHECK(b.recv(p.server, 10, MSG_ERRQUEUE) == error(EAGAIN));
  CHECK(b.recv(p.server, 10, MSG_OOB) == error(EINVAL));
}

TEST_CASE("MSG_WAITALL waits for everything, and takes the end for an answer") {
  Bench b;
  const auto p = b.pair();
  std::thread writer([&] {
    b.send(p.client, "one");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    b.send(p.client, "two");
  });
  CHECK(b.recv(p.server, 6, MSG_WAITALL) == "onetwo");
  writer.join();
  REQUIRE(b.send(p.client, "rest") == 4);
  REQUIRE(b->close(p.client) == 0);
  CHECK(b.recv(p.server, 100, MSG_WAITALL) == "rest");
}

TEST_CASE("MSG_WAITALL with MSG_PEEK waits and leaves it there") {
  Bench b;
  const auto p = b.pair();
  std::thread writer([&] {
    b.send(p.client, "one");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    b.send(p.client, "two");
  });
  CHECK(b.recv(p.server, 6, MSG_WAITALL | MSG_PEEK) == "onetwo");
  writer.join();
  CHECK(b.recv(p.server, 6) == "onetwo");
}

TEST_CASE("SO_RCVTIMEO bounds a read, and what came before it counts") {
  Bench b;
  const auto p = b.pair();
  const timeval t{.tv_sec = 0, .tv_usec = 20000};
  REQUIRE(b->setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0);
  CHECK(b.recv(p.server) == error(EAGAIN));
  REQUIRE(b.send(p.client, "some") == 4);
  CHECK(b.recv(p.server, 10, MSG_WAITALL) == "some");
}

TEST_CASE("reads and writes of no bytes return at once") {
  Bench b;
  const auto p = b.pair();
  CHECK(b->recv(p.server, nullptr, 0, 0) == 0);
  CHECK(b->send(p.client, nullptr, 0, 0) == 0);
  REQUIRE(b->shutdown(p.client, SHUT_WR) == 0);
  CHECK(b->send(p.client, "", 1, 0) == -EPIPE);
}

TEST_CASE("data comes before the reset that followed it is told") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  REQUIRE(b.send(p.client, "before") == 6);
  REQUIRE(b.send(p.server, "never read") == 10);
  b.settle();
  REQUIRE(b->close(p.client) == 0);  // unread data: RST
  b.settle();
  const std::string first = b.recv(p.server);
  CHECK((first == "before" || first == error(ECONNRESET)));  // Linux drops the queue or not; never both twice
  CHECK(b.recv(p.server) != "before");
  CHECK(b.send(p.server, "x") == -EPIPE);
}

TEST_CASE("recvmsg and sendmsg scatter and gather, and clear what a stream does not have") {
  Bench b;
  const auto p = b.pair();
  char one[] = "ab", two[] = "cde";
  iovec out[] = {{one, 2}, {nullptr, 0}, {two, 3}};
  msghdr m{};
  m.msg_iov = out;
  m.msg_iovlen = 3;
  REQUIRE(b->sendmsg(p.client, &m, 0) == 5);
  b.settle();
  char x[1], y[8], control[64];
  sockaddr_in name{};
  iovec in[] = {{x, 1}, {y, 8}};
  msghdr r{};
  r.msg_iov = in;
  r.msg_iovlen = 2;
  r.msg_name = &name;
  r.msg_namelen = sizeof name;
  r.msg_control = control;
  r.msg_controllen = sizeof control;
  REQUIRE(b->recvmsg(p.server, &r, 0) == 5);
  CHECK(x[0] == 'a');
  CHECK(std::string(y, 4) == "bcde");
  CHECK(r.msg_namelen == 0);
  CHECK(r.msg_controllen == 0);
  CHECK(r.msg_flags == 0);
  r.msg_iovlen = 1025;
  CHECK(b->recvmsg(p.server, &r, 0) == -EMSGSIZE);
  CHECK(b->sendmsg(p.client, &r, 0) == -EMSGSIZE);
  CHECK(b->recvmsg(p.server, nullptr, 0) == -EFAULT);
}

TEST_CASE("a blocking write of megabytes arrives whole") {
  Bench b;
  const auto p = b.pair();
  const std::string data = pattern(3 << 20);
  Reader reader(b, p.server, data.size());
  CHECK(b.send(p.client, data) == static_cast<ssize_t>(data.size()));
  reader.thread.join();
  CHECK(reader.got == data);
}

TEST_CASE("a nonblocking write takes what fits, and then says EAGAIN until the peer reads") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  const std::string data = pattern(64 << 20);
  const ssize_t first = b.send(p.server, data);
  REQUIRE(first > 0);
  CHECK(first < static_cast<ssize_t>(data.size()));
  ssize_t n = 0;
  for (int i = 0; i < 1000 && n >= 0; ++i) n = b.send(p.server, data);
  CHECK(n == -EAGAIN);
}

TEST_CASE("SO_SNDTIMEO bounds a write that the peer does not read") {
  Bench b;
  const auto p = b.pair();
  const timeval t{.tv_sec = 0, .tv_usec = 30000};
  REQUIRE(b->setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) == 0);
  const std::string data = pattern(64 << 20);
  CHECK(b.send(p.client, data) < static_cast<ssize_t>(data.size()));
  // What the wire still took when the first write gave up makes room once more, not for ever.
  ssize_t n = 0;
  for (int i = 0; i < 50 && n >= 0; ++i) n = b.send(p.client, data);
  CHECK(n == -EAGAIN);
}

TEST_CASE("a handler that does not restart ends a blocking read with EINTR") {
  Bench b;
  const auto p = b.pair();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    Bench::signals = Bench::signals + 1;
    const Guard guard(*b, Guard::Everything{});
    notify(*b->files.socket(p.server), EPOLLIN);
  });
  CHECK(b.recv(p.server) == error(EINTR));
  other.join();
}

TEST_CASE("a read that blocks keeps the connection open when another thread closes the descriptor") {
  Bench b;
  const auto p = b.pair();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    b->close(p.server);
    b.send(p.client, "late");
  });
  CHECK(b.recv(p.server) == "late");
  other.join();
  b.settle();
  CHECK(b.recv(p.client, 10, MSG_DONTWAIT).empty());  // and then it is closed
}

TEST_CASE("a set that another thread closes goes on to serve who waits in it, and is then gone") {
  Bench b;
  const auto p = b.pair();
  const int ep = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event e{};
  e.events = EPOLLIN;
  REQUIRE(b->epoll_ctl(ep, EPOLL_CTL_ADD, p.server, &e) == 0);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    b->close(ep);
    b.send(p.client, "late");
  });
  const timespec limit{.tv_sec = 5, .tv_nsec = 0};
  CHECK(b->epoll_wait(ep, &e, 1, &limit, nullptr) == 1);
  other.join();
  CHECK(b->files.kind(ep) == FdKind::kernel);
  CHECK(b.recv(p.server) == "late");
}

TEST_CASE("FIONREAD, SIOCOUTQ and SIOCATMARK count as Linux counts") {
  Bench b;
  const auto p = b.pair();
  REQUIRE(b.send(p.client, "12345") == 5);
  int n = -1;
  REQUIRE(b->ioctl(p.client, SIOCOUTQ, &n) == 0);
  CHECK(n == 0);  // it has arrived
  REQUIRE(b->ioctl(p.server, FIONREAD, &n) == 0);
  CHECK(n == 5);
  REQUIRE(b->ioctl(p.server, SIOCATMARK, &n) == 0);
  CHECK(n == 0);
  CHECK(b->ioctl(p.listener, FIONREAD, &n) == -EINVAL);
  CHECK(b->ioctl(p.server, FIONREAD, nullptr) == -EFAULT);
  REQUIRE(b->ioctl(b.tcp(), FIONREAD, &n) == 0);
  CHECK(n == 0);
}

TEST_CASE("FIONBIO and F_SETFL are the same flag, FIOCLEX and F_SETFD too") {
  Bench b;
  const int fd = b.tcp();
  int on = 1;
  REQUIRE(b->ioctl(fd, FIONBIO, &on) == 0);
  CHECK(b->fcntl(fd, F_GETFL, 0) == (O_RDWR | O_NONBLOCK));
  REQUIRE(b->fcntl(fd, F_SETFL, 0) == 0);
  CHECK(b->fcntl(fd, F_GETFL, 0) == O_RDWR);
  REQUIRE(b->ioctl(fd, FIOCLEX, nullptr) == 0);
  CHECK(b->fcntl(fd, F_GETFD, 0) == FD_CLOEXEC);
  REQUIRE(b->fcntl(fd, F_SETFD, 0) == 0);
  CHECK(b->fcntl(fd, F_GETFD, 0) == 0);
}

TEST_CASE("sendfile sends a range, moves the offset and leaves the position") {
  Bench b;
  const auto p = b.pair();
  const std::string data = pattern(300000);
  const int file = file_with(data);
  off_t offset = 1000;
  Reader reader(b, p.server, 200000);
  CHECK(b->sendfile(p.client, file, &offset, 200000) == 200000);
  reader.thread.join();
  CHECK(offset == 201000);
  CHECK(::lseek(file, 0, SEEK_CUR) == 0);
  CHECK(reader.got == data.substr(1000, 200000));
  ::close(file);
}

TEST_CASE("sendfile without an offset moves the position, and ends with the file") {
  Bench b;
  const auto p = b.pair();
  const std::string data = pattern(50000);
  const int file = file_with(data);
  Reader reader(b, p.server, 49900);
  ::lseek(file, 100, SEEK_SET);
  CHECK(b->sendfile(p.client, file, nullptr, 1 << 20) == 49900);
  CHECK(::lseek(file, 0, SEEK_CUR) == 50000);
  CHECK(b->sendfile(p.client, file, nullptr, 10) == 0);
  reader.thread.join();
  CHECK(reader.got == data.substr(100));
  ::close(file);
}

TEST_CASE("a nonblocking sendfile stops when the buffer is full and reads no further") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  const std::string data = pattern(32 << 20);
  const int file = file_with(data);
  off_t offset = 0;
  const ssize_t n = b->sendfile(p.server, file, &offset, data.size());
  REQUIRE(n > 0);
  CHECK(n < static_cast<ssize_t>(data.size()));
  CHECK(offset == n);
  ssize_t more = 0;
  while ((more = b->sendfile(p.server, file, &offset, data.size())) > 0) {
  }
  CHECK(more == -EAGAIN);
  ::close(file);
}

TEST_CASE("sendfile judges what it is to read like the kernel") {
  Bench b;
  const auto p = b.pair();
  const int plain = ::socket(AF_INET, SOCK_STREAM, 0);
  off_t negative = -1, zero = 0;
  CHECK(b->sendfile(p.client, 3000, nullptr, 1) == -EBADF);
  CHECK(b->sendfile(p.client, p.server, nullptr, 1) == -EINVAL);
  CHECK(b->sendfile(p.client, plain, nullptr, 1) == -EINVAL);
  CHECK(b->sendfile(p.client, plain, &zero, 1) == -ESPIPE);
  CHECK(b->sendfile(p.client, 0, &negative, 1) == -EINVAL);
  const int file = file_with("x");
  CHECK(b->sendfile(b.tcp(), file, nullptr, 1) == -EPIPE);
  ::close(plain);
  ::close(file);
}

TEST_CASE("sendfile takes a pipe") {
  Bench b;
  const auto p = b.pair();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  REQUIRE(::write(ends[1], "through", 7) == 7);
  CHECK(b->sendfile(p.client, ends[0], nullptr, 100) == 7);
  b.settle();
  CHECK(b.recv(p.server) == "through");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("a steady exchange of messages takes no system call") {
  Bench b;
  const auto p = b.pair(SOCK_NONBLOCK);
  REQUIRE(b->fcntl(p.client, F_SETFL, O_NONBLOCK) == 0);
  const auto round = [&] {
    REQUIRE(b.send(p.client, "ping") == 4);
    b.settle();
    REQUIRE(b.recv(p.server) == "ping");
    REQUIRE(b.send(p.server, "pong") == 4);
    b.settle();
    REQUIRE(b.recv(p.client) == "pong");
  };
  round();
  const int before = b.kernel.total();
  for (int i = 0; i < 100; ++i) round();
  CHECK(b.kernel.total() == before);
}

// Which calls reach the engine, with what, and what comes back.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "tests/preload/libc_names.hh"
#include "tests/preload/under_shim.hh"

using namespace mtcp::preload;
using mtcp::intercept::FdKind;
using Calls = std::vector<std::string>;

TEST_CASE("TCP sockets are the engine's, others the kernel's") {
  control();
  Fd tcp4(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Fd tcp6(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP));
  CHECK(recorded().size() == 2);
  Fd udp(socket(AF_INET, SOCK_DGRAM, 0));
  Fd local(socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK(udp >= 0);
  CHECK(local >= 0);
  udp.reset();
  local.reset();
  CHECK(recorded().empty());
  tcp4.reset();
  tcp6.reset();
  CHECK(recorded().size() == 2);
}

TEST_CASE("what the engine does not support is asked of the kernel, and errno is as it was") {
  FakeControl& c = control();
  c.results = {-ENOTSUP};
  errno = 77;
  Fd fd(socket(AF_INET, SOCK_STREAM, 0));
  CHECK(errno == 77);
  REQUIRE(fd >= 0);
  CHECK(c.services->fds->kind(fd) == FdKind::kernel);
}

TEST_CASE("calls on kernel descriptors never reach the engine and leave errno alone") {
  control();
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  Fd a(ends[0]), b(ends[1]);
  errno = 77;
  char p[10];
  CHECK(write(a, "hello", 5) == 5);
  CHECK(read(b, p, sizeof p) == 5);
  CHECK(send(a, "hello", 5, MSG_NOSIGNAL) == 5);
  CHECK(recv(b, p, sizeof p, 0) == 5);
  iovec v{p, 3};
  CHECK(writev(a, &v, 1) == 3);
  CHECK(readv(b, &v, 1) == 3);
  CHECK(fcntl(a, F_GETFL) == O_RDWR);
  int n = 1;
  CHECK(ioctl(a, FIONREAD, &n) == 0);
  pollfd f{a, POLLOUT, 0};
  CHECK(poll(&f, 1, 0) == 1);
  Fd copy(dup(a));
  CHECK(dup2(a, copy) == copy);
  Fd ep(epoll_create1(0));
  epoll_event e{EPOLLIN, {}};
  CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, a, &e) == 0);
  CHECK(epoll_wait(ep, &e, 1, 0) == 0);
  fd_set set;
  FD_ZERO(&set);
  FD_SET(a, &set);
  timeval zero{};
  CHECK(select(a + 1, nullptr, &set, nullptr, &zero) == 1);
  a.reset();
  CHECK(errno == 77);
  CHECK(recorded().empty());
  CHECK(read(12345, p, 1) == -1);
  CHECK(errno == EBADF);
  CHECK(close(-1) == -1);
  CHECK(errno == EBADF);
}

TEST_CASE("an error of the engine becomes errno, a success leaves errno alone") {
  const Connected pair;
  FakeControl& c = control();
  char p[4];
  c.results = {-ENETDOWN, 0, 3};
  errno = 77;
  CHECK(read(pair.a, p, 4) == -1);
  CHECK(errno == ENETDOWN);
  errno = 77;
  CHECK(read(pair.a, p, 4) == 0);
  CHECK(errno == 77);
  c.during = [] { errno = EAGAIN; };
  CHECK(read(pair.a, p, 4) == 3);
  CHECK(errno == 77);
}

TEST_CASE("every way of reading reaches the engine") {
  const Connected pair;
  FakeControl& c = control();
  const int fd = pair.a;
  char p[8];
  iovec v[2] = {{p, 4}, {p + 4, 4}};
  msghdr m{};
  m.msg_iov = v;
  m.msg_iovlen = 2;
  mmsghdr mm[3]{};
  for (auto& one : mm) one.msg_hdr = m;
  sockaddr_in from{};
  socklen_t n = sizeof from;

  CHECK((c.results = {8}, read(fd, p, 8)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=0");
  CHECK((c.results = {8}, __read(fd, p, 8)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=0");
  CHECK((c.results = {8}, __read_chk(fd, p, 8, 8)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=0");
  CHECK((c.results = {8}, recv(fd, p, 8, MSG_PEEK)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=2");
  CHECK((c.results = {8}, __recv_chk(fd, p, 8, 8, MSG_PEEK)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=2");
  CHECK((c.results = {8}, recvfrom(fd, p, 8, 0, reinterpret_cast<sockaddr*>(&from), &n)) == 8);
  CHECK(n == 0);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=0");
  CHECK((c.results = {8}, __recvfrom_chk(fd, p, 8, 8, 0, nullptr, nullptr)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=0");
  CHECK((c.results = {8}, readv(fd, v, 2)) == 8);
  CHECK(only_call(fd) == "recvmsg fd=@ iov=2 flags=0");
  CHECK((c.results = {4}, readv(fd, v, 1)) == 4);
  CHECK(only_call(fd) == "recv fd=@ n=4 flags=0");
  CHECK((c.results = {8}, recvmsg(fd, &m, MSG_WAITALL)) == 8);
  CHECK(only_call(fd) == "recvmsg fd=@ iov=2 flags=256");
  c.results = {8, 5, -EAGAIN};
  CHECK(recvmmsg(fd, mm, 3, MSG_WAITFORONE, nullptr) == 2);
  CHECK(mm[1].msg_len == 5);
  CHECK(recorded() == Calls{with_fd("recvmsg fd=@ iov=2 flags=0", fd),
                            with_fd("recvmsg fd=@ iov=2 flags=64", fd),
                            with_fd("recvmsg fd=@ iov=2 flags=64", fd)});
  volatile int count = -1;  // not for the compiler to judge
  CHECK(readv(fd, v, count) == -1);
  CHECK(errno == EINVAL);
  count = 1025;
  CHECK(readv(fd, v, count) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("every way of writing reaches the engine") {
  const Connected pair;
  FakeControl& c = control();
  const int fd = pair.a;
  char p[8] = {};
  iovec v[2] = {{p, 4}, {p + 4, 4}};
  msghdr m{};
  m.msg_iov = v;
  m.msg_iovlen = 2;
  mmsghdr mm[2]{};
  for (auto& one : mm) one.msg_hdr = m;

  CHECK((c.results = {8}, write(fd, p, 8)) == 8);
  CHECK(only_call(fd) == "send fd=@ n=8 flags=0");
  CHECK((c.results = {8}, __write(fd, p, 8)) == 8);
  CHECK(only_call(fd) == "send fd=@ n=8 flags=0");
  CHECK((c.results = {8}, send(fd, p, 8, MSG_MORE)) == 8);
  CHECK(only_call(fd) == "send fd=@ n=8 flags=32768");
  CHECK((c.results = {8}, sendto(fd, p, 8, 0, nullptr, 0)) == 8);
  CHECK(only_call(fd) == "send fd=@ n=8 flags=0");
  CHECK((c.results = {8}, writev(fd, v, 2)) == 8);
  CHECK(only_call(fd) == "sendmsg fd=@ iov=2 flags=0");
  CHECK((c.results = {8}, sendmsg(fd, &m, MSG_NOSIGNAL)) == 8);
  CHECK(only_call(fd) == "sendmsg fd=@ iov=2 flags=16384");
  c.results = {8, -EAGAIN};
  CHECK(sendmmsg(fd, mm, 2, 0) == 1);
  CHECK(mm[0].msg_len == 8);
  recorded();
  Fd file(open("/proc/self/exe", O_RDONLY));
  CHECK((c.results = {7}, sendfile(fd, file, nullptr, 7)) == 7);
  CHECK(only_call(fd) == "sendfile out=@ in=" + std::to_string(file) + " n=7");
}

TEST_CASE("EPIPE raises SIGPIPE unless MSG_NOSIGNAL") {
  const Connected pair;
  const int fd = pair.a;
  // Separate processes: SIGPIPE kills.
  const auto fails = [&](const std::function<void()>& f) {
    return in_child([&] {
      control().results = {-EPIPE};
      f();
      return errno == EPIPE ? 0 : 1;
    });
  };
  CHECK(fails([&] { CHECK(write(fd, "x", 1) == -1); }) == -SIGPIPE);
  CHECK(fails([&] { CHECK(send(fd, "x", 1, 0) == -1); }) == -SIGPIPE);
  CHECK(fails([&] { CHECK(sendfile(fd, 0, nullptr, 1) == -1); }) == -SIGPIPE);
  CHECK(fails([&] { CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1); }) == 0);
  CHECK(fails([&] {
          signal(SIGPIPE, SIG_IGN);
          CHECK(write(fd, "x", 1) == -1);
        }) == 0);
}

TEST_CASE("the calls about a socket's life and options reach the engine") {
  const Connected pair;
  FakeControl& c = control();
  const int fd = pair.a;
  sockaddr_in a{};
  socklen_t n = sizeof a;
  auto* generic = reinterpret_cast<sockaddr*>(&a);
  int v = 0;
  socklen_t vn = sizeof v;
  CHECK((c.results = {0}, bind(fd, generic, n)) == 0);
  CHECK(only_call(fd) == "bind fd=@ n=16");
  CHECK((c.results = {0}, listen(fd, 5)) == 0);
  CHECK(only_call(fd) == "listen fd=@ backlog=5");
  CHECK((c.results = {9}, accept(fd, generic, &n)) == 9);
  CHECK(only_call(fd) == "accept4 fd=@ flags=0");
  CHECK((c.results = {9}, accept4(fd, generic, &n, SOCK_NONBLOCK)) == 9);
  CHECK(only_call(fd) == "accept4 fd=@ flags=2048");
  CHECK((c.results = {0}, connect(fd, generic, n)) == 0);
  CHECK(only_call(fd) == "connect fd=@ n=16");
  CHECK((c.results = {0}, shutdown(fd, SHUT_WR)) == 0);
  CHECK(only_call(fd) == "shutdown fd=@ how=1");
  CHECK((c.results = {0}, getsockname(fd, generic, &n)) == 0);
  CHECK(only_call(fd) == "getsockname fd=@");
  CHECK((c.results = {0}, getpeername(fd, generic, &n)) == 0);
  CHECK(only_call(fd) == "getpeername fd=@");
  CHECK((c.results = {0}, getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &vn)) == 0);
  CHECK(only_call(fd) == "getsockopt fd=@ level=1 name=4");
  CHECK((c.results = {0}, setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &v, vn)) == 0);
  CHECK(only_call(fd) == "setsockopt fd=@ level=1 name=9");
  CHECK((c.results = {0}, fcntl(fd, F_SETFL, O_NONBLOCK)) == 0);
  CHECK(only_call(fd) == "fcntl fd=@ cmd=4 arg=2048");
  CHECK((c.results = {0}, __fcntl(fd, F_SETFL, O_NONBLOCK)) == 0);
  CHECK(only_call(fd) == "fcntl fd=@ cmd=4 arg=2048");
  CHECK((c.results = {0}, ioctl(fd, FIONREAD, &v)) == 0);
  CHECK(only_call(fd) == "ioctl fd=@ request=21531");
  CHECK((c.results = {0}, sockatmark(fd)) == 0);
  CHECK(only_call(fd) == "ioctl fd=@ request=35077");
  CHECK((c.results = {9}, dup(fd)) == 9);
  CHECK(only_call(fd) == "dup fd=@");
}

TEST_CASE("dup2 and dup3 reach the engine if either descriptor is its own") {
  Connected pair;
  FakeControl& c = control();
  Fd kernel(eventfd(0, 0));
  CHECK((c.results = {5}, dup2(pair.a, 5)) == 5);
  CHECK(only_call(pair.a) == "dup3 from=@ to=5 flags=0 dup2=1");
  CHECK((c.results = {5}, dup3(kernel, pair.a, O_CLOEXEC)) == 5);
  CHECK(only_call(kernel) == "dup3 from=@ to=" + std::to_string(pair.a) + " flags=524288 dup2=0");
  Fd other(eventfd(0, 0));
  CHECK(dup2(kernel, other) == other);
  CHECK(recorded().empty());
  // For real: the copy is a socket of the engine's as well, and the one that was under the number is closed.
  CHECK(dup2(pair.a, other) == other);
  CHECK(c.services->fds->kind(other) == FdKind::socket);
  CHECK(dup2(kernel, other) == other);
  CHECK(c.services->fds->kind(other) == FdKind::kernel);
}

TEST_CASE("close, close_range and closefrom reach the engine") {
  Connected pair;
  FakeControl& c = control();
  CHECK((c.results = {0}, close(pair.a)) == 0);
  CHECK(only_call(pair.a) == "close fd=@");
  CHECK((c.results = {0}, __close(pair.a)) == 0);
  CHECK(only_call(pair.a) == "close fd=@");
  CHECK((c.results = {0}, close_range(5, 9, 4)) == 0);
  CHECK(recorded() == Calls{"close_range first=5 last=9 flags=4"});
  c.results = {0};
  closefrom(100);
  CHECK(recorded() == Calls{"close_range first=100 last=4294967295 flags=0"});
  CHECK((c.results = {-EINTR}, close(pair.a)) == -1);
  CHECK(errno == EINTR);
}

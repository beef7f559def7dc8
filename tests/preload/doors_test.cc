// The side doors: syscall(), fortified names, standard I/O, and descriptors that are internal.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "tests/preload/libc_names.hh"
#include "tests/preload/under_shim.hh"

using namespace mtcp::preload;
using mtcp::intercept::FdKind;
using Calls = std::vector<std::string>;

TEST_CASE("internal descriptors do not exist for the application, and do for the engine") {
  FakeControl& c = control();
  const int fd = eventfd(0, 0);
  c.services->fds->set(fd, FdKind::reserved);
  char p[8] = {1};
  CHECK(close(fd) == -1);
  CHECK(errno == EBADF);
  CHECK(write(fd, p, 8) == -1);
  CHECK(errno == EBADF);
  CHECK(fcntl(fd, F_GETFD) == -1);
  CHECK(errno == EBADF);
  CHECK(syscall(SYS_close, fd) == -1);
  CHECK(errno == EBADF);
  // The number may be wanted by the application: the engine knows whether it can move.
  CHECK((c.results = {-EBADF}, dup2(fd, 50)) == -1);
  CHECK((c.results = {fd}, dup2(1, fd)) == fd);
  CHECK(recorded().size() == 2);
  const Connected pair;
  control().during = [&] {
    CHECK(write(fd, p, 8) == 8);
    CHECK(Fd(socket(AF_INET, SOCK_STREAM, 0)) >= 0);  // a driver's own TCP socket
    CHECK(close(fd) == 0);
  };
  control().results = {0};
  c.during = [&] {
    CHECK(write(fd, p, 8) == 8);
    const int own = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(c.services->fds->kind(own) == FdKind::kernel);
    CHECK(close(own) == 0);
    CHECK(close(fd) == 0);
  };
  read(pair.a, p, 1);
  CHECK(recorded().size() == 1);
  c.services->fds->set(fd, FdKind::kernel);
}

TEST_CASE("syscall() leads to the engine for the engine's descriptors and to the kernel for others") {
  const Connected pair;
  FakeControl& c = control();
  const int fd = pair.a;
  char p[8];
  CHECK((c.results = {8}, syscall(SYS_read, fd, p, 8)) == 8);
  CHECK(only_call(fd) == "recv fd=@ n=8 flags=0");
  CHECK((c.results = {8}, syscall(SYS_sendto, fd, p, 8, MSG_NOSIGNAL, nullptr, 0)) == 8);
  CHECK(only_call(fd) == "send fd=@ n=8 flags=16384");
  CHECK((c.results = {9}, syscall(SYS_accept4, fd, nullptr, nullptr, SOCK_CLOEXEC)) == 9);
  CHECK(only_call(fd) == "accept4 fd=@ flags=524288");
  CHECK((c.results = {-EPERM}, syscall(SYS_fcntl, fd, F_GETFL, 0)) == -1);
  CHECK(errno == EPERM);
  recorded();
  pollfd f{fd, POLLIN, 0};
  timespec t{0, 7};
  std::uint64_t kernel_mask = 0;
  CHECK((c.results = {1}, syscall(SYS_ppoll, &f, 1, &t, &kernel_mask, 8)) == 1);
  CHECK(recorded() == Calls{"poll n=1 timeout=0s7ns mask=given"});
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  struct {
    const void* mask;
    size_t size;
  } sixth{&kernel_mask, 8};
  CHECK((c.results = {1}, syscall(SYS_pselect6, fd + 1, &set, nullptr, nullptr, &t, &sixth)) == 1);
  CHECK(recorded() == Calls{"select n=" + std::to_string(fd + 1) + " timeout=0s7ns mask=given"});
  CHECK((c.results = {0}, syscall(SYS_close_range, 900, 901, 0)) == 0);
  CHECK(recorded() == Calls{"close_range first=900 last=901 flags=0"});
  CHECK((c.results = {33}, syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)) == 33);
  recorded();
  Fd kernel(eventfd(7, 0));
  CHECK(syscall(SYS_read, static_cast<int>(kernel), p, 8) == 8);
  CHECK(p[0] == 7);
  CHECK(syscall(SYS_getpid) == getpid());
  CHECK(recorded().empty());
  CHECK(syscall(SYS_io_uring_setup, 1, p) == -1);
  CHECK(errno == ENOSYS);
}

TEST_CASE("a fortified call with a buffer that is too small ends the process, as libc's does") {
  const Connected pair;
  char p[8];
  pollfd f{pair.a, POLLIN, 0};
  const auto quietly = [](const std::function<void()>& f) {
    return in_child([&] {
      signal(SIGABRT, SIG_DFL);  // Catch2 has a handler
      close(2);
      f();
      return 0;
    });
  };
  CHECK(quietly([&] { __read_chk(pair.a, p, 9, 8); }) == -SIGABRT);
  CHECK(quietly([&] { __recv_chk(pair.a, p, 9, 8, 0); }) == -SIGABRT);
  CHECK(quietly([&] { __poll_chk(&f, 2, 0, sizeof f); }) == -SIGABRT);
}

TEST_CASE("a stream over a socket reads, writes, tells its descriptor and closes") {
  Connected pair;
  FakeControl& c = control();
  const int fd = pair.a.release();
  FILE* f = fdopen(fd, "r+");
  REQUIRE(f != nullptr);
  CHECK(fileno(f) == fd);
  CHECK(fprintf(f, "hello %d\n", 5) == 8);
  CHECK(fflush(f) == 0);
  char p[20] = {};
  CHECK(read(pair.b, p, sizeof p) == 8);
  CHECK(std::string(p) == "hello 5\n");
  CHECK(write(pair.b, "line\nrest", 9) == 9);
  CHECK(fgets(p, sizeof p, f) == p);
  CHECK(std::string(p) == "line\n");
  CHECK(dprintf(fd, "%s-%d", "direct", 7) == 8);
  CHECK(read(pair.b, p, sizeof p) == 8);
  CHECK(std::string(p, 8) == "direct-7");
  recorded();
  CHECK(fclose(f) == 0);
  CHECK(recorded() == Calls{with_fd("close fd=@", fd)});
  CHECK(c.services->fds->kind(fd) == FdKind::kernel);
  FILE* plain = tmpfile();
  CHECK(fileno(plain) > 2);
  fclose(plain);
}

// fcntl() and ioctl().
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <cstring>
#include <thread>
#include <utility>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("fcntl: O_NONBLOCK can be set and cleared and is obeyed", "[control]") {
  const Pair pair = connected_pair();
  const int before = ::fcntl(pair.client, F_GETFL);
  REQUIRE(error_of(::fcntl(pair.client, F_SETFL, before | O_NONBLOCK)) == 0);
  REQUIRE(::fcntl(pair.client, F_GETFL) == (before | O_NONBLOCK));
  char b = 0;
  REQUIRE(error_of(::read(pair.client, &b, 1)) == EAGAIN);
  REQUIRE(error_of(::fcntl(pair.client, F_SETFL, before)) == 0);
  REQUIRE(::fcntl(pair.client, F_GETFL) == before);
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(30));
    send_all(pair.server, "x");
  });
  const ssize_t n = ::read(pair.client, &b, 1);
  later.join();
  REQUIRE(n == 1);
}

TEST_CASE("fcntl: F_SETFL leaves the access mode alone", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::fcntl(pair.client, F_SETFL, O_RDONLY)) == 0);
  REQUIRE((::fcntl(pair.client, F_GETFL) & O_ACCMODE) == O_RDWR);
}

TEST_CASE("fcntl: F_SETFD sets and clears FD_CLOEXEC", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::fcntl(pair.server, F_SETFD, 0)) == 0);
  REQUIRE(::fcntl(pair.server, F_GETFD) == 0);
  REQUIRE(error_of(::fcntl(pair.server, F_SETFD, FD_CLOEXEC)) == 0);
  REQUIRE(::fcntl(pair.server, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("fcntl: O_NONBLOCK set before listen and connect stays", "[control]") {
  const Fd l = bound_socket();
  set_nonblocking(l);
  REQUIRE(::listen(l, 4) == 0);
  REQUIRE(error_of(::accept(l, nullptr, nullptr)) == EAGAIN);
  const Fd client = stream_socket();
  set_nonblocking(client);
  const Address to = local_of(l);
  const Errno e = error_of(::connect(client, to.get(), to.size));
  REQUIRE((e == EINPROGRESS || e == 0));
  REQUIRE((::fcntl(client, F_GETFL) & O_NONBLOCK) != 0);
  REQUIRE(becomes(client, POLLOUT));
  char b = 0;
  REQUIRE(error_of(::recv(client, &b, 1, 0)) == EAGAIN);
}

TEST_CASE("fcntl: F_DUPFD gives the lowest number that is not below the wanted", "[control]") {
  const Pair pair = connected_pair();
  const Fd copy(::fcntl(pair.client, F_DUPFD, 200));
  REQUIRE(copy >= 200);
  REQUIRE(::fcntl(copy, F_GETFD) == 0);
  REQUIRE(send_all(copy, "via copy"));
  REQUIRE(receive_exactly(pair.server, 8) == "via copy");
}

TEST_CASE("fcntl: F_DUPFD_CLOEXEC sets FD_CLOEXEC on the copy only", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(::fcntl(pair.client, F_SETFD, 0) == 0);
  const Fd copy(::fcntl(pair.client, F_DUPFD_CLOEXEC, 0));
  REQUIRE(copy >= 0);
  REQUIRE(::fcntl(copy, F_GETFD) == FD_CLOEXEC);
  REQUIRE(::fcntl(pair.client, F_GETFD) == 0);
}

TEST_CASE("fcntl: F_DUPFD of a negative number is EINVAL", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::fcntl(pair.client, F_DUPFD, -1)) == EINVAL);
}

TEST_CASE("fcntl: an unknown command is EINVAL and a closed descriptor EBADF", "[control]") {
  Pair pair = connected_pair();
  REQUIRE(error_of(::fcntl(pair.client, 9999)) == EINVAL);
  const int number = pair.client;
  pair.client.reset();
  REQUIRE(error_of(::fcntl(number, F_GETFL)) == EBADF);
  REQUIRE(error_of(::fcntl(number, F_DUPFD, 0)) == EBADF);
}

TEST_CASE("ioctl: FIONBIO switches blocking, as F_GETFL shows", "[control]") {
  const Pair pair = connected_pair();
  int on = 1;
  REQUIRE(error_of(::ioctl(pair.client, FIONBIO, &on)) == 0);
  REQUIRE((::fcntl(pair.client, F_GETFL) & O_NONBLOCK) != 0);
  char b = 0;
  REQUIRE(error_of(::read(pair.client, &b, 1)) == EAGAIN);
  on = 0;
  REQUIRE(error_of(::ioctl(pair.client, FIONBIO, &on)) == 0);
  REQUIRE((::fcntl(pair.client, F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("ioctl: FIONBIO on a listener makes accept EAGAIN", "[control]") {
  const Fd l = listener();
  int on = 1;
  REQUIRE(error_of(::ioctl(l, FIONBIO, &on)) == 0);
  REQUIRE(error_of(::accept(l, nullptr, nullptr)) == EAGAIN);
}

TEST_CASE("ioctl: FIOCLEX and FIONCLEX are FD_CLOEXEC", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::ioctl(pair.client, FIONCLEX)) == 0);
  REQUIRE(::fcntl(pair.client, F_GETFD) == 0);
  REQUIRE(error_of(::ioctl(pair.client, FIOCLEX)) == 0);
  REQUIRE(::fcntl(pair.client, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("ioctl: FIONREAD counts what can be read", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(queued(pair.client, FIONREAD) == 0);
  REQUIRE(send_all(pair.server, "seven77"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(queued(pair.client, FIONREAD) == 7);
  REQUIRE(receive_exactly(pair.client, 3).size() == 3);
  REQUIRE(queued(pair.client, FIONREAD) == 4);
  REQUIRE(receive_exactly(pair.client, 4).size() == 4);
  REQUIRE(queued(pair.client, FIONREAD) == 0);
}

TEST_CASE("ioctl: FIONREAD does not count the end of the stream", "[control]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "ab"));
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(becomes(pair.client, POLLRDHUP));
  REQUIRE((poll_events(pair.client, POLLRDHUP, milliseconds(1000)) & POLLRDHUP) != 0);
  REQUIRE(queued(pair.client, FIONREAD) == 2);
  REQUIRE(receive_until_end(pair.client) == "ab");
  REQUIRE(queued(pair.client, FIONREAD) == 0);
}

TEST_CASE("ioctl: FIONREAD of a listener is EINVAL", "[control]") {
  const Fd l = listener();
  int n = 0;
  REQUIRE(error_of(::ioctl(l, FIONREAD, &n)) == EINVAL);
}

TEST_CASE("ioctl: SIOCOUTQ counts what the peer has not acknowledged, down to nothing", "[control]") {
  const Pair pair = small_pair();
  const std::size_t sent = fill(pair.client);
  REQUIRE(queued(pair.client, SIOCOUTQ) > 0);
  REQUIRE(receive_exactly(pair.server, sent).size() == sent);
  int left = 1;
  for (int i = 0; i < 2000 && left != 0; ++i) {
    left = queued(pair.client, SIOCOUTQ);
    if (left != 0) std::this_thread::sleep_for(milliseconds(1));
  }
  REQUIRE(left == 0);
}

TEST_CASE("ioctl: SIOCOUTQ counts a FIN as a byte, as long as it is not acknowledged", "[control]") {
  const Pair pair = small_pair();
  const std::size_t sent = fill(pair.client);
  int before = -1;  // what the peer has room for is acknowledged first
  for (int same = 0; same < 5; std::this_thread::sleep_for(milliseconds(5))) {
    const int now = queued(pair.client, SIOCOUTQ);
    same = now == std::exchange(before, now) ? same + 1 : 0;
  }
  const int unsent = queued(pair.client, SIOCOUTQNSD);
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(queued(pair.client, SIOCOUTQ) == before + 1);
  REQUIRE(queued(pair.client, SIOCOUTQNSD) == unsent + 1);
  REQUIRE(receive_exactly(pair.server, sent).size() == sent);
  int left = 1;
  for (int i = 0; i < 2000 && left != 0; ++i) {
    left = queued(pair.client, SIOCOUTQ);
    if (left != 0) std::this_thread::sleep_for(milliseconds(1));
  }
  REQUIRE(left == 0);
}

TEST_CASE("ioctl: a terminal's request is ENOTTY", "[control]") {
  const Pair pair = connected_pair();
  termios t{};
  REQUIRE(error_of(::ioctl(pair.client, TCGETS, &t)) == ENOTTY);
}

TEST_CASE("ioctl: of a closed descriptor is EBADF", "[control]") {
  Pair pair = connected_pair();
  const int number = pair.client;
  pair.client.reset();
  int n = 0;
  REQUIRE(error_of(::ioctl(number, FIONREAD, &n)) == EBADF);
}

TEST_CASE("ioctl: interface requests work on any socket", "[control]") {
  const Fd fd = stream_socket();
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  REQUIRE(error_of(::ioctl(fd, SIOCGIFFLAGS, &request)) == 0);
  REQUIRE((request.ifr_flags & IFF_LOOPBACK) != 0);
}

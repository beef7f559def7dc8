// sendfile() from a file, a pipe and a socket into a connection.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

Fd file_with(const std::string& data) {
  Fd fd(::memfd_create("parity", MFD_CLOEXEC));
  REQUIRE(fd >= 0);
  REQUIRE(::write(fd, data.data(), data.size()) == static_cast<ssize_t>(data.size()));
  REQUIRE(::lseek(fd, 0, SEEK_SET) == 0);
  return fd;
}

}  // namespace

TEST_CASE("sendfile: without an offset reads on from the file's position", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("0123456789");
  REQUIRE(::lseek(file, 2, SEEK_SET) == 2);
  REQUIRE(::sendfile(pair.client, file, nullptr, 5) == 5);
  REQUIRE(::lseek(file, 0, SEEK_CUR) == 7);
  REQUIRE(receive_exactly(pair.server, 5) == "23456");
}

TEST_CASE("sendfile: with an offset moves the offset and not the file's position", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("0123456789");
  off_t offset = 6;
  REQUIRE(::sendfile(pair.client, file, &offset, 3) == 3);
  REQUIRE(offset == 9);
  REQUIRE(::lseek(file, 0, SEEK_CUR) == 0);
  REQUIRE(receive_exactly(pair.server, 3) == "678");
}

TEST_CASE("sendfile: more than the file holds sends what it holds, at its end nothing", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("abc");
  off_t offset = 0;
  REQUIRE(::sendfile(pair.client, file, &offset, 1000) == 3);
  REQUIRE(::sendfile(pair.client, file, &offset, 1000) == 0);
  REQUIRE(offset == 3);
  offset = 100;
  REQUIRE(::sendfile(pair.client, file, &offset, 10) == 0);
  REQUIRE(offset == 100);
  REQUIRE(receive_exactly(pair.server, 3) == "abc");
}

TEST_CASE("sendfile: count 0 is 0", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("abc");
  off_t offset = 1;
  REQUIRE(::sendfile(pair.client, file, &offset, 0) == 0);
  REQUIRE(offset == 1);
  REQUIRE_FALSE(becomes(pair.server, POLLIN, milliseconds(20)));
}

TEST_CASE("sendfile: a negative offset is EINVAL", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("abc");
  off_t offset = -1;
  REQUIRE(error_of(::sendfile(pair.client, file, &offset, 2)) == EINVAL);
}

TEST_CASE("sendfile: without blocking sends a part of a big file and then EAGAIN", "[sendfile]") {
  const Pair pair = small_pair();
  set_nonblocking(pair.client);
  const std::string data = pattern(4 << 20, 2);
  const Fd file = file_with(data);
  off_t offset = 0;
  ssize_t n = 0;
  do {
    while ((n = ::sendfile(pair.client, file, &offset, data.size())) > 0) {
    }
    REQUIRE(error_of(n) == EAGAIN);
  } while (becomes(pair.client, POLLOUT, milliseconds(60)));
  REQUIRE(offset > 0);
  REQUIRE(offset < static_cast<off_t>(data.size()));
  const std::string got = receive_exactly(pair.server, static_cast<std::size_t>(offset));
  REQUIRE((got == data.substr(0, static_cast<std::size_t>(offset))));
}

TEST_CASE("sendfile: a blocking call sends the whole of a big file", "[sendfile]") {
  const Pair pair = connected_pair();
  const std::string data = pattern(8 << 20, 7);
  const Fd file = file_with(data);
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, data.size()); });
  std::size_t left = data.size();
  while (left > 0) {
    const ssize_t n = ::sendfile(pair.client, file, nullptr, left);
    if (n <= 0) break;
    left -= static_cast<std::size_t>(n);
  }
  ::shutdown(pair.client, SHUT_WR);
  reader.join();
  REQUIRE(left == 0);
  REQUIRE((got == data));
}

TEST_CASE("sendfile: a reset in the midst of a blocking call is told by nobody", "[sendfile]") {
  Pair pair = small_pair();
  const std::string data = pattern(4 << 20, 7);
  const Fd file = file_with(data);
  std::thread resetter([&] {
    std::this_thread::sleep_for(milliseconds(50));
    pair.server.reset();  // there is unread data
  });
  const ssize_t n = ::sendfile(pair.client, file, nullptr, data.size());
  resetter.join();
  REQUIRE(n > 0);
  REQUIRE(n < static_cast<ssize_t>(data.size()));
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("sendfile: mixes with write in order", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("body");
  REQUIRE(::send(pair.client, "head ", 5, MSG_MORE) == 5);
  REQUIRE(::sendfile(pair.client, file, nullptr, 4) == 4);
  REQUIRE(send_all(pair.client, " tail"));
  REQUIRE(receive_exactly(pair.server, 14) == "head body tail");
}

TEST_CASE("sendfile: under TCP_CORK head and body leave together", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd file = file_with("body");
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
  REQUIRE(send_all(pair.client, "head "));
  REQUIRE(::sendfile(pair.client, file, nullptr, 4) == 4);
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 0);
  REQUIRE(becomes(pair.server, POLLIN));
  char b[20];
  REQUIRE(::recv(pair.server, b, sizeof b, 0) == 9);
}

TEST_CASE("sendfile: into an unconnected or shut down socket is EPIPE", "[sendfile]") {
  ::signal(SIGPIPE, SIG_IGN);
  const Fd file = file_with("abc");
  const Fd fresh = stream_socket();
  const Errno unconnected = error_of(::sendfile(fresh, file, nullptr, 3));
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  const Errno shut = error_of(::sendfile(pair.client, file, nullptr, 3));
  ::signal(SIGPIPE, SIG_DFL);
  REQUIRE(unconnected == EPIPE);
  REQUIRE(shut == EPIPE);
}

TEST_CASE("sendfile: from a closed or write-only descriptor is EBADF", "[sendfile]") {
  const Pair pair = connected_pair();
  const Fd sink(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  Fd gone = file_with("x");
  const int number = gone;
  gone.reset();
  REQUIRE(error_of(::sendfile(pair.client, number, nullptr, 3)) == EBADF);
  REQUIRE(error_of(::sendfile(pair.client, sink, nullptr, 3)) == EBADF);
}

TEST_CASE("sendfile: from a pipe with an offset is ESPIPE", "[sendfile]") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  const Fd in(fds[0]);
  const Fd out(fds[1]);
  REQUIRE(::write(out, "abc", 3) == 3);
  const Pair pair = connected_pair();
  off_t offset = 0;
  REQUIRE(error_of(::sendfile(pair.client, in, &offset, 3)) == ESPIPE);
}

TEST_CASE("sendfile: from a connection is EINVAL", "[sendfile]") {
  const Pair from = connected_pair();
  const Pair to = connected_pair();
  REQUIRE(send_all(from.server, "abc"));
  REQUIRE(becomes(from.client, POLLIN));
  REQUIRE(error_of(::sendfile(to.client, from.client, nullptr, 3)) == EINVAL);
}

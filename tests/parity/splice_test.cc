// splice() between a socket and a pipe, both ways; what tee() and vmsplice() say to a socket.
#include <fcntl.h>
#include <signal.h>
#include <sys/uio.h>

#include <thread>

#include "tests/parity/child.hh"
#include "tests/parity/net.hh"

using namespace parity;

namespace {

struct Pipe {
  explicit Pipe(int flags = 0) {
    int fds[2];
    REQUIRE(::pipe2(fds, flags) == 0);
    read = Fd(fds[0]);
    write = Fd(fds[1]);
  }
  Fd read, write;
};

std::string read_exactly(int fd, std::size_t n) {
  std::string text(n, '\0');
  std::size_t done = 0;
  while (done < n) {
    const ssize_t got = ::read(fd, text.data() + done, n - done);
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace

TEST_CASE("splice: from a socket to a pipe and on to another socket", "[splice]") {
  const Pair in = connected_pair(), out = connected_pair();
  const Pipe pipe;
  REQUIRE(send_all(in.client, "through a pipe"));
  REQUIRE(becomes(in.server, POLLIN));
  REQUIRE(::splice(in.server, nullptr, pipe.write, nullptr, 100, SPLICE_F_MOVE) == 14);
  REQUIRE(queued(pipe.read) == 14);
  REQUIRE(::splice(pipe.read, nullptr, out.client, nullptr, 100, SPLICE_F_MOVE) == 14);
  REQUIRE(receive_exactly(out.server, 14) == "through a pipe");
}

TEST_CASE("splice: no more than was asked for", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  REQUIRE(send_all(pair.client, "0123456789"));
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(::splice(pair.server, nullptr, pipe.write, nullptr, 4, 0) == 4);
  REQUIRE(receive_exactly(pair.server, 6) == "456789");
  REQUIRE(::splice(pipe.read, nullptr, pair.client, nullptr, 3, 0) == 3);
  REQUIRE(receive_exactly(pair.server, 3) == "012");
  REQUIRE(queued(pipe.read) == 1);
}

TEST_CASE("splice: the end of the stream is 0", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(::splice(pair.server, nullptr, pipe.write, nullptr, 10, 0) == 0);
}

TEST_CASE("splice: of a pipe without writers is 0", "[splice]") {
  const Pair pair = connected_pair();
  Pipe pipe;
  pipe.write.reset();
  REQUIRE(::splice(pipe.read, nullptr, pair.client, nullptr, 10, 0) == 0);
}

TEST_CASE("splice: nothing to read on a non-blocking socket is EAGAIN", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  set_nonblocking(pair.server);
  REQUIRE(error_of(::splice(pair.server, nullptr, pipe.write, nullptr, 10, 0)) == EAGAIN);
}

TEST_CASE("splice: an empty pipe with SPLICE_F_NONBLOCK, or that does not block, is EAGAIN", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe, other(O_NONBLOCK);
  REQUIRE(error_of(::splice(pipe.read, nullptr, pair.client, nullptr, 10, SPLICE_F_NONBLOCK)) == EAGAIN);
  REQUIRE(error_of(::splice(other.read, nullptr, pair.client, nullptr, 10, 0)) == EAGAIN);
}

TEST_CASE("splice: waits for the socket, and for the pipe", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(50));
    send_all(pair.client, "late");
  });
  REQUIRE(::splice(pair.server, nullptr, pipe.write, nullptr, 10, 0) == 4);
  later.join();
  REQUIRE(read_exactly(pipe.read, 4) == "late");
  std::thread writer([&] {
    std::this_thread::sleep_for(milliseconds(50));
    (void)!::write(pipe.write, "slow", 4);
  });
  REQUIRE(::splice(pipe.read, nullptr, pair.client, nullptr, 10, 0) == 4);
  writer.join();
  REQUIRE(receive_exactly(pair.server, 4) == "slow");
}

TEST_CASE("splice: a full pipe with SPLICE_F_NONBLOCK takes part, then says EAGAIN, and nothing is lost", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  const std::string data = pattern(300000);
  std::thread sender([&] { send_all(pair.client, data); });
  std::string got;
  int full = 0;
  while (got.size() < data.size()) {
    REQUIRE(becomes(pair.server, POLLIN));
    const ssize_t n = ::splice(pair.server, nullptr, pipe.write, nullptr, data.size(), SPLICE_F_NONBLOCK);
    if (n < 0) {
      REQUIRE(errno == EAGAIN);
      ++full;
      got += read_exactly(pipe.read, static_cast<std::size_t>(queued(pipe.read)));
    } else if (got.size() + static_cast<std::size_t>(queued(pipe.read)) == data.size()) {
      got += read_exactly(pipe.read, static_cast<std::size_t>(queued(pipe.read)));
    }
  }
  sender.join();
  REQUIRE(full > 0);
  REQUIRE(got == data);
}

TEST_CASE("splice: a full socket takes part, and nothing is lost", "[splice]") {
  const Pair pair = small_pair();
  const Pipe pipe;
  set_nonblocking(pair.client);
  const std::string data = pattern(1 << 20);
  std::thread writer([&] {
    std::size_t done = 0;
    while (done < data.size()) {
      const ssize_t n = ::write(pipe.write, data.data() + done, std::min<std::size_t>(data.size() - done, 50000));
      if (n < 0) return;
      done += static_cast<std::size_t>(n);
    }
  });
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, data.size()); });
  std::size_t sent = 0;
  while (sent < data.size()) {
    const ssize_t n = ::splice(pipe.read, nullptr, pair.client, nullptr, 65536, SPLICE_F_MORE);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
    } else {
      REQUIRE(errno == EAGAIN);
      REQUIRE(becomes(pair.client, POLLOUT));
    }
    if (n > 0 && sent == data.size()) {  // what SPLICE_F_MORE holds back
      const int on = 1;
      set_option(pair.client, IPPROTO_TCP, TCP_NODELAY, on);
    }
  }
  writer.join();
  reader.join();
  REQUIRE(got == data);
}

TEST_CASE("splice: a blocking socket takes all that the pipe has", "[splice]") {
  const Pair pair = small_pair();
  const Pipe pipe;
  REQUIRE(::fcntl(pipe.write, F_SETPIPE_SZ, 1 << 18) >= 1 << 18);
  const std::string data = pattern(200000);
  REQUIRE(::write(pipe.write, data.data(), data.size()) == static_cast<ssize_t>(data.size()));
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, data.size()); });
  REQUIRE(::splice(pipe.read, nullptr, pair.client, nullptr, data.size(), 0) == static_cast<ssize_t>(data.size()));
  reader.join();
  REQUIRE(got == data);
}

TEST_CASE("splice: errors are as Linux has them", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  const Fd fresh = stream_socket(), l = listener();
  off_t offset = 0;
  REQUIRE(error_of(::splice(pair.client, nullptr, pair.server, nullptr, 1, 0)) == EINVAL);
  REQUIRE(error_of(::splice(pair.client, nullptr, pipe.write, nullptr, 1, 0x100)) == EINVAL);
  REQUIRE(error_of(::splice(pair.client, nullptr, -1, nullptr, 1, 0)) == EBADF);
  REQUIRE(error_of(::splice(pair.client, nullptr, pipe.read, nullptr, 1, 0)) == EBADF);
  REQUIRE(error_of(::splice(pipe.write, nullptr, pair.client, nullptr, 1, 0)) == EBADF);
  REQUIRE(error_of(::splice(pair.client, &offset, pipe.write, nullptr, 1, 0)) == EINVAL);
  REQUIRE(error_of(::splice(pair.client, nullptr, pipe.write, &offset, 1, 0)) == ESPIPE);
  REQUIRE(error_of(::splice(pipe.read, nullptr, pair.client, &offset, 1, 0)) == EINVAL);
  REQUIRE(error_of(::splice(pipe.read, &offset, pair.client, nullptr, 1, 0)) == ESPIPE);
  REQUIRE(::splice(pair.client, nullptr, pipe.write, nullptr, 0, 0) == 0);
  REQUIRE(error_of(::splice(fresh, nullptr, pipe.write, nullptr, 1, 0)) == ENOTCONN);
  REQUIRE(error_of(::splice(l, nullptr, pipe.write, nullptr, 1, 0)) == ENOTCONN);
}

TEST_CASE("splice: to a socket that can't send is EPIPE and SIGPIPE", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  REQUIRE(::write(pipe.write, "x", 1) == 1);
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(in_child([&] {
            ::signal(SIGPIPE, SIG_DFL);
            const Fd s = stream_socket();
            ::splice(pipe.read, nullptr, s, nullptr, 1, 0);
            return 0;
          }) == 256 + SIGPIPE);
  ::signal(SIGPIPE, SIG_IGN);
  REQUIRE(error_of(::splice(pipe.read, nullptr, pair.client, nullptr, 1, 0)) == EPIPE);
  ::signal(SIGPIPE, SIG_DFL);
}

TEST_CASE("splice: into a pipe without readers is EPIPE, and the data stays", "[splice]") {
  const Pair pair = connected_pair();
  Pipe pipe;
  pipe.read.reset();
  REQUIRE(send_all(pair.client, "stays"));
  REQUIRE(becomes(pair.server, POLLIN));
  ::signal(SIGPIPE, SIG_IGN);
  REQUIRE(error_of(::splice(pair.server, nullptr, pipe.write, nullptr, 10, 0)) == EPIPE);
  ::signal(SIGPIPE, SIG_DFL);
  REQUIRE(receive_exactly(pair.server, 5) == "stays");
}

TEST_CASE("splice: a child and its parent share a connection", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  const Child child([&] {
    if (::write(pipe.write, "from the child", 14) != 14) return 1;
    return ::splice(pipe.read, nullptr, pair.server, nullptr, 14, 0) == 14 ? 0 : 2;
  });
  REQUIRE(receive_exactly(pair.client, 14) == "from the child");
}

TEST_CASE("tee and vmsplice are for pipes", "[splice]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  const iovec v{const_cast<char*>("x"), 1};
  REQUIRE(error_of(::tee(pair.client, pipe.write, 1, 0)) == EINVAL);
  REQUIRE(error_of(::tee(pipe.read, pair.client, 1, 0)) == EINVAL);
  REQUIRE(error_of(::vmsplice(pair.client, &v, 1, 0)) == EBADF);
}

// What one end does is there at the other end when the call is over: the kernel's loopback knows no delay.
#include <sys/ioctl.h>

#include <atomic>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

constexpr int kRounds = 200;

struct Quick : Pair {
  explicit Quick(Pair&& p) : Pair(std::move(p)) {
    set_nonblocking(client);
    set_nonblocking(server);
  }
};

Errno read_error(int fd) {
  char b[64];
  return error_of(::recv(fd, b, sizeof b, 0));
}

}  // namespace

TEST_CASE("at once: what has been written is read without waiting", "[at_once]") {
  const Quick pair(connected_pair());
  char b[64];
  for (int i = 0; i < kRounds; ++i) {
    REQUIRE(::write(pair.client, "abc", 3) == 3);
    REQUIRE(::read(pair.server, b, sizeof b) == 3);
    REQUIRE(read_error(pair.server) == EAGAIN);
    REQUIRE(::write(pair.server, "de", 2) == 2);
    REQUIRE(::read(pair.client, b, sizeof b) == 2);
  }
}

TEST_CASE("at once: two writes are read as one", "[at_once]") {
  const Quick pair(connected_pair());
  set_option(pair.client, IPPROTO_TCP, TCP_NODELAY, 1);
  char b[64];
  for (int i = 0; i < kRounds; ++i) {
    REQUIRE(::write(pair.client, "abc", 3) == 3);
    REQUIRE(::write(pair.client, "def", 3) == 3);
    REQUIRE(::read(pair.server, b, sizeof b) == 6);
  }
}

TEST_CASE("at once: the end of the stream and a half close", "[at_once]") {
  for (int i = 0; i < kRounds; ++i) {
    Quick pair(connected_pair());
    char b[8];
    REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
    REQUIRE(::recv(pair.server, b, sizeof b, 0) == 0);
    pair.server.reset();
    REQUIRE(::recv(pair.client, b, sizeof b, 0) == 0);
  }
}

TEST_CASE("at once: a reset is there for the next write", "[at_once]") {
  for (int i = 0; i < kRounds; ++i) {
    Quick pair(connected_pair());
    REQUIRE(::write(pair.client, "abc", 3) == 3);
    pair.server.reset();  // with unread data: a reset
    REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == ECONNRESET);
    REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
  }
}

TEST_CASE("at once: writing to an end that has been closed is answered", "[at_once]") {
  for (int i = 0; i < kRounds; ++i) {
    Quick pair(connected_pair());
    pair.server.reset();
    REQUIRE(::send(pair.client, "x", 1, MSG_NOSIGNAL) == 1);
    REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
  }
}

TEST_CASE("at once: accept follows connect", "[at_once]") {
  const Fd l = listener(64, AF_INET, SOCK_NONBLOCK);
  const Address to = local_of(l);
  for (int i = 0; i < kRounds; ++i) {
    const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
    const int begun = ::connect(client, to.get(), to.size);
    REQUIRE((begun == 0 || errno == EINPROGRESS));
    const Fd server(::accept(l, nullptr, nullptr));
    REQUIRE(server >= 0);
    REQUIRE(peer_of(client) == to);
    REQUIRE(poll_events(client, POLLOUT) == POLLOUT);
    REQUIRE(::connect(client, to.get(), to.size) == 0);
    REQUIRE(error_of(::connect(client, to.get(), to.size)) == EISCONN);
  }
}

TEST_CASE("at once: a connect is complete for poll, for a set and for a write", "[at_once]") {
  const Fd l = listener(512);
  const Address to = local_of(l);
  for (int i = 0; i < kRounds; ++i) {
    const Fd polled = stream_socket(AF_INET, SOCK_NONBLOCK), written = stream_socket(AF_INET, SOCK_NONBLOCK);
    (void)::connect(polled, to.get(), to.size);
    REQUIRE(poll_events(polled, POLLOUT) == POLLOUT);
    (void)::connect(written, to.get(), to.size);
    REQUIRE(::write(written, "x", 1) == 1);
  }
}

TEST_CASE("at once: a refusal is there for whatever asks first", "[at_once]") {
  Fd l = listener();
  const Address to = local_of(l);
  l.reset();
  const auto refused = [&] {
    Fd s = stream_socket(AF_INET, SOCK_NONBLOCK);
    REQUIRE(::connect(s, to.get(), to.size) == -1);
    return s;
  };
  {
    const Fd s = refused();
    REQUIRE(error_of(::connect(s, to.get(), to.size)) == ECONNREFUSED);
  }
  {
    const Fd s = refused();
    REQUIRE(option(s, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
  }
  {
    const Fd s = refused();
    REQUIRE(error_of(::send(s, "x", 1, MSG_NOSIGNAL)) == ECONNREFUSED);
    REQUIRE(error_of(::send(s, "x", 1, MSG_NOSIGNAL)) == EPIPE);
    char b;
    REQUIRE(::recv(s, &b, 1, 0) == 0);
  }
  {
    const Fd s = refused();
    REQUIRE(read_error(s) == ECONNREFUSED);
  }
  {
    const Fd s = refused();
    REQUIRE((poll_events(s, POLLOUT) & POLLERR) != 0);
  }
}

TEST_CASE("at once: who closes a listener resets what waits in it", "[at_once]") {
  Fd l = listener();
  const Fd client = connected_to(local_of(l));
  set_nonblocking(client);
  l.reset();
  REQUIRE(read_error(client) == ECONNRESET);
}

TEST_CASE("at once: the counts of bytes follow each call", "[at_once]") {
  const Quick pair(connected_pair());
  for (int i = 0; i < kRounds; ++i) {
    int n = -1;
    char b[64];
    REQUIRE(::write(pair.client, "abc", 3) == 3);
    REQUIRE(::ioctl(pair.server, FIONREAD, &n) == 0);
    REQUIRE(n == 3);
    REQUIRE(::read(pair.server, b, sizeof b) == 3);
    REQUIRE(::ioctl(pair.server, FIONREAD, &n) == 0);
    REQUIRE(n == 0);
  }
}

TEST_CASE("at once: across threads", "[at_once]") {
  const Quick pair(connected_pair());
  std::atomic<int> written{0};
  std::atomic<int> read{0};
  std::thread writer([&] {
    for (int i = 1; i <= kRounds; ++i) {
      while (read.load() < i - 1) std::this_thread::yield();
      if (::write(pair.client, "abc", 3) != 3) return;
      written.store(i);
    }
  });
  int good = 0;
  char b[64];
  for (int i = 1; i <= kRounds; ++i) {
    while (written.load() < i) std::this_thread::yield();
    good += ::read(pair.server, b, sizeof b) == 3;
    read.store(i);
  }
  writer.join();
  REQUIRE(good == kRounds);
}

TEST_CASE("at once: who asks again and again sees what comes", "[at_once]") {
  const Quick pair(connected_pair());
  const auto until = [](auto condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  };
  const auto count = [](int fd, unsigned long what) {
    int n = -1;
    (void)::ioctl(fd, what, &n);
    return n;
  };
  REQUIRE(::write(pair.client, "abc", 3) == 3);
  REQUIRE(until([&] { return count(pair.server, FIONREAD) == 3; }));
  REQUIRE(until([&] { return count(pair.client, TIOCOUTQ) == 0; }));
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(until([&] { return option<tcp_info>(pair.client, IPPROTO_TCP, TCP_INFO).tcpi_state == TCP_CLOSE_WAIT; }));
}

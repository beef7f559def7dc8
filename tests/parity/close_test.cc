// close(): FIN or RST, SO_LINGER, what the peer sees.
#include <signal.h>

#include <thread>

#include "tests/parity/signals.hh"

using namespace parity;

namespace {

// The server's end after the client had closed and a first write drew a reset.
Fd server_of_lost_client() {
  Pair pair = connected_pair();
  pair.client.reset();
  REQUIRE(receive_until_end(pair.server).empty());
  REQUIRE(::send(pair.server, "x", 1, MSG_NOSIGNAL) == 1);
  for (int i = 0; i < 1000 && (poll_events(pair.server, 0) & POLLERR) == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  return std::move(pair.server);
}

}  // namespace

TEST_CASE("close: gives the peer the data and then the end", "[close]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "farewell"));
  REQUIRE(error_of(::close(pair.client.release())) == 0);
  REQUIRE(receive_until_end(pair.server) == "farewell");
}

TEST_CASE("close: of much queued data delivers all of it", "[close]") {
  Pair pair = connected_pair();
  const std::string data = pattern(1 << 20, 3);
  std::thread sender([&] {
    send_all(pair.client, data);
    pair.client.reset();
  });
  const std::string got = receive_until_end(pair.server);
  sender.join();
  REQUIRE((got == data));
}

TEST_CASE("close: with unread data resets the peer", "[close]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "never read"));
  REQUIRE(becomes(pair.server, POLLIN));
  pair.server.reset();
  char byte = 0;
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(error_of(::recv(pair.client, &byte, 1, 0)) == ECONNRESET);
}

TEST_CASE("close: a reset is reported once, then the stream has ended", "[close]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "never read"));
  REQUIRE(becomes(pair.server, POLLIN));
  pair.server.reset();
  REQUIRE(becomes(pair.client, POLLIN));
  char byte = 0;
  REQUIRE(error_of(::recv(pair.client, &byte, 1, 0)) == ECONNRESET);
  REQUIRE(::recv(pair.client, &byte, 1, 0) == 0);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("close: SO_ERROR shows a reset and clears it", "[close]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "never read"));
  REQUIRE(becomes(pair.server, POLLIN));
  pair.server.reset();
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ERROR) == ECONNRESET);
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ERROR) == 0);
  char byte = 0;
  REQUIRE(::recv(pair.client, &byte, 1, 0) == 0);
}

TEST_CASE("close: a send reports a reset before EPIPE", "[close]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "never read"));
  REQUIRE(becomes(pair.server, POLLIN));
  pair.server.reset();
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == ECONNRESET);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("close: a reset shows as POLLIN, POLLERR, POLLHUP and POLLRDHUP", "[close]") {
  Pair pair = connected_pair();
  set_option(pair.server, SOL_SOCKET, SO_LINGER, linger{1, 0});
  pair.server.reset();
  const int events = poll_events(pair.client, POLLIN | POLLRDHUP, milliseconds(2000));
  REQUIRE(events == (POLLIN | POLLERR | POLLHUP | POLLRDHUP));
}

TEST_CASE("close: SO_LINGER of 0 resets at once", "[close]") {
  Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{1, 0});
  pair.client.reset();
  char byte = 0;
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(error_of(::recv(pair.server, &byte, 1, 0)) == ECONNRESET);
}

TEST_CASE("close: SO_LINGER of 0 throws away what was not sent", "[close]") {
  Pair pair = small_pair();
  REQUIRE(fill(pair.client) > 0);
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{1, 0});
  pair.client.reset();
  char buffer[4096];
  ssize_t n = 0;
  REQUIRE(becomes(pair.server, POLLERR));
  while ((n = ::recv(pair.server, buffer, sizeof buffer, 0)) > 0) {
  }
  REQUIRE(error_of(n) == ECONNRESET);
}

TEST_CASE("close: with a positive SO_LINGER waits until the peer has all", "[close]") {
  Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{1, 5});
  const std::string data = pattern(50000);
  std::string got;
  std::thread reader([&] { got = receive_until_end(pair.server); });
  REQUIRE(send_all(pair.client, data));
  const Stopwatch watch;
  REQUIRE(error_of(::close(pair.client.release())) == 0);
  REQUIRE(watch.elapsed() < milliseconds(4500));
  reader.join();
  REQUIRE(got == data);
}

TEST_CASE("close: a positive SO_LINGER gives up after its time when the peer does not read", "[close]") {
  Pair pair = small_pair();
  REQUIRE(fill(pair.client) > 0);
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{1, 1});
  const Stopwatch watch;
  REQUIRE(error_of(::close(pair.client.release())) == 0);
  REQUIRE(watch.elapsed() >= milliseconds(900));
  REQUIRE(watch.elapsed() < milliseconds(4000));
}

TEST_CASE("close: SO_LINGER switched off again closes in order", "[close]") {
  Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{1, 0});
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{0, 0});
  REQUIRE(send_all(pair.client, "fine"));
  pair.client.reset();
  REQUIRE(receive_until_end(pair.server) == "fine");
}

TEST_CASE("close: the first write to a peer that is gone succeeds, the next is EPIPE", "[close]") {
  const Fd server = server_of_lost_client();
  REQUIRE(error_of(::send(server, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("close: after a reset in CLOSE-WAIT reading answers 0", "[close]") {
  const Fd server = server_of_lost_client();
  char byte = 0;
  REQUIRE(::recv(server, &byte, 1, 0) == 0);
}

TEST_CASE("close: EPIPE raises SIGPIPE unless MSG_NOSIGNAL", "[close]") {
  const SignalCounter pipes(SIGPIPE);
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
  REQUIRE(pipes.count() == 0);
  REQUIRE(error_of(::send(pair.client, "x", 1, 0)) == EPIPE);
  REQUIRE(pipes.count() == 1);
  REQUIRE(error_of(::write(pair.client, "x", 1)) == EPIPE);
  REQUIRE(pipes.count() == 2);
}

TEST_CASE("close: SIGPIPE kills a program that does not expect it", "[close]") {
  REQUIRE(in_child([] {
            ::signal(SIGPIPE, SIG_DFL);
            const Pair pair = connected_pair();
            ::shutdown(pair.client, SHUT_WR);
            const ssize_t n = ::write(pair.client, "x", 1);
            return n < 0 ? 1 : 2;
          }) == 256 + SIGPIPE);
}

TEST_CASE("close: twice is EBADF", "[close]") {
  Pair pair = connected_pair();
  const int number = pair.client.release();
  REQUIRE(error_of(::close(number)) == 0);
  REQUIRE(error_of(::close(number)) == EBADF);
}

TEST_CASE("close: every call on a closed descriptor is EBADF", "[close]") {
  Pair pair = connected_pair();
  const int number = pair.client.release();
  REQUIRE(::close(number) == 0);
  char byte = 0;
  int value = 0;
  socklen_t size = sizeof value;
  REQUIRE(error_of(::recv(number, &byte, 1, 0)) == EBADF);
  REQUIRE(error_of(::send(number, &byte, 1, MSG_NOSIGNAL)) == EBADF);
  REQUIRE(error_of(::read(number, &byte, 1)) == EBADF);
  REQUIRE(error_of(::write(number, &byte, 1)) == EBADF);
  REQUIRE(error_of(::shutdown(number, SHUT_WR)) == EBADF);
  REQUIRE(error_of(::listen(number, 1)) == EBADF);
  REQUIRE(error_of(::getsockopt(number, SOL_SOCKET, SO_TYPE, &value, &size)) == EBADF);
  REQUIRE(error_of(::setsockopt(number, SOL_SOCKET, SO_KEEPALIVE, &value, size)) == EBADF);
}

TEST_CASE("close: simultaneous close ends both sides in order", "[close]") {
  Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(error_of(::close(pair.client.release())) == 0);
  REQUIRE(receive_until_end(pair.server).empty());
  REQUIRE(option(pair.server, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("close: data sent to a peer that has closed resets it and not us before", "[close]") {
  Pair pair = connected_pair();
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client).empty());
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ERROR) == 0);
  REQUIRE(::send(pair.client, "x", 1, MSG_NOSIGNAL) == 1);
}

TEST_CASE("close: a reused descriptor knows nothing of the connection that had it", "[close]") {
  Pair old = connected_pair();
  REQUIRE(send_all(old.server, "stale"));
  REQUIRE(becomes(old.client, POLLIN));
  const int number = old.client;
  old.client.reset();
  std::vector<Fd> fresh;
  do {
    fresh.push_back(stream_socket());
    char byte = 0;
    REQUIRE(error_of(::recv(fresh.back(), &byte, 1, 0)) == ENOTCONN);
    REQUIRE(option(fresh.back(), SOL_SOCKET, SO_ERROR) == 0);
  } while (fresh.back() != number && fresh.size() < 64);
  REQUIRE(fresh.back() == number);
}

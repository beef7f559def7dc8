// shutdown(), half-open connections, end of stream.
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("shutdown: for writing gives the peer the data and then the end", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "last words"));
  REQUIRE(error_of(::shutdown(pair.client, SHUT_WR)) == 0);
  REQUIRE(receive_until_end(pair.server) == "last words");
}

TEST_CASE("shutdown: after the end recv keeps answering 0", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  char byte = 0;
  REQUIRE(::recv(pair.server, &byte, 1, 0) == 0);
  REQUIRE(::recv(pair.server, &byte, 1, 0) == 0);
  REQUIRE(::recv(pair.server, &byte, 1, MSG_DONTWAIT) == 0);
}

TEST_CASE("shutdown: the other direction of a half-closed connection goes on", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.server).empty());
  const std::string answer = pattern(100000);
  std::thread sender([&] {
    send_all(pair.server, answer);
    ::shutdown(pair.server, SHUT_WR);
  });
  const std::string got = receive_until_end(pair.client);
  sender.join();
  REQUIRE(got == answer);
}

TEST_CASE("shutdown: writing after it is EPIPE", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT)) == EPIPE);
}

TEST_CASE("shutdown: for reading makes recv answer 0 and tells the peer nothing", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::shutdown(pair.client, SHUT_RD)) == 0);
  char byte = 0;
  REQUIRE(::recv(pair.client, &byte, 1, 0) == 0);
  REQUIRE(poll_events(pair.server, POLLIN | POLLOUT | POLLRDHUP) == POLLOUT);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
}

TEST_CASE("shutdown: for reading keeps what had been received", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "before"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(::shutdown(pair.client, SHUT_RD) == 0);
  REQUIRE(receive_until_end(pair.client) == "before");
}

TEST_CASE("shutdown: data that comes after a shutdown for reading can still be read", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_RD) == 0);
  REQUIRE(send_all(pair.server, "late"));
  std::string got;
  for (int i = 0; i < 100 && got.empty(); ++i) {
    got = receive_exactly(pair.client, 4);
    if (got.empty()) std::this_thread::sleep_for(milliseconds(5));
  }
  REQUIRE(got == "late");
}

TEST_CASE("shutdown: for both ends both directions", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::shutdown(pair.client, SHUT_RDWR)) == 0);
  char byte = 0;
  REQUIRE(::recv(pair.client, &byte, 1, 0) == 0);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
  REQUIRE(receive_until_end(pair.server).empty());
}

TEST_CASE("shutdown: both sides for writing is an orderly close with POLLHUP on both", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.server).empty());
  REQUIRE(receive_until_end(pair.client).empty());
  for (const int fd : {int(pair.client), int(pair.server)}) {
    const int events = poll_events(fd, POLLIN | POLLOUT | POLLRDHUP, milliseconds(1000));
    REQUIRE((events & POLLHUP) != 0);
    REQUIRE((events & POLLRDHUP) != 0);
    REQUIRE((events & POLLIN) != 0);
  }
}

TEST_CASE("shutdown: twice the same way is no error while the connection lives", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::shutdown(pair.client, SHUT_WR)) == 0);
  REQUIRE(error_of(::shutdown(pair.client, SHUT_WR)) == 0);
}

TEST_CASE("shutdown: of an unconnected socket is ENOTCONN", "[shutdown]") {
  const Fd fresh = stream_socket();
  const Fd bound = bound_socket();
  REQUIRE(error_of(::shutdown(fresh, SHUT_RDWR)) == ENOTCONN);
  REQUIRE(error_of(::shutdown(bound, SHUT_WR)) == ENOTCONN);
}

TEST_CASE("shutdown: an unknown way is EINVAL", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::shutdown(pair.client, 3)) == EINVAL);
  REQUIRE(error_of(::shutdown(pair.client, -1)) == EINVAL);
}

TEST_CASE("shutdown: POLLRDHUP shows the peer's end, POLLHUP does not", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  const int events = poll_events(pair.server, POLLRDHUP, milliseconds(2000));
  REQUIRE((events & POLLRDHUP) != 0);
  REQUIRE(poll_events(pair.server, POLLIN | POLLOUT | POLLRDHUP) == (POLLIN | POLLOUT | POLLRDHUP));
}

TEST_CASE("shutdown: wakes a recv of the same socket in another thread", "[shutdown]") {
  const Pair pair = connected_pair();
  ssize_t result = -5;
  std::thread reader([&] {
    char byte = 0;
    result = ::recv(pair.client, &byte, 1, 0);
  });
  std::this_thread::sleep_for(milliseconds(50));
  REQUIRE(::shutdown(pair.client, SHUT_RD) == 0);
  reader.join();
  REQUIRE(result == 0);
}

TEST_CASE("shutdown: data queued before a shutdown for writing all arrives, however much", "[shutdown]") {
  const Pair pair = connected_pair();
  const std::string data = pattern(2 << 20, 5);
  std::thread sender([&] {
    send_all(pair.client, data);
    ::shutdown(pair.client, SHUT_WR);
  });
  const std::string got = receive_until_end(pair.server);
  sender.join();
  REQUIRE(got.size() == data.size());
  REQUIRE((got == data));
}

TEST_CASE("shutdown: a request whose sender has shut down is answered in full", "[shutdown]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "request"));
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.server) == "request");
  REQUIRE(send_all(pair.server, "answer"));
  REQUIRE(::shutdown(pair.server, SHUT_RDWR) == 0);
  REQUIRE(receive_until_end(pair.client) == "answer");
}

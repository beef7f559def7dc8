// The writing calls and their flags.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("send: write, writev, send, sendto and sendmsg form one stream", "[send]") {
  const Pair pair = connected_pair();
  char a[] = "bc";
  char b[] = "def";
  iovec parts[3] = {{a, 2}, {nullptr, 0}, {b, 3}};
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = 3;
  REQUIRE(::write(pair.client, "a", 1) == 1);
  REQUIRE(::writev(pair.client, parts, 3) == 5);
  REQUIRE(::send(pair.client, "gh", 2, 0) == 2);
  REQUIRE(::sendto(pair.client, "i", 1, 0, nullptr, 0) == 1);
  REQUIRE(::sendmsg(pair.client, &m, 0) == 5);
  REQUIRE(receive_exactly(pair.server, 14) == "abcdefghibcdef");
}

TEST_CASE("send: sendto ignores the address on a connection", "[send]") {
  const Pair pair = connected_pair();
  const Address other = make_address("192.0.2.1", 9);
  REQUIRE(::sendto(pair.client, "x", 1, 0, other.get(), other.size) == 1);
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("send: sendmmsg sends every entry and counts its bytes", "[send]") {
  const Pair pair = connected_pair();
  char text[] = "abcdef";
  iovec parts[3] = {{text, 1}, {text + 1, 2}, {text + 3, 3}};
  mmsghdr messages[3]{};
  for (int i = 0; i < 3; ++i) {
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  REQUIRE(::sendmmsg(pair.client, messages, 3, 0) == 3);
  REQUIRE(messages[0].msg_len == 1);
  REQUIRE(messages[2].msg_len == 3);
  REQUIRE(receive_exactly(pair.server, 6) == "abcdef");
}

TEST_CASE("send: zero bytes are zero and nothing for the peer", "[send]") {
  const Pair pair = connected_pair();
  REQUIRE(::send(pair.client, "", 0, 0) == 0);
  REQUIRE(::write(pair.client, "", 0) == 0);
  REQUIRE(::writev(pair.client, nullptr, 0) == 0);
  REQUIRE_FALSE(becomes(pair.server, POLLIN | POLLRDHUP, milliseconds(30)));
}

TEST_CASE("send: on an unconnected socket is EPIPE", "[send]") {
  const Fd fresh = stream_socket();
  REQUIRE(error_of(::send(fresh, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("send: without blocking takes what fits, then EAGAIN", "[send]") {
  const Pair pair = small_pair();
  set_nonblocking(pair.client);
  REQUIRE(fill(pair.client) > 0);
  REQUIRE(error_of(::send(pair.client, "x", 1, 0)) == EAGAIN);
  REQUIRE(error_of(::write(pair.client, "x", 1)) == EAGAIN);
  REQUIRE(poll_events(pair.client, POLLOUT) == 0);
}

TEST_CASE("send: MSG_DONTWAIT on a blocking socket takes a part of a large buffer", "[send]") {
  const Pair pair = small_pair();
  const std::string data = pattern(4 << 20);
  const ssize_t n = ::send(pair.client, data.data(), data.size(), MSG_DONTWAIT);
  REQUIRE(n > 0);
  REQUIRE(n < static_cast<ssize_t>(data.size()));
  const std::string got = receive_exactly(pair.server, static_cast<std::size_t>(n));
  REQUIRE((got == data.substr(0, got.size())));
  REQUIRE(got.size() == static_cast<std::size_t>(n));
}

TEST_CASE("send: becomes writable again when the peer has read", "[send]") {
  const Pair pair = small_pair();
  const std::size_t queued = fill(pair.client);
  REQUIRE(poll_events(pair.client, POLLOUT) == 0);
  REQUIRE(receive_exactly(pair.server, queued).size() == queued);
  REQUIRE(becomes(pair.client, POLLOUT));
  REQUIRE(::send(pair.client, "x", 1, MSG_DONTWAIT) == 1);
}

TEST_CASE("send: a blocking write returns when all has been taken", "[send]") {
  const Pair pair = small_pair();
  const std::string data = pattern(500000, 4);
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, data.size()); });
  const ssize_t n = ::write(pair.client, data.data(), data.size());
  reader.join();
  REQUIRE(n == static_cast<ssize_t>(data.size()));
  REQUIRE((got == data));
}

TEST_CASE("send: a reset in the midst of a blocking write is told by the next call", "[send]") {
  Pair pair = small_pair();
  const std::string data = pattern(4 << 20, 4);
  std::thread resetter([&] {
    std::this_thread::sleep_for(milliseconds(50));
    pair.server.reset();  // there is unread data
  });
  const ssize_t n = ::send(pair.client, data.data(), data.size(), MSG_NOSIGNAL);
  resetter.join();
  REQUIRE(n > 0);
  REQUIRE(n < static_cast<ssize_t>(data.size()));
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == ECONNRESET);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("send: a blocking writev of many large parts sends them in order", "[send]") {
  const Pair pair = small_pair();
  std::string data = pattern(64 * 5000, 6);
  std::vector<iovec> parts;
  for (std::size_t i = 0; i < 64; ++i) parts.push_back({data.data() + i * 5000, 5000});
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, data.size()); });
  const ssize_t n = ::writev(pair.client, parts.data(), 64);
  reader.join();
  REQUIRE(n == static_cast<ssize_t>(data.size()));
  REQUIRE((got == data));
}

TEST_CASE("send: 1,024 parts of one byte each arrive in order", "[send]") {
  const Pair pair = connected_pair();
  std::string data = pattern(1024, 8);
  std::vector<iovec> parts;
  for (char& c : data) parts.push_back({&c, 1});
  REQUIRE(::writev(pair.client, parts.data(), 1024) == 1024);
  REQUIRE((receive_exactly(pair.server, 1024) == data));
}

TEST_CASE("send: too many parts are EINVAL or EMSGSIZE", "[send]") {
  const Pair pair = connected_pair();
  char b = 'x';
  std::vector<iovec> parts(1025, iovec{&b, 1});
  REQUIRE(error_of(::writev(pair.client, parts.data(), 1025)) == EINVAL);
  volatile int negative = -1;  // hidden from the compiler, which would warn
  REQUIRE(error_of(::writev(pair.client, parts.data(), negative)) == EINVAL);
  msghdr m{};
  m.msg_iov = parts.data();
  m.msg_iovlen = 1025;
  REQUIRE(error_of(::sendmsg(pair.client, &m, MSG_NOSIGNAL)) == EMSGSIZE);
}

TEST_CASE("send: SO_SNDTIMEO bounds a blocking write with EAGAIN", "[send]") {
  const Pair pair = small_pair();
  REQUIRE(fill(pair.client) > 0);
  set_option(pair.client, SOL_SOCKET, SO_SNDTIMEO, timeval{0, 60000});
  const Stopwatch watch;
  REQUIRE(error_of(::send(pair.client, "x", 1, 0)) == EAGAIN);
  REQUIRE(watch.elapsed() >= milliseconds(55));
  REQUIRE(watch.elapsed() < milliseconds(3000));
}

TEST_CASE("send: SO_SNDTIMEO after a part has gone returns the part", "[send]") {
  const Pair pair = small_pair();
  set_option(pair.client, SOL_SOCKET, SO_SNDTIMEO, timeval{0, 60000});
  const std::string data = pattern(4 << 20);
  const ssize_t n = ::send(pair.client, data.data(), data.size(), 0);
  REQUIRE(n > 0);
  REQUIRE(n < static_cast<ssize_t>(data.size()));
}

TEST_CASE("send: MSG_MORE holds a small piece back until the rest comes", "[send]") {
  const Pair pair = connected_pair();
  REQUIRE(::send(pair.client, "head", 4, MSG_MORE) == 4);
  REQUIRE_FALSE(becomes(pair.server, POLLIN, milliseconds(60)));
  REQUIRE(::send(pair.client, "tail", 4, 0) == 4);
  REQUIRE(becomes(pair.server, POLLIN));
  char b[20];
  REQUIRE(::recv(pair.server, b, sizeof b, 0) == 8);
}

TEST_CASE("send: MSG_MORE holds back for 200 ms at most", "[send]") {
  const Pair pair = connected_pair();
  REQUIRE(::send(pair.client, "head", 4, MSG_MORE) == 4);
  REQUIRE(becomes(pair.server, POLLIN, milliseconds(2000)));
  REQUIRE(receive_exactly(pair.server, 4) == "head");
}

TEST_CASE("send: TCP_CORK gathers small writes until it is pulled", "[send]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
  for (int i = 0; i < 5; ++i) REQUIRE(::send(pair.client, "ab", 2, 0) == 2);
  REQUIRE_FALSE(becomes(pair.server, POLLIN, milliseconds(60)));
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 0);
  REQUIRE(becomes(pair.server, POLLIN));
  char b[20];
  REQUIRE(::recv(pair.server, b, sizeof b, 0) == 10);
}

TEST_CASE("send: TCP_CORK does not hold back full segments", "[send]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
  const std::string data = pattern(200000);
  REQUIRE(send_all(pair.client, data));
  REQUIRE(becomes(pair.server, POLLIN, milliseconds(100)));
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 0);
  REQUIRE((receive_exactly(pair.server, data.size()) == data));
}

TEST_CASE("send: a cork is pulled by close", "[send]") {
  Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
  REQUIRE(send_all(pair.client, "corked"));
  pair.client.reset();
  REQUIRE(receive_until_end(pair.server) == "corked");
}

TEST_CASE("send: with TCP_NODELAY small writes go out at once", "[send]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_NODELAY, 1);
  REQUIRE(send_all(pair.client, "1"));
  REQUIRE(becomes(pair.server, POLLIN, milliseconds(150)));
  REQUIRE(send_all(pair.client, "2"));
  const std::string got = receive_exactly(pair.server, 2);
  REQUIRE(got == "12");
}

TEST_CASE("send: request and answer with Nagle's algorithm on lose nothing", "[send]") {
  const Pair pair = connected_pair();
  const Stopwatch watch;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(send_all(pair.client, "question"));
    REQUIRE(receive_exactly(pair.server, 8) == "question");
    REQUIRE(send_all(pair.server, "answer"));
    REQUIRE(receive_exactly(pair.client, 6) == "answer");
  }
  REQUIRE(watch.elapsed() < milliseconds(3500));  // a delayed ACK each time would be 4 s
}

TEST_CASE("send: both directions at once do not disturb each other", "[send]") {
  const Pair pair = small_pair();
  const std::string one = pattern(300000, 11);
  const std::string two = pattern(300000, 12);
  std::string got_one;
  std::string got_two;
  std::thread a([&] { send_all(pair.client, one); });
  std::thread b([&] { send_all(pair.server, two); });
  std::thread c([&] { got_one = receive_exactly(pair.server, one.size()); });
  std::thread d([&] { got_two = receive_exactly(pair.client, two.size()); });
  a.join();
  b.join();
  c.join();
  d.join();
  REQUIRE((got_one == one));
  REQUIRE((got_two == two));
}

TEST_CASE("send: queued data survives the peer's shutdown of its own direction", "[send]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.client).empty());
  REQUIRE(send_all(pair.client, "after their FIN"));
  REQUIRE(receive_exactly(pair.server, 15) == "after their FIN");
}

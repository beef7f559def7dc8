// The reading calls and their flags.
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/uio.h>

#include <cstring>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

// A pair whose client has `text` to read.
Pair pair_with(std::string_view text) {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, text));
  for (int i = 0; i < 1000; ++i) {
    std::string seen(text.size(), '\0');
    const ssize_t n = ::recv(pair.client, seen.data(), seen.size(), MSG_PEEK | MSG_DONTWAIT);
    if (n == static_cast<ssize_t>(text.size())) return pair;
    std::this_thread::sleep_for(milliseconds(1));
  }
  FAIL("the data did not come");
  return pair;
}

}  // namespace

TEST_CASE("receive: read, recv and recvfrom take from one stream in order", "[receive]") {
  const Pair pair = pair_with("abcdef");
  char b[3] = "";
  REQUIRE(::read(pair.client, b, 2) == 2);
  REQUIRE(std::memcmp(b, "ab", 2) == 0);
  REQUIRE(::recv(pair.client, b, 2, 0) == 2);
  REQUIRE(std::memcmp(b, "cd", 2) == 0);
  REQUIRE(::recvfrom(pair.client, b, 2, 0, nullptr, nullptr) == 2);
  REQUIRE(std::memcmp(b, "ef", 2) == 0);
}

TEST_CASE("receive: a read returns what is there, not what was asked", "[receive]") {
  const Pair pair = pair_with("short");
  char b[100];
  REQUIRE(::read(pair.client, b, sizeof b) == 5);
}

TEST_CASE("receive: one read takes what several writes brought", "[receive]") {
  const Pair pair = connected_pair();
  set_option(pair.server, IPPROTO_TCP, TCP_NODELAY, 1);
  for (int i = 0; i < 10; ++i) REQUIRE(send_all(pair.server, "0123456789"));
  std::string got = receive_exactly(pair.client, 100);
  REQUIRE(got.size() == 100);
  REQUIRE(got.substr(90) == "0123456789");
}

TEST_CASE("receive: readv fills its parts one after the other", "[receive]") {
  const Pair pair = pair_with("abcdefgh");
  char a[3];
  char b[1];
  char c[10];
  iovec parts[4] = {{a, 3}, {nullptr, 0}, {b, 1}, {c, 10}};
  REQUIRE(::readv(pair.client, parts, 4) == 8);
  REQUIRE(std::string(a, 3) + std::string(b, 1) + std::string(c, 4) == "abcdefgh");
}

TEST_CASE("receive: with TCP_INQ recvmsg tells how much more there is, and that the end is known", "[receive]") {
  const Pair pair = connected_pair();
  int value = 2;
  REQUIRE(error_of(::setsockopt(pair.client, IPPROTO_TCP, TCP_INQ, &value, sizeof value)) == EINVAL);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_INQ) == 0);
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))];
  char data[4];
  msghdr m{};
  const auto read_more = [&](std::size_t room) {
    iovec part{data, sizeof data};
    m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = room};
    const auto n = ::recvmsg(pair.client, &m, 0);
    m.msg_iov = nullptr;
    return n;
  };
  const auto hint = [&] {
    const cmsghdr* c = CMSG_FIRSTHDR(&m);
    REQUIRE(c != nullptr);
    REQUIRE(c->cmsg_level == IPPROTO_TCP);
    REQUIRE(c->cmsg_type == TCP_INQ);
    REQUIRE(c->cmsg_len == CMSG_LEN(sizeof(int)));
    int n = 0;
    std::memcpy(&n, CMSG_DATA(c), sizeof n);
    return n;
  };
  REQUIRE(send_all(pair.server, "0123456789ab"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(read_more(sizeof space) == 4);
  REQUIRE(m.msg_controllen == 0);
  set_option(pair.client, IPPROTO_TCP, TCP_INQ, 1);
  REQUIRE(read_more(sizeof space) == 4);
  REQUIRE(hint() == 4);
  REQUIRE(m.msg_flags == 0);
  REQUIRE(read_more(0) == 4);
  REQUIRE((m.msg_flags & MSG_CTRUNC) != 0);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(becomes(pair.client, POLLRDHUP));
  REQUIRE(read_more(sizeof space) == 0);
  REQUIRE(hint() == 1);
}

TEST_CASE("receive: recvmsg fills its parts and reports neither name nor flags", "[receive]") {
  const Pair pair = pair_with("abcdef");
  char a[2];
  char b[9];
  iovec parts[2] = {{a, 2}, {b, 9}};
  sockaddr_storage name{};
  msghdr m{};
  m.msg_name = &name;
  m.msg_namelen = sizeof name;
  m.msg_iov = parts;
  m.msg_iovlen = 2;
  m.msg_flags = MSG_TRUNC;
  REQUIRE(::recvmsg(pair.client, &m, 0) == 6);
  REQUIRE(m.msg_namelen == 0);
  REQUIRE(m.msg_controllen == 0);
  REQUIRE((m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0);
  REQUIRE(std::string(b, 4) == "cdef");
}

TEST_CASE("receive: recvfrom gives no address on a stream", "[receive]") {
  const Pair pair = pair_with("x");
  char b = 0;
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  REQUIRE(::recvfrom(pair.client, &b, 1, 0, reinterpret_cast<sockaddr*>(&name), &size) == 1);
  REQUIRE(size == 0);
}

TEST_CASE("receive: recvmmsg takes a message's worth for each entry", "[receive]") {
  const Pair pair = pair_with("aabbcc");
  char b[3][2];
  iovec parts[3] = {{b[0], 2}, {b[1], 2}, {b[2], 2}};
  mmsghdr messages[3]{};
  for (int i = 0; i < 3; ++i) {
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  REQUIRE(::recvmmsg(pair.client, messages, 3, MSG_DONTWAIT, nullptr) == 3);
  REQUIRE(messages[2].msg_len == 2);
  REQUIRE(std::memcmp(b, "aabbcc", 6) == 0);
  REQUIRE(error_of(::recvmmsg(pair.client, messages, 3, MSG_DONTWAIT, nullptr)) == EAGAIN);
}

TEST_CASE("receive: recvmmsg returns what it has when there is no more", "[receive]") {
  const Pair pair = pair_with("aabb");
  char b[3][2];
  iovec parts[3] = {{b[0], 2}, {b[1], 2}, {b[2], 2}};
  mmsghdr messages[3]{};
  for (int i = 0; i < 3; ++i) {
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  REQUIRE(::recvmmsg(pair.client, messages, 3, MSG_WAITFORONE, nullptr) == 2);
}

TEST_CASE("receive: MSG_PEEK leaves the data where it is", "[receive]") {
  const Pair pair = pair_with("look");
  char b[4] = "";
  for (int i = 0; i < 3; ++i) REQUIRE(::recv(pair.client, b, 4, MSG_PEEK) == 4);
  REQUIRE(::recv(pair.client, b, 2, MSG_PEEK) == 2);
  REQUIRE(::recv(pair.client, b, 4, 0) == 4);
  REQUIRE(std::memcmp(b, "look", 4) == 0);
  REQUIRE(error_of(::recv(pair.client, b, 4, MSG_PEEK | MSG_DONTWAIT)) == EAGAIN);
}

TEST_CASE("receive: MSG_PEEK sees across several writes", "[receive]") {
  const Pair pair = connected_pair();
  set_option(pair.server, IPPROTO_TCP, TCP_NODELAY, 1);
  REQUIRE(send_all(pair.server, "one"));
  REQUIRE(send_all(pair.server, "two"));
  char b[6];
  REQUIRE(::recv(pair.client, b, 6, MSG_PEEK | MSG_WAITALL) == 6);
  REQUIRE(std::memcmp(b, "onetwo", 6) == 0);
  REQUIRE(receive_exactly(pair.client, 6) == "onetwo");
}

TEST_CASE("receive: MSG_PEEK waits for data and sees the end", "[receive]") {
  const Pair pair = connected_pair();
  char b = 0;
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(30));
    ::shutdown(pair.server, SHUT_WR);
  });
  const ssize_t n = ::recv(pair.client, &b, 1, MSG_PEEK);
  later.join();
  REQUIRE(n == 0);
}

TEST_CASE("receive: MSG_WAITALL waits for the whole", "[receive]") {
  const Pair pair = connected_pair();
  std::thread sender([&] {
    for (int i = 0; i < 5; ++i) {
      send_all(pair.server, "ab");
      std::this_thread::sleep_for(milliseconds(10));
    }
  });
  char b[10];
  const ssize_t n = ::recv(pair.client, b, 10, MSG_WAITALL);
  sender.join();
  REQUIRE(n == 10);
}

TEST_CASE("receive: MSG_WAITALL returns less at the end of the stream", "[receive]") {
  Pair pair = pair_with("only");
  pair.server.reset();
  char b[10];
  REQUIRE(::recv(pair.client, b, 10, MSG_WAITALL) == 4);
  REQUIRE(::recv(pair.client, b, 10, MSG_WAITALL) == 0);
}

TEST_CASE("receive: MSG_WAITALL of more than the receive buffer holds completes", "[receive]") {
  const Pair pair = small_pair();
  const std::string data = pattern(300000, 9);
  std::thread sender([&] { send_all(pair.server, data); });
  std::string got(data.size(), '\0');
  const ssize_t n = ::recv(pair.client, got.data(), got.size(), MSG_WAITALL);
  sender.join();
  REQUIRE(n == static_cast<ssize_t>(data.size()));
  REQUIRE((got == data));
}

TEST_CASE("receive: MSG_WAITALL with MSG_DONTWAIT takes what is there", "[receive]") {
  const Pair pair = pair_with("abc");
  char b[10];
  REQUIRE(::recv(pair.client, b, 10, MSG_WAITALL | MSG_DONTWAIT) == 3);
}

TEST_CASE("receive: MSG_DONTWAIT is EAGAIN on a blocking socket without data", "[receive]") {
  const Pair pair = connected_pair();
  char b = 0;
  REQUIRE(error_of(::recv(pair.client, &b, 1, MSG_DONTWAIT)) == EAGAIN);
  REQUIRE((::fcntl(pair.client, F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("receive: O_NONBLOCK is EAGAIN in every reading call", "[receive]") {
  const Pair pair = connected_pair();
  set_nonblocking(pair.client);
  char b = 0;
  iovec part{&b, 1};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  REQUIRE(error_of(::read(pair.client, &b, 1)) == EAGAIN);
  REQUIRE(error_of(::readv(pair.client, &part, 1)) == EAGAIN);
  REQUIRE(error_of(::recv(pair.client, &b, 1, 0)) == EAGAIN);
  REQUIRE(error_of(::recvfrom(pair.client, &b, 1, 0, nullptr, nullptr)) == EAGAIN);
  REQUIRE(error_of(::recvmsg(pair.client, &m, 0)) == EAGAIN);
}

TEST_CASE("receive: MSG_TRUNC discards and reports how much", "[receive]") {
  const Pair pair = pair_with("discardkeep");
  REQUIRE(::recv(pair.client, nullptr, 7, MSG_TRUNC) == 7);
  REQUIRE(receive_exactly(pair.client, 4) == "keep");
}

TEST_CASE("receive: MSG_ERRQUEUE has nothing to say on a quiet connection", "[receive]") {
  const Pair pair = pair_with("x");
  char b = 0;
  REQUIRE(error_of(::recv(pair.client, &b, 1, MSG_ERRQUEUE)) == EAGAIN);
  REQUIRE(receive_exactly(pair.client, 1) == "x");
}

TEST_CASE("receive: MSG_OOB without urgent data is EINVAL", "[receive]") {
  const Pair pair = connected_pair();
  char b = 0;
  REQUIRE(error_of(::recv(pair.client, &b, 1, MSG_OOB)) == EINVAL);
}

TEST_CASE("receive: zero bytes asked is zero at once, data or none", "[receive]") {
  const Pair idle = connected_pair();
  char b = 0;
  REQUIRE(::read(idle.client, &b, 0) == 0);
  set_nonblocking(idle.client);
  REQUIRE(::read(idle.client, &b, 0) == 0);
  const Pair busy = pair_with("x");
  REQUIRE(::recv(busy.client, &b, 0, 0) == 0);
  REQUIRE(receive_exactly(busy.client, 1) == "x");
}

TEST_CASE("receive: from an unconnected socket is ENOTCONN", "[receive]") {
  const Fd fresh = stream_socket();
  const Fd bound = bound_socket();
  char b = 0;
  REQUIRE(error_of(::recv(fresh, &b, 1, 0)) == ENOTCONN);
  REQUIRE(error_of(::read(bound, &b, 1)) == ENOTCONN);
}

TEST_CASE("receive: too many parts are EINVAL or EMSGSIZE", "[receive]") {
  const Pair pair = pair_with("x");
  char b = 0;
  std::vector<iovec> parts(1025, iovec{&b, 1});
  REQUIRE(error_of(::readv(pair.client, parts.data(), 1025)) == EINVAL);
  volatile int negative = -1;  // hidden from the compiler, which would warn
  REQUIRE(error_of(::readv(pair.client, parts.data(), negative)) == EINVAL);
  msghdr m{};
  m.msg_iov = parts.data();
  m.msg_iovlen = 1025;
  REQUIRE(error_of(::recvmsg(pair.client, &m, 0)) == EMSGSIZE);
  REQUIRE(receive_exactly(pair.client, 1) == "x");
}

TEST_CASE("receive: 1,024 parts of one byte each are filled in order", "[receive]") {
  const std::string text = pattern(1024);
  const Pair pair = pair_with(text);
  std::string got(1024, '\0');
  std::vector<iovec> parts;
  for (char& c : got) parts.push_back({&c, 1});
  REQUIRE(::readv(pair.client, parts.data(), 1024) == 1024);
  REQUIRE((got == text));
}

TEST_CASE("receive: the bytes before a FIN come before the end", "[receive]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "tail"));
  pair.server.reset();
  char b[10];
  REQUIRE(receive_exactly(pair.client, 4) == "tail");
  REQUIRE(::recv(pair.client, b, 10, 0) == 0);
}

TEST_CASE("receive: blocks until data comes", "[receive]") {
  const Pair pair = connected_pair();
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(40));
    send_all(pair.server, "now");
  });
  const Stopwatch watch;
  const std::string got = receive_exactly(pair.client, 3);
  const milliseconds took = watch.elapsed();
  later.join();
  REQUIRE(got == "now");
  REQUIRE(took >= milliseconds(35));
}

TEST_CASE("receive: SO_RCVTIMEO bounds a blocking read with EAGAIN", "[receive]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 60000});
  char b = 0;
  const Stopwatch watch;
  REQUIRE(error_of(::recv(pair.client, &b, 1, 0)) == EAGAIN);
  REQUIRE(watch.elapsed() >= milliseconds(55));
  REQUIRE(watch.elapsed() < milliseconds(3000));
}

TEST_CASE("receive: SO_RCVTIMEO bounds accept", "[receive]") {
  const Fd l = listener();
  set_option(l, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 60000});
  const Stopwatch watch;
  REQUIRE(error_of(::accept(l, nullptr, nullptr)) == EAGAIN);
  REQUIRE(watch.elapsed() >= milliseconds(55));
}

TEST_CASE("receive: SO_RCVTIMEO with MSG_WAITALL returns what had come", "[receive]") {
  const Pair pair = pair_with("abc");
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 60000});
  char b[10];
  REQUIRE(::recv(pair.client, b, 10, MSG_WAITALL) == 3);
}

TEST_CASE("receive: SO_RCVTIMEO of zero waits without end", "[receive]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 20000});
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 0});
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(80));
    send_all(pair.server, "x");
  });
  const std::string got = receive_exactly(pair.client, 1);
  later.join();
  REQUIRE(got == "x");
}

TEST_CASE("receive: SO_RCVLOWAT makes a blocking read wait for that much", "[receive]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_RCVLOWAT, 6);
  REQUIRE(send_all(pair.server, "abc"));
  REQUIRE_FALSE(becomes(pair.client, POLLIN, milliseconds(50)));
  REQUIRE(send_all(pair.server, "def"));
  REQUIRE(becomes(pair.client, POLLIN));
  char b[10];
  REQUIRE(::recv(pair.client, b, 10, 0) == 6);
}

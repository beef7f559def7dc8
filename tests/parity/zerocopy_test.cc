// MSG_ZEROCOPY and its completions in the error queue.
#include <time.h>
// After <time.h>, which it needs.
#include <linux/errqueue.h>

#include <cstring>
#include <optional>

#include "tests/parity/epoll.hh"
#include "tests/parity/net.hh"

using namespace parity;

namespace {

struct Completion {
  std::uint32_t first = 0, last = 0;
  bool copied = false;
  int origin = 0;
};

// The oldest of the error queue; nothing if it is empty.
std::optional<Completion> completion(int fd) {
  alignas(cmsghdr) char control[128];
  msghdr m{};
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &m, MSG_ERRQUEUE);
  if (n < 0) {
    REQUIRE(errno == EAGAIN);
    return std::nullopt;
  }
  REQUIRE(n == 0);
  REQUIRE((m.msg_flags & MSG_ERRQUEUE) != 0);
  REQUIRE((m.msg_flags & MSG_CTRUNC) == 0);
  const cmsghdr* c = CMSG_FIRSTHDR(&m);
  REQUIRE(c != nullptr);
  REQUIRE(((c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) ||
           (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR)));
  sock_extended_err e{};
  std::memcpy(&e, CMSG_DATA(c), sizeof e);
  REQUIRE(e.ee_errno == 0);
  return Completion{e.ee_info, e.ee_data, e.ee_code == SO_EE_CODE_ZEROCOPY_COPIED, e.ee_origin};
}

Completion next_completion(int fd) {
  REQUIRE(becomes(fd, POLLERR));
  const auto c = completion(fd);
  REQUIRE(c.has_value());
  return *c;
}

}  // namespace

TEST_CASE("MSG_ZEROCOPY: each send is completed, by its number", "[zerocopy]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const Pair pair = connected_pair(family);
  set_option(pair.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ZEROCOPY) == 1);
  const std::string data = pattern(20000);
  std::uint32_t expected = 0;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(::send(pair.client, data.data(), data.size(), MSG_ZEROCOPY) == static_cast<ssize_t>(data.size()));
    REQUIRE(receive_exactly(pair.server, data.size()) == data);
    while (expected <= static_cast<std::uint32_t>(i)) {
      const Completion c = next_completion(pair.client);
      REQUIRE(c.origin == SO_EE_ORIGIN_ZEROCOPY);
      REQUIRE(c.first == expected);
      REQUIRE(c.last >= c.first);
      REQUIRE(c.copied);  // the kernel's loopback copies, too
      expected = c.last + 1;
    }
  }
  REQUIRE(!completion(pair.client).has_value());
  REQUIRE(poll_events(pair.client, POLLERR) == 0);
}

TEST_CASE("MSG_ZEROCOPY: completions that nobody took are told together", "[zerocopy]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  const std::string data = pattern(5000);
  for (int i = 0; i < 4; ++i) {
    REQUIRE(::send(pair.client, data.data(), data.size(), MSG_ZEROCOPY) == static_cast<ssize_t>(data.size()));
    REQUIRE(receive_exactly(pair.server, data.size()) == data);
  }
  std::uint32_t expected = 0;
  while (expected < 4) {
    const Completion c = next_completion(pair.client);
    REQUIRE(c.first == expected);
    expected = c.last + 1;
  }
  REQUIRE(!completion(pair.client).has_value());
}

TEST_CASE("MSG_ZEROCOPY: without SO_ZEROCOPY it means nothing", "[zerocopy]") {
  const Pair pair = connected_pair();
  REQUIRE(::send(pair.client, "plain", 5, MSG_ZEROCOPY) == 5);
  REQUIRE(receive_exactly(pair.server, 5) == "plain");
  REQUIRE(!completion(pair.client).has_value());
}

TEST_CASE("MSG_ZEROCOPY: completions are EPOLLERR, and a blocking read waits all the same", "[zerocopy]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 100000});
  REQUIRE(::send(pair.client, "x", 1, MSG_ZEROCOPY) == 1);
  REQUIRE(receive_exactly(pair.server, 1) == "x");
  REQUIRE(becomes(pair.client, POLLERR));
  const Stopwatch watch;
  char c = 0;
  REQUIRE(error_of(::recv(pair.client, &c, 1, 0)) == EAGAIN);
  REQUIRE(watch.elapsed() >= milliseconds(90));
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ERROR) == 0);
  REQUIRE(next_completion(pair.client).first == 0);
}

TEST_CASE("MSG_ZEROCOPY: an accepted connection has the listener's SO_ZEROCOPY", "[zerocopy]") {
  const Fd l = listener();
  set_option(l, SOL_SOCKET, SO_ZEROCOPY, 1);
  const Pair pair = connected_pair_via(l);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_ZEROCOPY) == 1);
  REQUIRE(::send(pair.server, "x", 1, MSG_ZEROCOPY) == 1);
  REQUIRE(receive_exactly(pair.client, 1) == "x");
  REQUIRE(next_completion(pair.server).last == 0);
}

TEST_CASE("MSG_ZEROCOPY: SO_ZEROCOPY is 0 or 1", "[zerocopy]") {
  const Fd s = stream_socket();
  const int two = 2;
  REQUIRE(error_of(::setsockopt(s, SOL_SOCKET, SO_ZEROCOPY, &two, sizeof two)) == EINVAL);
}

TEST_CASE("MSG_ZEROCOPY: a completion that does not fit is cut off", "[zerocopy]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  REQUIRE(::send(pair.client, "x", 1, MSG_ZEROCOPY) == 1);
  REQUIRE(receive_exactly(pair.server, 1) == "x");
  REQUIRE(becomes(pair.client, POLLERR));
  msghdr m{};
  REQUIRE(::recvmsg(pair.client, &m, MSG_ERRQUEUE) == 0);
  REQUIRE((m.msg_flags & MSG_CTRUNC) != 0);
  REQUIRE(!completion(pair.client).has_value());
}

// epoll: EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE.
#include <atomic>
#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

constexpr std::uint32_t kEdge = EPOLLET;

}  // namespace

TEST_CASE("edge: data is reported once, and new data again though the old is unread", "[trigger]") {
  const Pair pair = connected_pair();
  set_option(pair.server, IPPROTO_TCP, TCP_NODELAY, 1);
  const Epoll set;
  set.add(pair.client, EPOLLIN | kEdge);
  REQUIRE(set.quiet());
  REQUIRE(send_all(pair.server, "one"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
  REQUIRE(send_all(pair.server, "two"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
}

TEST_CASE("edge: reading a part brings no new event", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  REQUIRE(send_all(pair.server, "abcdef"));
  REQUIRE(becomes(pair.client, POLLIN));
  set.add(pair.client, EPOLLIN | kEdge);
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(receive_exactly(pair.client, 2).size() == 2);
  REQUIRE(set.quiet());
}

TEST_CASE("edge: data read before the wait is not reported", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | kEdge);
  REQUIRE(send_all(pair.server, "abc"));
  REQUIRE(receive_exactly(pair.client, 3) == "abc");
  REQUIRE(set.quiet());
}

TEST_CASE("edge: MOD reports again what is there", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  REQUIRE(send_all(pair.server, "abc"));
  REQUIRE(becomes(pair.client, POLLIN));
  set.add(pair.client, EPOLLIN | kEdge);
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
  set.modify(pair.client, EPOLLIN | kEdge);
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
}

TEST_CASE("edge: writability is reported at the start and when room comes back", "[trigger]") {
  const Pair pair = small_pair();
  const Epoll set;
  set.add(pair.client, EPOLLOUT | kEdge);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  REQUIRE(set.quiet());
  const std::size_t queued = fill(pair.client);
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_DONTWAIT)) == EAGAIN);
  while (!set.wait(0).empty()) {
  }
  REQUIRE(receive_exactly(pair.server, queued).size() == queued);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
}

TEST_CASE("edge: an event for data carries EPOLLOUT too if it was asked for", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLOUT | kEdge);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  REQUIRE(set.quiet());
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLOUT));
  REQUIRE(set.quiet());
}

TEST_CASE("edge: the peer's end is an event of its own", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLRDHUP | kEdge);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLRDHUP));
  REQUIRE(set.quiet());
}

TEST_CASE("edge: each new connection of a listener is an event", "[trigger]") {
  const Fd l = listener();
  const Epoll set;
  set.add(l, EPOLLIN | kEdge);
  const Fd a = connected_to(local_of(l));
  REQUIRE(set.next(l) == EPOLLIN);
  REQUIRE(set.quiet());
  const Fd b = connected_to(local_of(l));
  REQUIRE(set.next(l) == EPOLLIN);
  REQUIRE(accept_from(l) >= 0);
  REQUIRE(accept_from(l) >= 0);
  REQUIRE(set.quiet());
}

TEST_CASE("edge: two events between waits are one", "[trigger]") {
  const Pair pair = connected_pair();
  set_option(pair.server, IPPROTO_TCP, TCP_NODELAY, 1);
  const Epoll set;
  set.add(pair.client, EPOLLIN | kEdge);
  REQUIRE(send_all(pair.server, "one"));
  REQUIRE(send_all(pair.server, "two"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(receive_exactly(pair.client, 6) == "onetwo");
  REQUIRE(send_all(pair.server, "three"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
}

TEST_CASE("oneshot: one event, then silence until MOD", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLONESHOT);
  REQUIRE(send_all(pair.server, "one"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
  REQUIRE(send_all(pair.server, "two"));
  REQUIRE(set.quiet());
  set.modify(pair.client, EPOLLIN | EPOLLONESHOT);
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
}

TEST_CASE("oneshot: even the end of the connection keeps silent until MOD", "[trigger]") {
  Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
  REQUIRE(send_all(pair.server, "one"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  pair.server.reset();
  REQUIRE(set.quiet());
  set.modify(pair.client, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLRDHUP));
}

TEST_CASE("oneshot: a disarmed member is still a member", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLOUT | EPOLLONESHOT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  REQUIRE(set.control(EPOLL_CTL_ADD, pair.client, EPOLLOUT) == EEXIST);
}

TEST_CASE("oneshot: with EPOLLET", "[trigger]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLONESHOT | kEdge);
  REQUIRE(send_all(pair.server, "one"));
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(set.quiet());
  set.modify(pair.client, EPOLLIN | EPOLLONESHOT | kEdge);
  REQUIRE(set.next(pair.client) == EPOLLIN);
}

TEST_CASE("exclusive: reports like any other while one set has it", "[trigger]") {
  const Fd l = listener();
  const Epoll set;
  set.add(l, EPOLLIN | EPOLLEXCLUSIVE);
  const Fd client = connected_to(local_of(l));
  REQUIRE(set.next(l) == EPOLLIN);
}

TEST_CASE("exclusive: cannot be changed by MOD nor joined with EPOLLONESHOT", "[trigger]") {
  const Fd l = listener();
  const Epoll set;
  REQUIRE(set.control(EPOLL_CTL_ADD, l, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT) == EINVAL);
  set.add(l, EPOLLIN | EPOLLEXCLUSIVE);
  REQUIRE(set.control(EPOLL_CTL_MOD, l, EPOLLIN) == EINVAL);
  REQUIRE(set.control(EPOLL_CTL_DEL, l, 0) == 0);
  set.add(l, EPOLLIN);
  REQUIRE(set.control(EPOLL_CTL_MOD, l, EPOLLIN | EPOLLEXCLUSIVE) == EINVAL);
}

TEST_CASE("exclusive: of two sets at least one hears of a connection", "[trigger]") {
  const Fd l = listener();
  const Epoll first;
  const Epoll second;
  first.add(l, EPOLLIN | EPOLLEXCLUSIVE);
  second.add(l, EPOLLIN | EPOLLEXCLUSIVE);
  const Fd client = connected_to(local_of(l));
  REQUIRE(first.wait(200).size() + second.wait(200).size() >= 1);
}

TEST_CASE("exclusive: two threads that wait serve all connections", "[trigger]") {
  const Fd l = listener(128, AF_INET, SOCK_NONBLOCK);
  const Address to = local_of(l);
  std::atomic<int> accepted{0};
  auto serve = [&] {
    const int set = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event e{};
    e.events = EPOLLIN | EPOLLEXCLUSIVE;
    ::epoll_ctl(set, EPOLL_CTL_ADD, l, &e);
    const Stopwatch watch;
    while (accepted < 50 && watch.elapsed() < milliseconds(5000)) {
      if (::epoll_wait(set, &e, 1, 20) <= 0) continue;
      for (int fd = 0; (fd = ::accept(l, nullptr, nullptr)) >= 0; ++accepted) ::close(fd);
    }
    ::close(set);
  };
  std::thread a(serve);
  std::thread b(serve);
  std::vector<Fd> clients;
  for (int i = 0; i < 50; ++i) {
    Fd fd(::socket(AF_INET, SOCK_STREAM, 0));
    if (::connect(fd, to.get(), to.size) == 0) clients.push_back(std::move(fd));
  }
  a.join();
  b.join();
  REQUIRE(clients.size() == 50);
  REQUIRE(accepted == 50);
}

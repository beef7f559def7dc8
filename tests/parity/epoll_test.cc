// epoll: the calls' own rules, level-triggered events, what each state of a socket reports.
#include "tests/parity/epoll.hh"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <thread>

using namespace parity;

TEST_CASE("epoll: an idle connection is writable and not readable", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLOUT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
}

TEST_CASE("epoll: data is reported until it has been read", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  REQUIRE(set.quiet());
  REQUIRE(send_all(pair.server, "abc"));
  for (int i = 0; i < 3; ++i) REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(receive_exactly(pair.client, 2).size() == 2);
  REQUIRE(set.next(pair.client) == EPOLLIN);
  REQUIRE(receive_exactly(pair.client, 1).size() == 1);
  REQUIRE(set.quiet());
}

TEST_CASE("epoll: data that was there before the ADD is reported", "[epoll]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "abc"));
  REQUIRE(becomes(pair.client, POLLIN));
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  REQUIRE(set.next(pair.client) == EPOLLIN);
}

TEST_CASE("epoll: what the user stored comes back", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  epoll_event e{};
  e.events = EPOLLOUT;
  e.data.u64 = 0x1122334455667788ULL;
  REQUIRE(::epoll_ctl(set, EPOLL_CTL_ADD, pair.client, &e) == 0);
  REQUIRE(set.wait().at(0).data.u64 == 0x1122334455667788ULL);
  e.data.u64 = 7;
  REQUIRE(::epoll_ctl(set, EPOLL_CTL_MOD, pair.client, &e) == 0);
  REQUIRE(set.wait().at(0).data.u64 == 7);
}

TEST_CASE("epoll: a listener is readable when a connection waits", "[epoll]") {
  const Fd l = listener();
  const Epoll set;
  set.add(l, EPOLLIN | EPOLLOUT);
  REQUIRE(set.quiet());
  const Fd client = connected_to(local_of(l));
  REQUIRE(set.next(l) == EPOLLIN);
  REQUIRE(accept_from(l) >= 0);
  REQUIRE(set.quiet());
}

TEST_CASE("epoll: a full connection is not writable until the peer reads", "[epoll]") {
  const Pair pair = small_pair();
  const Epoll set;
  set.add(pair.client, EPOLLOUT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  const std::size_t queued = fill(pair.client);
  REQUIRE(set.quiet());
  REQUIRE(receive_exactly(pair.server, queued).size() == queued);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
}

TEST_CASE("epoll: the peer's end is EPOLLIN and EPOLLRDHUP", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLRDHUP);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLRDHUP));
  set.modify(pair.client, EPOLLIN);
  REQUIRE(set.next(pair.client) == EPOLLIN);
  set.modify(pair.client, EPOLLRDHUP);
  REQUIRE(set.next(pair.client) == EPOLLRDHUP);
}

TEST_CASE("epoll: EPOLLHUP comes unasked when both directions have ended", "[epoll]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE((poll_events(pair.client, POLLRDHUP, milliseconds(1000)) & POLLRDHUP) != 0);
  const Epoll set;
  set.add(pair.client, 0);
  REQUIRE(set.next(pair.client) == EPOLLHUP);
}

TEST_CASE("epoll: a reset is EPOLLERR and EPOLLHUP besides EPOLLIN and EPOLLRDHUP", "[epoll]") {
  Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLRDHUP);
  set_option(pair.server, SOL_SOCKET, SO_LINGER, linger{1, 0});
  pair.server.reset();
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP));
}

TEST_CASE("epoll: EPOLLERR goes when the error has been taken", "[epoll]") {
  Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  set_option(pair.server, SOL_SOCKET, SO_LINGER, linger{1, 0});
  pair.server.reset();
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLERR | EPOLLHUP));
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ERROR) == ECONNRESET);
  REQUIRE(set.next(pair.client) == (EPOLLIN | EPOLLHUP));
}

TEST_CASE("epoll: a fresh socket is EPOLLOUT and EPOLLHUP", "[epoll]") {
  const Fd fresh = stream_socket();
  const Epoll set;
  set.add(fresh, EPOLLIN | EPOLLOUT);
  REQUIRE(set.next(fresh) == (EPOLLOUT | EPOLLHUP));
}

TEST_CASE("epoll: a socket added before its connect reports the connection", "[epoll]") {
  const Fd l = listener();
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  const Epoll set;
  set.add(client, EPOLLOUT | EPOLLET);
  REQUIRE(set.next(client) == (EPOLLOUT | EPOLLHUP));
  const Address to = local_of(l);
  const Errno e = error_of(::connect(client, to.get(), to.size));
  REQUIRE((e == EINPROGRESS || e == 0));
  REQUIRE(set.next(client) == EPOLLOUT);
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("epoll: a socket added before its listen reports connections", "[epoll]") {
  const Fd l = bound_socket();
  const Epoll set;
  set.add(l, EPOLLIN);
  REQUIRE(set.next(l) == EPOLLHUP);
  REQUIRE(::listen(l, 4) == 0);
  REQUIRE(set.quiet());
  const Fd client = connected_to(local_of(l));
  REQUIRE(set.next(l) == EPOLLIN);
}

TEST_CASE("epoll: a refused connect is EPOLLERR, EPOLLHUP and EPOLLOUT", "[epoll]") {
  const Fd holder = bound_socket();
  const Address to = local_of(holder);
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == EINPROGRESS);
  const Epoll set;
  set.add(client, EPOLLOUT);
  REQUIRE(set.next(client) == (EPOLLOUT | EPOLLERR | EPOLLHUP));
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
}

TEST_CASE("epoll: DEL silences, and ADD brings back", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLOUT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  set.remove(pair.client);
  REQUIRE(set.quiet());
  set.add(pair.client, EPOLLOUT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
}

TEST_CASE("epoll: MOD changes what is reported at once", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  REQUIRE(set.quiet());
  set.modify(pair.client, EPOLLOUT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  set.modify(pair.client, 0);
  REQUIRE(set.quiet());
}

TEST_CASE("epoll: DEL takes a null event", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLOUT);
  REQUIRE(error_of(::epoll_ctl(set, EPOLL_CTL_DEL, pair.client, nullptr)) == 0);
}

TEST_CASE("epoll: ADD twice is EEXIST, MOD and DEL of a stranger ENOENT", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  REQUIRE(set.control(EPOLL_CTL_ADD, pair.client, EPOLLOUT) == EEXIST);
  REQUIRE(set.control(EPOLL_CTL_MOD, pair.server, EPOLLIN) == ENOENT);
  REQUIRE(set.control(EPOLL_CTL_DEL, pair.server, 0) == ENOENT);
}

TEST_CASE("epoll: closed descriptors are EBADF", "[epoll]") {
  Pair pair = connected_pair();
  const int number = pair.client;
  pair.client.reset();
  epoll_event e{};
  const Epoll set;
  REQUIRE(set.control(EPOLL_CTL_ADD, number, EPOLLIN) == EBADF);
  REQUIRE(error_of(::epoll_ctl(number, EPOLL_CTL_ADD, pair.server, &e)) == EBADF);
  REQUIRE(error_of(::epoll_wait(number, &e, 1, 0)) == EBADF);
}

TEST_CASE("epoll: a set that is no set, or the set itself, is EINVAL", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  epoll_event e{};
  e.events = EPOLLIN;
  REQUIRE(error_of(::epoll_ctl(pair.client, EPOLL_CTL_ADD, pair.server, &e)) == EINVAL);
  REQUIRE(error_of(::epoll_wait(pair.client, &e, 1, 0)) == EINVAL);
  REQUIRE(set.control(EPOLL_CTL_ADD, set, EPOLLIN) == EINVAL);
  REQUIRE(set.control(77, pair.client, EPOLLIN) == EINVAL);
}

TEST_CASE("epoll: room for no event is EINVAL", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLOUT);
  epoll_event e{};
  REQUIRE(error_of(::epoll_wait(set, &e, 0, 0)) == EINVAL);
  volatile int negative = -1;  // hidden from the compiler, which would warn
  REQUIRE(error_of(::epoll_wait(set, &e, negative, 0)) == EINVAL);
}

TEST_CASE("epoll: ADD with a null event is EFAULT", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  REQUIRE(error_of(::epoll_ctl(set, EPOLL_CTL_ADD, pair.client, nullptr)) == EFAULT);
}

TEST_CASE("epoll: a regular file is EPERM", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  const Fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  REQUIRE(set.control(EPOLL_CTL_ADD, file, EPOLLIN) == EPERM);
}

TEST_CASE("epoll: few places for many events serve all in turn", "[epoll]") {
  const Fd l = listener();
  std::vector<Pair> pairs;
  const Epoll set;
  for (int i = 0; i < 12; ++i) {
    pairs.push_back(connected_pair_via(l));
    REQUIRE(send_all(pairs.back().client, "x"));
    REQUIRE(becomes(pairs.back().server, POLLIN));
    set.add(pairs.back().server, EPOLLIN);
  }
  std::vector<int> seen;
  for (int i = 0; i < 12; ++i) {
    const auto events = set.wait(2000, 3);
    REQUIRE(events.size() == 3);
    for (const auto& e : events) seen.push_back(e.data.fd);
  }
  for (const Pair& pair : pairs) REQUIRE(std::count(seen.begin(), seen.end(), int(pair.server)) >= 2);
}

TEST_CASE("epoll: few places share between sockets and pipes", "[epoll]") {
  const Fd l = listener();
  const Epoll set;
  std::vector<Fd> keep;
  std::vector<int> members;
  for (int i = 0; i < 4; ++i) {
    Pair pair = connected_pair_via(l);
    REQUIRE(send_all(pair.client, "x"));
    REQUIRE(becomes(pair.server, POLLIN));
    Fd counter(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    members.push_back(pair.server);
    members.push_back(counter);
    keep.push_back(std::move(pair.client));
    keep.push_back(std::move(pair.server));
    keep.push_back(std::move(counter));
  }
  for (const int fd : members) set.add(fd, EPOLLIN);
  std::vector<int> seen;
  for (int i = 0; i < 40; ++i) {
    for (const auto& e : set.wait(2000, 2)) seen.push_back(e.data.fd);
  }
  for (const int fd : members) REQUIRE(std::count(seen.begin(), seen.end(), fd) >= 3);
}

TEST_CASE("epoll: EPOLLPRI and EPOLLRDNORM subscriptions follow Linux", "[epoll]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLPRI | EPOLLRDNORM | EPOLLWRNORM);
  REQUIRE(set.next(pair.client) == EPOLLWRNORM);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(set.next(pair.client) == (EPOLLRDNORM | EPOLLWRNORM));
}

// epoll: several sets, nested sets, mixed members, closing and duplicating members, time.
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

Fd event_counter() { return Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void raise_counter(int fd) {
  const std::uint64_t one = 1;
  REQUIRE(::write(fd, &one, sizeof one) == sizeof one);
}

}  // namespace

TEST_CASE("sets: one socket in two sets is reported by both", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll a;
  const Epoll b;
  a.add(pair.client, EPOLLIN);
  b.add(pair.client, EPOLLIN | EPOLLET);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(a.next(pair.client) == EPOLLIN);
  REQUIRE(b.next(pair.client) == EPOLLIN);
  REQUIRE(a.next(pair.client) == EPOLLIN);
  REQUIRE(b.quiet());
}

TEST_CASE("sets: leaving one set does not leave the other", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll a;
  const Epoll b;
  a.add(pair.client, EPOLLIN);
  b.add(pair.client, EPOLLIN);
  a.remove(pair.client);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(b.next(pair.client) == EPOLLIN);
  REQUIRE(a.quiet());
}

TEST_CASE("sets: closing a set leaves its members alone", "[sets]") {
  const Pair pair = connected_pair();
  {
    const Epoll set;
    set.add(pair.client, EPOLLIN);
  }
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(receive_exactly(pair.client, 1) == "x");
}

TEST_CASE("sets: an inner set with an event makes the outer set report it", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll inner;
  const Epoll outer;
  inner.add(pair.client, EPOLLIN);
  outer.add(inner, EPOLLIN);
  REQUIRE(outer.quiet());
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(outer.next(inner) == EPOLLIN);
  REQUIRE(inner.next(pair.client) == EPOLLIN);
  REQUIRE(receive_exactly(pair.client, 1) == "x");
  REQUIRE(outer.quiet());
}

TEST_CASE("sets: a set added to another before its first socket works too", "[sets]") {
  const Epoll inner;
  const Epoll outer;
  outer.add(inner, EPOLLIN);
  const Pair pair = connected_pair();
  inner.add(pair.client, EPOLLIN);
  REQUIRE(outer.quiet());
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(outer.next(inner) == EPOLLIN);
}

TEST_CASE("sets: poll and select see a set's readiness", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  REQUIRE(poll_events(set, POLLIN) == 0);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(poll_events(set, POLLIN, milliseconds(2000)) == POLLIN);
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(set, &readable);
  timeval none{0, 0};
  REQUIRE(::select(set + 1, &readable, nullptr, nullptr, &none) == 1);
}

TEST_CASE("sets: a loop of sets is ELOOP", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll a;
  const Epoll b;
  a.add(pair.client, EPOLLIN);
  a.add(b, EPOLLIN);
  REQUIRE(b.control(EPOLL_CTL_ADD, a, EPOLLIN) == ELOOP);
}

TEST_CASE("sets: sockets, pipes, eventfds and timers are reported together", "[sets]") {
  const Pair pair = connected_pair();
  int fds[2];
  REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
  const Fd in(fds[0]);
  const Fd out(fds[1]);
  const Fd counter = event_counter();
  const Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  const Epoll set;
  for (const int fd : {int(in), int(counter), int(timer), int(pair.client)}) set.add(fd, EPOLLIN);
  REQUIRE(set.quiet());
  const itimerspec soon{{0, 0}, {0, 1000000}};
  REQUIRE(::timerfd_settime(timer, 0, &soon, nullptr) == 0);
  REQUIRE(set.next(timer) == EPOLLIN);
  std::uint64_t ticks = 0;
  REQUIRE(::read(timer, &ticks, sizeof ticks) == sizeof ticks);
  REQUIRE(::write(out, "x", 1) == 1);
  REQUIRE(set.next(in) == EPOLLIN);
  raise_counter(counter);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(set.wait().size() == 3);
}

TEST_CASE("sets: a pipe's event wakes a wait that also watches sockets", "[sets]") {
  const Pair pair = connected_pair();
  const Fd counter = event_counter();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  set.add(counter, EPOLLIN);
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(40));
    const std::uint64_t one = 1;
    if (::write(counter, &one, sizeof one) != sizeof one) std::abort();
  });
  const Stopwatch watch;
  const std::uint32_t events = set.next(counter, 5000);
  later.join();
  REQUIRE(events == EPOLLIN);
  REQUIRE(watch.elapsed() < milliseconds(2000));
}

TEST_CASE("sets: a socket joins and leaves a set of pipes", "[sets]") {
  const Fd counter = event_counter();
  const Epoll set;
  set.add(counter, EPOLLIN);
  const Pair pair = connected_pair();
  set.add(pair.client, EPOLLIN);
  raise_counter(counter);
  REQUIRE(set.next(counter) == EPOLLIN);
  set.remove(pair.client);
  REQUIRE(set.next(counter) == EPOLLIN);
  set.remove(counter);
  REQUIRE(set.quiet());
}

TEST_CASE("sets: a write from another thread wakes the wait", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(40));
    send_all(pair.server, "x");
  });
  const Stopwatch watch;
  const std::uint32_t events = set.next(pair.client, 5000);
  later.join();
  REQUIRE(events == EPOLLIN);
  REQUIRE(watch.elapsed() < milliseconds(2000));
}

TEST_CASE("sets: an ADD from another thread wakes the wait", "[sets]") {
  const Pair pair = connected_pair();
  const Pair quiet = connected_pair();
  const Epoll set;
  set.add(quiet.client, EPOLLIN);
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(40));
    epoll_event e{};
    e.events = EPOLLOUT;
    e.data.fd = pair.client;
    if (::epoll_ctl(set, EPOLL_CTL_ADD, pair.client, &e) != 0) std::abort();
  });
  const std::uint32_t events = set.next(pair.client, 5000);
  later.join();
  REQUIRE(events == EPOLLOUT);
}

TEST_CASE("sets: closing a member takes it out", "[sets]") {
  Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN | EPOLLOUT);
  REQUIRE(set.next(pair.client) == EPOLLOUT);
  pair.client.reset();
  REQUIRE(set.quiet());
}

TEST_CASE("sets: a number that was closed and is used again is no member", "[sets]") {
  Pair pair = connected_pair();
  const Epoll set;
  const int number = pair.client;
  set.add(number, EPOLLIN);
  pair.client.reset();
  const Pair next = connected_pair();
  const Fd again(::dup2(next.client, number));
  REQUIRE(again == number);
  REQUIRE(send_all(next.server, "x"));
  REQUIRE(becomes(again, POLLIN));
  REQUIRE(set.quiet());
  REQUIRE(set.control(EPOLL_CTL_MOD, again, EPOLLIN) == ENOENT);
  set.add(again, EPOLLIN);
  REQUIRE(set.next(again) == EPOLLIN);
}

TEST_CASE("sets: a member stays while a duplicate of it lives", "[sets]") {
  Pair pair = connected_pair();
  const Epoll set;
  const int number = pair.client;
  set.add(number, EPOLLIN);
  Fd copy(::dup(pair.client));
  pair.client.reset();
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(set.next(number) == EPOLLIN);
  REQUIRE(set.control(EPOLL_CTL_DEL, number, 0) == EBADF);
  copy.reset();
  REQUIRE(set.quiet());
}

TEST_CASE("sets: a duplicate is a member of its own", "[sets]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup(pair.client));
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  set.add(copy, EPOLLIN);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(set.wait().size() == 2);
  set.remove(copy);
  REQUIRE(set.next(pair.client) == EPOLLIN);
}

TEST_CASE("sets: a duplicate of the set is the same set", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  const Fd copy(::dup(set));
  REQUIRE(send_all(pair.server, "x"));
  epoll_event e{};
  REQUIRE(::epoll_wait(copy, &e, 1, 2000) == 1);
  REQUIRE(e.data.fd == pair.client);
  REQUIRE(error_of(::epoll_ctl(copy, EPOLL_CTL_DEL, pair.client, nullptr)) == 0);
  REQUIRE(set.quiet());
}

TEST_CASE("sets: epoll_create1 takes EPOLL_CLOEXEC and nothing else", "[sets]") {
  const Fd a(::epoll_create1(EPOLL_CLOEXEC));
  const Fd b(::epoll_create1(0));
  const Fd c(::epoll_create(1));
  REQUIRE(::fcntl(a, F_GETFD) == FD_CLOEXEC);
  REQUIRE(::fcntl(b, F_GETFD) == 0);
  REQUIRE(c >= 0);
  REQUIRE(error_of(::epoll_create1(12345)) == EINVAL);
  REQUIRE(error_of(::epoll_create(0)) == EINVAL);
}

TEST_CASE("time: epoll_wait with 0 returns at once", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  const Stopwatch watch;
  for (int i = 0; i < 400; ++i) REQUIRE(set.wait(0).empty());
  REQUIRE(watch.elapsed() < milliseconds(4000));
}

TEST_CASE("time: epoll_wait waits as long as it was told, not less and not much more", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  for (const int time : {1, 10, 75}) {
    const Stopwatch watch;
    REQUIRE(set.wait(time).empty());
    const milliseconds took = watch.elapsed();
    REQUIRE(took >= milliseconds(time));
    REQUIRE(took < milliseconds(time + 3000));
  }
}

TEST_CASE("time: epoll_pwait2 takes nanoseconds", "[sets]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  epoll_event e{};
  const timespec time{0, 20000000};
  const Stopwatch watch;
  REQUIRE(::epoll_pwait2(set, &e, 1, &time, nullptr) == 0);
  REQUIRE(watch.elapsed() >= milliseconds(20));
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(::epoll_pwait2(set, &e, 1, nullptr, nullptr) == 1);
  const timespec bad{0, 2000000000};
  REQUIRE(error_of(::epoll_pwait2(set, &e, 1, &bad, nullptr)) == EINVAL);
}

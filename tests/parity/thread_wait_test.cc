// Threads that wait while other threads change what they wait for: sets that get their first socket,
// descriptors that are closed, connections that are read, written and closed at once.
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

constexpr int kFirst =
    100;  // ms: when another thread surely waits; a case that comes too early only proves less

void pause_for(int ms) { std::this_thread::sleep_for(milliseconds(ms)); }

// For threads beside the test's own, where Catch2 takes no assertion: a failure is an empty answer.
std::vector<epoll_event> wait_in(const Epoll& set, int ms) {
  std::vector<epoll_event> events(8);
  const int n = ::epoll_wait(set, events.data(), 8, ms);
  events.resize(static_cast<std::size_t>(std::max(n, 0)));
  return events;
}

}  // namespace

TEST_CASE("threads: one that waits in an empty set sees the first socket that is added", "[threads]") {
  const Pair pair = connected_pair();
  const Epoll set;
  std::vector<epoll_event> events;
  std::jthread waiter([&] { events = wait_in(set, 5000); });
  pause_for(kFirst);
  set.add(pair.server, EPOLLIN);
  pause_for(kFirst);
  const Stopwatch watch;
  REQUIRE(send_all(pair.client, "x"));
  waiter.join();
  REQUIRE(watch.elapsed() < milliseconds(3000));
  REQUIRE(events.size() == 1);
  REQUIRE(events[0].data.fd == pair.server);
}

TEST_CASE("threads: several wait in a set of kernel descriptors when a listener is added", "[threads]") {
  const Fd l = listener();
  const Fd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const Epoll set;
  set.add(event, EPOLLIN);
  std::atomic<int> of_listener{0}, of_event{0};
  auto waiter = [&] {
    for (const epoll_event& e : wait_in(set, 5000)) (e.data.fd == l ? of_listener : of_event)++;
  };
  std::vector<std::jthread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i) threads.emplace_back(waiter);
  pause_for(kFirst);
  set.add(l, EPOLLIN);
  pause_for(kFirst);
  const Stopwatch watch;
  const Fd client = connected_to(local_of(l));
  const Fd server = accept_from(l);
  // Level-triggered, but the connection may be gone before all have seen it: the rest hear of the eventfd.
  const std::uint64_t one = 1;
  REQUIRE(::write(event, &one, sizeof one) == sizeof one);
  for (std::jthread& t : threads) t.join();
  REQUIRE(watch.elapsed() < milliseconds(3000));
  REQUIRE(of_listener + of_event >= 3);
}

TEST_CASE("threads: a set that is closed under a thread that polls it harms nobody", "[threads]") {
  const Pair pair = connected_pair();
  for (int i = 0; i < 20; ++i) {
    Fd set(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event e{};
    e.events = EPOLLIN;
    REQUIRE(::epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &e) == 0);
    std::jthread waiter([number = static_cast<int>(set)] {
      pollfd p{number, POLLIN, 0};
      (void)::poll(&p, 1, 30);
    });
    pause_for(5);
    set.reset();
    waiter.join();
  }
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
}

TEST_CASE("threads: a wait in a set that another thread closes goes on to its timeout", "[threads]") {
  const Pair pair = connected_pair();
  Fd set(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event e{};
  e.events = EPOLLIN;
  REQUIRE(::epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &e) == 0);
  int result = -2;
  milliseconds took{};
  std::jthread waiter([&, number = static_cast<int>(set)] {
    const Stopwatch watch;
    epoll_event out{};
    result = ::epoll_wait(number, &out, 1, 400);
    took = watch.elapsed();
  });
  pause_for(kFirst);
  set.reset();
  waiter.join();
  REQUIRE(result == 0);
  REQUIRE(took >= milliseconds(399));
}

TEST_CASE("threads: a recv that blocks keeps the connection open when another thread closes it",
          "[threads]") {
  Pair pair = connected_pair();
  std::string got;
  std::jthread reader([&, number = static_cast<int>(pair.server)] {
    char buffer[16];
    const ssize_t n = ::recv(number, buffer, sizeof buffer, 0);
    got = n < 0 ? "error" : std::string(buffer, static_cast<std::size_t>(n));
  });
  pause_for(kFirst);
  pair.server.reset();
  const bool ended = becomes(pair.client, POLLIN | POLLRDHUP, milliseconds(kFirst));
  const bool sent = send_all(pair.client, "late");
  reader.join();
  REQUIRE_FALSE(ended);  // no FIN yet (close(2))
  REQUIRE(sent);
  REQUIRE(got == "late");
  REQUIRE(receive_until_end(pair.client).empty());
}

TEST_CASE("threads: an accept that blocks keeps the listener open when another thread closes it",
          "[threads]") {
  Fd l = listener();
  const Address to = local_of(l);
  int accepted = -1;
  std::jthread acceptor([&, number = static_cast<int>(l)] { accepted = ::accept(number, nullptr, nullptr); });
  pause_for(kFirst);
  l.reset();
  const Fd client = connected_to(to);
  acceptor.join();
  const Fd server(accepted);
  REQUIRE(server >= 0);
  REQUIRE(send_all(client, "x"));
  REQUIRE(receive_exactly(server, 1) == "x");
  const Fd refused(::socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(error_of(::connect(refused, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("threads: a shutdown in another thread ends a recv that blocks", "[threads]") {
  const Pair pair = connected_pair();
  ssize_t result = -2;
  std::jthread reader([&] {
    char byte = 0;
    result = ::recv(pair.server, &byte, 1, 0);
  });
  pause_for(kFirst);
  REQUIRE(::shutdown(pair.server, SHUT_RDWR) == 0);
  reader.join();
  REQUIRE(result == 0);
}

TEST_CASE("threads: one that writes and then waits for something else is heard at once", "[threads]") {
  const Pair pair = connected_pair();
  const Pair idle = connected_pair();
  const Epoll set;
  set.add(idle.server, EPOLLIN);
  std::jthread sleeper([&] { (void)wait_in(set, 10000); });
  std::mutex mutex;
  std::condition_variable wake;
  int asked = 0, answered = 0;
  std::jthread writer([&] {  // as a pool of threads does behind one that waits for all
    for (int i = 0; i < 50; ++i) {
      std::unique_lock guard(mutex);
      wake.wait(guard, [&] { return asked > answered; });
      send_all(pair.server, "answer");
      ++answered;
    }
  });
  const Stopwatch watch;
  bool right = true;
  for (int i = 0; i < 50; ++i) {
    {
      const std::lock_guard guard(mutex);
      ++asked;
    }
    wake.notify_one();
    right = right && receive_exactly(pair.client, 6) == "answer";
  }
  const milliseconds took = watch.elapsed();
  writer.join();
  REQUIRE(send_all(idle.client, "x"));
  sleeper.join();
  REQUIRE(right);
  REQUIRE(took < milliseconds(2500));
}

TEST_CASE("threads: read, written and closed at once, a connection ends and its number serves the next",
          "[threads]") {
  const Fd l = listener(64);
  const Address to = local_of(l);
  for (int i = 0; i < 60; ++i) {
    const Fd client = connected_to(to);
    const int number = accept_from(l).release();
    std::atomic<bool> go{false};
    auto wait_for_go = [&] {
      while (!go) std::this_thread::yield();
    };
    std::jthread reader([&] {
      wait_for_go();
      char buffer[512];
      while (::recv(number, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {
      }
    });
    std::jthread writer([&] {
      wait_for_go();
      const std::string data(4096, 'w');
      for (int j = 0; j < 20; ++j) {
        if (::send(number, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
      }
    });
    std::jthread closer([&] {
      wait_for_go();
      if (i % 3 == 0) ::shutdown(number, SHUT_RDWR);
      ::close(number);
    });
    REQUIRE(send_all(client, std::string(1000, 'c')));
    go = true;
    reader.join();
    writer.join();
    closer.join();
    // All that came is what was written; how much is the race's outcome, and the end may be a reset.
    char buffer[8192];
    ssize_t n = 0;
    while ((n = ::recv(client, buffer, sizeof buffer, 0)) > 0) {
      REQUIRE(std::all_of(buffer, buffer + n, [](char c) { return c == 'w'; }));
    }
    REQUIRE((n == 0 || errno == ECONNRESET));
  }
  const Fd client = connected_to(to);
  const Fd server = accept_from(l);
  REQUIRE(send_all(client, "after"));
  REQUIRE(receive_exactly(server, 5) == "after");
}

TEST_CASE("threads: one listening socket and one set serve many connections, each message once",
          "[threads]") {
  const Fd l = listener(128, AF_INET, SOCK_NONBLOCK);
  const Address to = local_of(l);
  const Epoll set;
  set.add(l, EPOLLIN);
  const Fd stop(::eventfd(0, EFD_CLOEXEC));
  set.add(stop, EPOLLIN);
  constexpr int kClients = 24, kRounds = 20;
  std::atomic<int> answered{0};
  auto serve = [&] {
    for (;;) {
      epoll_event e{};
      if (::epoll_wait(set, &e, 1, 10000) != 1 || e.data.fd == stop) return;
      if (e.data.fd == l) {
        const int fd = ::accept4(l, nullptr, nullptr, SOCK_NONBLOCK);
        if (fd >= 0) (void)set.control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET | EPOLLONESHOT);
        continue;
      }
      char message[64];
      ssize_t n = 0;
      while ((n = ::recv(e.data.fd, message, sizeof message, 0)) > 0) {
        if (::send(e.data.fd, message, static_cast<std::size_t>(n), MSG_NOSIGNAL) == n)
          answered += static_cast<int>(n);
      }
      if (n == 0) {
        ::close(e.data.fd);
      } else {
        (void)set.control(EPOLL_CTL_MOD, e.data.fd, EPOLLIN | EPOLLET | EPOLLONESHOT);
      }
    }
  };
  std::vector<std::jthread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) threads.emplace_back(serve);
  std::vector<Fd> clients;
  bool right = true;
  for (int i = 0; i < kClients; ++i) clients.push_back(connected_to(to));
  for (int round = 0; round < kRounds && right; ++round) {
    const std::string text = pattern(48, static_cast<unsigned>(round));
    for (const Fd& c : clients) right = right && send_all(c, text);
    for (const Fd& c : clients) right = right && receive_exactly(c, text.size()) == text;
  }
  clients.clear();
  const std::uint64_t one = 1;
  REQUIRE(::write(stop, &one, sizeof one) == sizeof one);
  for (std::jthread& t : threads) t.join();
  REQUIRE(right);
  REQUIRE(answered == kClients * kRounds * 48);
}

TEST_CASE("threads: after a fork amid threads that wait, the child can use threads of its own", "[threads]") {
  const Fd l = listener();
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.server, EPOLLIN);
  std::atomic<bool> done{false};
  auto wait_in_set = [&] {
    while (!done) (void)wait_in(set, 50);
  };
  std::jthread a(wait_in_set);
  std::jthread b([&] {
    while (!done) (void)becomes(pair.client, POLLIN, milliseconds(50));
  });
  pause_for(kFirst);
  const int status = in_child([&] {
    // Their memory is the stacks of the threads that are not here.
    std::vector<std::jthread> own;
    for (int i = 0; i < 4; ++i) {
      own.emplace_back([] {
        volatile char fill[60000];
        for (char volatile& c : fill) c = 0x55;
      });
    }
    for (std::jthread& t : own) t.join();
    Fd(::dup(pair.server)).reset();
    ::close(pair.client);
    ::close(pair.server);
    ::close(set);
    return 7;
  });
  done = true;
  a.join();
  b.join();
  REQUIRE(status == 7);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

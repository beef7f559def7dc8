// Real threads in one Process at the same time, on the loopback wire, with the service thread running: what
// ThreadSanitizer looks at (scripts/test tsan), and a test of its own without it. Every byte that arrives is
// checked; who wins a race is not.
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/intercept/threads.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

constexpr int kRounds = 300;

// Sends back what comes, until the end.
void echo(Threads& t, int fd) {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t n = t.bench->recv(fd, buffer.data(), buffer.size(), 0);
    if (n <= 0 || !t.send_all(fd, std::string(buffer.data(), static_cast<std::size_t>(n)))) break;
  }
  t.bench->close(fd);
}

// One that connects, says something, hears it again, and goes in one of several ways.
void talk(Threads& t, int who, std::uint16_t port) {
  for (int round = 0; round < kRounds; ++round) {
    const int fd = t.connected(port);
    if (fd < 0) return t.expect(false);
    const std::string said = message(who, round);
    t.expect(t.send_all(fd, said));
    if (round % 4 == 1) {
      const int copy = t.bench->dup(fd);
      t.bench->close(fd);
      t.expect(t.receive(copy, said.size()) == said);
      t.bench->close(copy);
      continue;
    }
    t.expect(t.receive(fd, said.size()) == said);
    if (round % 4 == 2) {
      t.expect(t.bench->shutdown(fd, SHUT_WR) == 0);
      t.expect(t.receive(fd, 1).empty());
    }
    if (round % 4 == 3) {
      const linger now{.l_onoff = 1, .l_linger = 0};
      t.bench->setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    t.bench->close(fd);
  }
}

// Serves all that `ep` has, together with other threads, until `listener` is shut down.
void serve_set(Threads& t, int ep, int listener) {
  constexpr std::uint32_t kOnce = EPOLLIN | EPOLLET | EPOLLONESHOT;
  for (;;) {
    epoll_event e{};
    const timespec limit{.tv_sec = 60, .tv_nsec = 0};
    if (t.bench->epoll_wait(ep, &e, 1, &limit, nullptr) != 1) return t.expect(false);
    if (e.data.fd == listener) {
      if ((e.events & EPOLLHUP) != 0) return;
      const int fd = t.bench->accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      e.events = kOnce;
      e.data.fd = fd;
      if (fd >= 0) t.expect(t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
      continue;
    }
    const int fd = e.data.fd;
    std::array<char, 4096> buffer;
    ssize_t n = 0;
    while ((n = t.bench->recv(fd, buffer.data(), buffer.size(), 0)) > 0) {
      for (ssize_t done = 0; done < n;) {
        const ssize_t sent =
            t.bench->send(fd, buffer.data() + done, static_cast<std::size_t>(n - done), MSG_NOSIGNAL);
        if (sent == -EAGAIN) std::this_thread::yield();
        if (sent < 0 && sent != -EAGAIN) break;
        done += std::max<ssize_t>(sent, 0);
      }
    }
    e.events = kOnce;
    if (n == -EAGAIN) {
      (void)t.bench->epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
    } else {
      t.bench->close(fd);
    }
  }
}

// What mtcp-stat does.
void ask_for_statistics() {
  const std::string ours = "@mtcp-stat-" + std::to_string(getpid()) + "-";
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);) {
    const std::size_t at = line.find(ours);
    if (at == line.npos) continue;
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    const std::size_t n = line.copy(a.sun_path + 1, sizeof a.sun_path - 1, at + 1);
    std::array<char, 4096> buffer;
    if (::connect(fd, reinterpret_cast<sockaddr*>(&a), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + n)) == 0) {
      while (::read(fd, buffer.data(), buffer.size()) > 0) {
      }
    }
    ::close(fd);
  }
}

}  // namespace

TEST_CASE("threads accept from one listener, serve, and are talked to by threads, all at once") {
  Threads t;
  const int listener = t.bench.listener(0, 64);
  const std::uint16_t port = t.bench.port;
  for (int i = 0; i < 3; ++i) {
    t.serve([&] {
      for (int fd = 0; (fd = t.bench->accept4(listener, nullptr, nullptr, 0)) >= 0;) echo(t, fd);
    });
  }
  for (int who = 0; who < 3; ++who) t.start([&, who] { talk(t, who, port); });
  t.start([] {
    for (int i = 0; i < 10; ++i) ask_for_statistics();
  });
  t.finish(listener);
  CHECK(t.mistakes == 0);
}

TEST_CASE("threads share one listener and one epoll set") {
  Threads t;
  const int listener = t.bench.listener(SOCK_NONBLOCK, 64);
  const std::uint16_t port = t.bench.port;
  const int ep = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.fd = listener;
  REQUIRE(t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e) == 0);
  for (int i = 0; i < 3; ++i) t.serve([&] { serve_set(t, ep, listener); });
  for (int who = 0; who < 3; ++who) t.start([&, who] { talk(t, who, port); });
  t.finish(listener);
  CHECK(t.mistakes == 0);
}

TEST_CASE("threads read, write, watch, shut down and close the same connection at the same time") {
  Threads t;
  const int listener = t.bench.listener(0, 64);
  for (int round = 0; round < kRounds; ++round) {
    const int client = t.connected(t.bench.port);
    const int server = t.bench->accept4(listener, nullptr, nullptr, 0);
    REQUIRE(server >= 0);
    std::atomic<int> ready{0};
    const auto together = [&](std::function<void()> body) {
      t.start([&, body = std::move(body)] {
        ++ready;
        while (ready < 5) std::this_thread::yield();
        body();
      });
    };
    together([&] {
      std::array<char, 600> buffer;
      for (int i = 0; i < 4 && t.bench->recv(server, buffer.data(), buffer.size(), 0) > 0; ++i) {
      }
    });
    together([&] {
      const std::string data(3000, 'w');
      for (int i = 0; i < 5 && t.bench->send(server, data.data(), data.size(), MSG_NOSIGNAL) > 0; ++i) {
      }
    });
    together([&] {
      const timespec moment{.tv_sec = 0, .tv_nsec = 300'000};
      pollfd p{server, POLLIN | POLLOUT | POLLRDHUP, 0};
      for (int i = 0; i < 3; ++i) (void)t.bench->poll(&p, 1, &moment, nullptr);
      sockaddr_in a{};
      socklen_t n = sizeof a;
      (void)t.bench->getpeername(server, reinterpret_cast<sockaddr*>(&a), &n);
    });
    together([&] {
      const int ep = ::epoll_create1(EPOLL_CLOEXEC);
      epoll_event e{};
      e.events = EPOLLIN | EPOLLOUT;
      const timespec moment{.tv_sec = 0, .tv_nsec = 300'000};
      if (t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, server, &e) == 0) {
        (void)t.bench->epoll_wait(ep, &e, 1, &moment, nullptr);
        t.expect(t.bench->close(ep) == 0);
      } else {
        ::close(ep);
      }
    });
    together([&] {
      const int copy = t.bench->dup(server);
      if (round % 2 == 0) t.bench->shutdown(server, SHUT_RDWR);
      if (copy >= 0) t.bench->close(copy);
      t.expect(t.bench->close(server) == 0);
    });
    t.expect(t.send_all(client, std::string(2000, 'c')) || round % 2 == 0);
    std::array<char, 4096> buffer;
    ssize_t n = 0;
    while ((n = t.bench->recv(client, buffer.data(), buffer.size(), 0)) > 0) {
      t.expect(std::all_of(buffer.data(), buffer.data() + n, [](char c) { return c == 'w'; }));
    }
    t.expect(n == 0 || n == -ECONNRESET || n == -EPIPE);
    t.join();
    t.bench->close(client);
  }
  CHECK(t.mistakes == 0);
}

TEST_CASE("threads wait in sets and polls while others change what is in them") {
  Threads t;
  const auto pair = t.bench.pair();
  REQUIRE(t.bench.set(pair.client, IPPROTO_TCP, TCP_NODELAY, 1) ==
          0);  // else each byte waits for a delayed ACK
  std::atomic<bool> over{false};
  std::atomic<int> heard{0};
  const int ep = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event e{};
  e.events = EPOLLIN;
  REQUIRE(t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, pair.server, &e) == 0);
  const timespec moment{.tv_sec = 0, .tv_nsec = 2'000'000};
  for (int i = 0; i < 2; ++i) {
    t.serve([&] {
      while (!over) {
        epoll_event out[4];
        heard += t.bench->epoll_wait(ep, out, 4, &moment, nullptr) > 0 ? 1 : 0;
        std::this_thread::yield();
      }
    });
  }
  t.serve([&] {
    while (!over) {
      pollfd both[2] = {{pair.server, POLLIN, 0}, {ep, POLLIN, 0}};
      (void)t.bench->poll(both, 2, &moment, nullptr);
      std::this_thread::yield();
    }
  });
  t.start([&] {  // the same registration comes and goes
    for (int i = 0; i < kRounds * 3; ++i) {
      epoll_event change{};
      change.events = EPOLLIN | (i % 2 == 0 ? EPOLLET : 0U);
      t.expect(t.bench->epoll_ctl(ep, EPOLL_CTL_MOD, pair.server, &change) == 0);
      if (i % 5 != 0) continue;
      t.expect(t.bench->epoll_ctl(ep, EPOLL_CTL_DEL, pair.server, nullptr) == 0);
      t.expect(t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, pair.server, &change) == 0);
    }
  });
  t.start([&] {  // other sockets and sets come and go in it
    for (int i = 0; i < kRounds; ++i) {
      const int fd = t.bench.tcp();
      const int inner = ::epoll_create1(EPOLL_CLOEXEC);
      epoll_event change{};
      change.events = EPOLLIN;
      t.expect(t.bench->epoll_ctl(inner, EPOLL_CTL_ADD, pair.client, &change) == 0);
      t.expect(t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, fd, &change) == 0);
      t.expect(t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, inner, &change) == 0);
      t.bench->close(fd);
      t.bench->close(inner);
    }
  });
  t.start([&] {
    for (int i = 0; i < kRounds * 3; ++i) {
      t.expect(t.bench->send(pair.client, "x", 1, 0) == 1);
      char byte = 0;
      t.expect(t.bench->recv(pair.server, &byte, 1, 0) == 1 && byte == 'x');
    }
  });
  for (std::thread& r : t.running) r.join();
  t.running.clear();
  over = true;
  t.join();
  CHECK(t.mistakes == 0);
  t.bench->close(ep);
}

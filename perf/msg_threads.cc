// Threads that share nothing but their process: each has a listener, an epoll set and connections to itself, on 127.0.0.1. Prints
// how many messages of 64 bytes a second have been answered, on connections that are kept or on a new one for each.
//   msg_threads THREADS kept|short SECONDS [FIRST_PORT]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <barrier>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "perf/message.hh"
#include "perf/number.hh"

namespace mtcp::perf {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kConnections = 32;  // of each thread

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

class Loop {
 public:
  Loop(std::uint16_t port, bool keep) : keep_(keep), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    to_.sin_family = AF_INET;
    to_.sin_port = htons(port);
    to_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int one = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener_, reinterpret_cast<const sockaddr*>(&to_), sizeof to_) != 0 || listen(listener_, 1024) != 0) fail("listen");
    watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  // How many messages have been answered.
  unsigned long run(Clock::time_point end) {
    for (int i = 0; i < kConnections; ++i) connect_once();
    std::array<epoll_event, 64> events;
    while (Clock::now() < end) {
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 100);
      for (int i = 0; i < n; ++i) handle(events[static_cast<std::size_t>(i)].data.fd);
    }
    return answered_;
  }

 private:
  enum class Role { served, connecting, asking };

  void watch(int op, int fd, std::uint32_t events) {
    epoll_event e{};
    e.events = events;
    e.data.fd = fd;
    if (epoll_ctl(epoll_, op, fd, &e) != 0) fail("epoll_ctl");
  }
  void connect_once() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, reinterpret_cast<const sockaddr*>(&to_), sizeof to_) != 0 && errno != EINPROGRESS)) fail("connect");
    role(fd) = Role::connecting;
    watch(EPOLL_CTL_ADD, fd, EPOLLOUT);
  }
  void handle(int fd) {
    if (fd == listener_) return accept_all();
    if (role(fd) == Role::connecting) {
      role(fd) = Role::asking;
      watch(EPOLL_CTL_MOD, fd, EPOLLIN);
      return say(fd);
    }
    const ssize_t n = read(fd, message_.data(), message_.size());
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) fail("read");
    if (n == 0) {
      close(fd);
    } else if (role(fd) == Role::served) {
      say(fd);
    } else {
      ++answered_;
      if (keep_) return say(fd);
      close(fd);
      connect_once();
    }
  }
  void accept_all() {
    for (int fd = 0; (fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
      role(fd) = Role::served;
      watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
  }
  void say(int fd) {
    if (write(fd, message_.data(), message_.size()) != static_cast<ssize_t>(message_.size())) fail("write");
  }
  Role& role(int fd) {
    if (roles_.size() <= static_cast<std::size_t>(fd)) roles_.resize(static_cast<std::size_t>(fd) + 64);
    return roles_[static_cast<std::size_t>(fd)];
  }

  bool keep_;
  int epoll_, listener_ = -1;
  sockaddr_in to_{};
  std::vector<Role> roles_;  // by descriptor
  std::array<char, kMessageSize> message_{};
  unsigned long answered_ = 0;
};

// Each on a CPU of its own, as far as there are so many.
void pin(unsigned i, const cpu_set_t& all) {
  unsigned nth = i % static_cast<unsigned>(CPU_COUNT(&all));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all) || nth-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

double run(unsigned threads, bool keep, double seconds, std::uint16_t port) {
  cpu_set_t cpus;
  sched_getaffinity(0, sizeof cpus, &cpus);
  std::barrier all(threads);
  std::vector<unsigned long> answered(threads);
  std::vector<std::thread> running;
  for (unsigned i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      pin(i, cpus);
      Loop loop(static_cast<std::uint16_t>(port + i), keep);
      all.arrive_and_wait();
      answered[i] = loop.run(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
    });
  }
  unsigned long sum = 0;
  for (unsigned i = 0; i < threads; ++i) {
    running[i].join();
    sum += answered[i];
  }
  return static_cast<double>(sum) / seconds;
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  using namespace mtcp::perf;
  const auto threads = argc > 1 ? number<unsigned>(argv[1], 1, 64) : std::nullopt;
  const auto seconds = argc > 3 ? number<double>(argv[3], 0.1, 3600) : std::nullopt;
  const auto port = argc > 4 ? number<std::uint16_t>(argv[4], 1024, 65000) : std::uint16_t{20000};
  const std::string_view how = argc > 2 ? argv[2] : "";
  if (!threads || !seconds || !port || (how != "kept" && how != "short")) {
    std::fputs("usage: msg_threads THREADS kept|short SECONDS [FIRST_PORT]\n", stderr);
    return 2;
  }
  std::printf("%.0f\n", run(*threads, how == "kept", *seconds, *port));
  return 0;
}

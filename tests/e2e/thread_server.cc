// An echo server whose threads share their sockets, in one of three ways:
//   set    threads wait in one epoll set, which gets the listening socket only when all of them wait in it
//   pool   one thread waits in the set, the others on a condition variable for connections that are readable
//   split  each connection has a thread that reads, one that writes, and who is last closes
// usage: thread_server set|pool|split ADDRESS PORT
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 4;
constexpr std::uint32_t kOnce = EPOLLIN | EPOLLET | EPOLLONESHOT;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

int listen_on(const char* address, const char* port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  ::inet_pton(AF_INET, address, &a.sin_addr);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) fail("bind");
  if (::listen(fd, 128) != 0) fail("listen");
  return fd;
}

void watch(int set, int op, int fd, std::uint32_t events) {
  epoll_event e{};
  e.events = events;
  e.data.fd = fd;
  if (::epoll_ctl(set, op, fd, &e) != 0) fail("epoll_ctl");
}

bool send_all(int fd, const char* p, std::size_t n) {
  while (n > 0) {
    const ssize_t sent = ::send(fd, p, n, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    p += sent;
    n -= static_cast<std::size_t>(sent);
  }
  return true;
}

// Answers what is there; false at the end.
bool echo(int fd) {
  std::array<char, 16384> buffer;
  for (;;) {
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN;
    if (n == 0 || !send_all(fd, buffer.data(), static_cast<std::size_t>(n))) return false;
  }
}

void serve(int set, int fd) {
  if (echo(fd)) {
    watch(set, EPOLL_CTL_MOD, fd, kOnce);
  } else {
    ::close(fd);
  }
}

// An accepted connection, or -1. Without Nagle's algorithm, which would wait for the client's delayed ACKs.
int accept_one(int listener) {
  const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  const int on = 1;
  if (fd >= 0) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void accept_all(int listener, int set) {
  for (int fd = 0; (fd = accept_one(listener)) >= 0;) watch(set, EPOLL_CTL_ADD, fd, kOnce);
}

void share_set(const char* address, const char* port) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  watch(set, EPOLL_CTL_ADD, ::eventfd(0, EFD_CLOEXEC), EPOLLIN);  // as programs have to wake their threads
  std::atomic<int> listener = -1;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (;;) {
        epoll_event e{};
        if (::epoll_wait(set, &e, 1, -1) != 1) continue;
        e.data.fd == listener ? accept_all(listener, set) : serve(set, e.data.fd);
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // all of them wait by now
  listener = listen_on(address, port);
  watch(set, EPOLL_CTL_ADD, listener, EPOLLIN);
  threads.front().join();
}

void use_pool(const char* address, const char* port) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  const int listener = listen_on(address, port);
  watch(set, EPOLL_CTL_ADD, listener, EPOLLIN);
  std::mutex mutex;
  std::condition_variable work;
  std::deque<int> readable;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (;;) {
        std::unique_lock guard(mutex);
        work.wait(guard, [&] { return !readable.empty(); });
        const int fd = readable.front();
        readable.pop_front();
        guard.unlock();
        serve(set, fd);
      }
    });
  }
  for (;;) {
    std::array<epoll_event, 16> events;
    const int n = ::epoll_wait(set, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener) {
        accept_all(listener, set);
        continue;
      }
      const std::lock_guard guard(mutex);
      readable.push_back(fd);
      work.notify_one();
    }
  }
}

struct Split {
  explicit Split(int f) : fd(f) {}
  ~Split() { ::close(fd); }
  Split(const Split&) = delete;
  Split& operator=(const Split&) = delete;

  void read() {
    std::array<char, 16384> buffer;
    for (ssize_t n = 0; (n = ::recv(fd, buffer.data(), buffer.size(), 0)) > 0;) {
      push({buffer.data(), static_cast<std::size_t>(n)});
    }
    push({});
  }
  void write() {
    for (;;) {
      std::unique_lock guard(mutex);
      more.wait(guard, [&] { return !parts.empty(); });
      const std::string part = std::move(parts.front());
      parts.pop_front();
      guard.unlock();
      if (part.empty() || !send_all(fd, part.data(), part.size())) return;
    }
  }
  void push(std::string part) {
    const std::lock_guard guard(mutex);
    parts.push_back(std::move(part));
    more.notify_one();
  }

  int fd;
  std::mutex mutex;
  std::condition_variable more;
  std::deque<std::string> parts;
};

void split(const char* address, const char* port) {
  const int listener = listen_on(address, port);
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  watch(set, EPOLL_CTL_ADD, listener, EPOLLIN);
  for (;;) {
    epoll_event e{};
    (void)::epoll_wait(set, &e, 1, -1);
    for (int fd = 0; (fd = accept_one(listener)) >= 0;) {
      const auto connection = std::make_shared<Split>(fd);
      std::thread([connection] { connection->read(); }).detach();
      std::thread([connection] { connection->write(); }).detach();
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc == 4 ? argv[1] : "";
  if (how == "set") share_set(argv[2], argv[3]);
  if (how == "pool") use_pool(argv[2], argv[3]);
  if (how == "split") split(argv[2], argv[3]);
  std::fputs("usage: thread_server set|pool|split ADDRESS PORT\n", stderr);
  return 2;
}

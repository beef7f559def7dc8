// Threads that have a listener each of one port (SO_REUSEPORT), and an epoll set of their own.
#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <barrier>
#include <map>
#include <set>
#include <thread>

#include "tests/parity/child.hh"

using namespace parity;

namespace {

constexpr int kThreads = 4;

Fd listener_beside(const Address& at) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (::bind(fd, at.get(), at.size) != 0 || ::listen(fd, 128) != 0) fd.reset();
  return fd;
}

// An event loop: answers each byte that comes on what it has accepted, and says one on each connection that it makes.
class Loop {
 public:
  // `listener` stays the caller's.
  explicit Loop(int listener) : set_(::epoll_create1(EPOLL_CLOEXEC)), listener_(listener) { watch(listener, EPOLLIN); }
  void connect(const Address& to) {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    if (::connect(fd, to.get(), to.size) != 0 && errno != EINPROGRESS) ++mistakes;
    watch(fd, EPOLLIN | EPOLLOUT | EPOLLET);
    const int number = fd;
    ours_.emplace(number, std::move(fd));
  }
  void turn() {
    std::array<epoll_event, 16> events;
    const int n = ::epoll_wait(set_, events.data(), static_cast<int>(events.size()), 1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      fd == listener_ ? accept() : ours_.contains(fd) ? go_on(fd, events[static_cast<std::size_t>(i)].events) : answer(fd);
    }
  }
  int answers = 0;
  int mistakes = 0;

 private:
  void watch(int fd, std::uint32_t events) {
    epoll_event e{};
    e.events = events;
    e.data.fd = fd;
    if (::epoll_ctl(set_, EPOLL_CTL_ADD, fd, &e) != 0) ++mistakes;
  }
  void accept() {
    for (int fd = 0; (fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
      theirs_.emplace(fd, Fd(fd));
      watch(fd, EPOLLIN);
    }
  }
  void answer(int fd) {
    char byte = 0;
    const ssize_t n = ::recv(fd, &byte, 1, 0);
    if (n == 1)
      (void)::send(fd, &byte, 1, MSG_NOSIGNAL);
    else if (n == 0 || errno != EAGAIN)
      theirs_.erase(fd);
  }
  void go_on(int fd, std::uint32_t events) {
    char byte = 'x';
    if ((events & EPOLLOUT) != 0 && said_.insert(fd).second) {
      if (::send(fd, &byte, 1, MSG_NOSIGNAL) != 1) ++mistakes;
      return;
    }
    const ssize_t n = ::recv(fd, &byte, 1, 0);
    if (n < 0 && errno == EAGAIN) return;
    n == 1 && byte == 'x' ? ++answers : ++mistakes;
    said_.erase(fd);
    ours_.erase(fd);
  }

  Fd set_;
  int listener_;
  std::map<int, Fd> ours_, theirs_;
  std::set<int> said_;  // of ours
};

}  // namespace

TEST_CASE("threads: each with a listener of one port serves what comes to it, and connects by itself", "[threads]") {
  const Fd first = listener_beside(server_address());
  REQUIRE(first >= 0);
  const Address to = local_of(first);
  std::barrier all(kThreads);
  std::atomic<int> answers{0}, mistakes{0};
  const auto serve = [&](int listener) {
    Loop loop(listener);
    all.arrive_and_wait();
    for (int round = 0; round < 30; ++round) {
      loop.connect(to);
      for (const int before = loop.answers + loop.mistakes; loop.answers + loop.mistakes == before;) loop.turn();
    }
    answers += loop.answers;
    mistakes += loop.mistakes;
    while (answers + mistakes < 30 * kThreads) loop.turn();  // serves the others
    all.arrive_and_wait();
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const Fd listener = listener_beside(to);
      serve(listener);
    });
  }
  serve(first);
  for (std::thread& t : threads) t.join();
  CHECK(answers == 30 * kThreads);
  CHECK(mistakes == 0);
}

TEST_CASE("threads: listeners of one port that one thread has made are served by others, and then by a child", "[threads][fork]") {
  std::array<Fd, kThreads> listeners;
  listeners[0] = listener_beside(server_address());
  REQUIRE(listeners[0] >= 0);
  const Address to = local_of(listeners[0]);
  for (int i = 1; i < kThreads; ++i) listeners[static_cast<std::size_t>(i)] = listener_beside(to);
  std::atomic<bool> over{false};
  std::atomic<int> mistakes{0};
  std::vector<std::thread> threads;
  for (const Fd& fd : listeners) {
    threads.emplace_back([&] {
      Loop loop(fd);
      while (!over) loop.turn();
      mistakes += loop.mistakes;
    });
  }
  for (int i = 0; i < 60; ++i) {
    const Fd client = connected_to(to);
    REQUIRE(send_all(client, "y"));
    REQUIRE(receive_exactly(client, 1) == "y");
  }
  over = true;
  for (std::thread& t : threads) t.join();
  CHECK(mistakes == 0);
  Child child([&] {
    std::array<pollfd, kThreads> all{};
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = {listeners[i], POLLIN, 0};
    for (int served = 0; served < 10;) {
      if (::poll(all.data(), all.size(), 5000) <= 0) return 1;
      for (const pollfd& p : all) {
        if (p.revents == 0) continue;
        const Fd fd(::accept(p.fd, nullptr, nullptr));
        if (fd < 0 || receive_exactly(fd, 1) != "z" || !send_all(fd, "c")) return 2;
        ++served;
      }
    }
    return 0;
  });
  for (int i = 0; i < 10; ++i) {
    const Fd client = connected_to(to);
    REQUIRE(send_all(client, "z"));
    REQUIRE(receive_exactly(client, 1) == "c");
  }
  REQUIRE(child.wait() == 0);
}

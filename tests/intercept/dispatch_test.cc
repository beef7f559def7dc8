// One thread accepts, and others serve what it has accepted (memcached, Netty), on stacks of their own. Part of thread_stress_test, so
// ThreadSanitizer looks at it.
#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <deque>
#include <mutex>
#include <optional>

#include "tests/intercept/device_world.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

using stack::Counter;

// What has been accepted for a thread.
class Mailbox {
 public:
  void put(int fd) {
    const std::lock_guard guard(lock_);
    fds_.push_back(fd);
  }
  std::optional<int> take() {
    const std::lock_guard guard(lock_);
    if (fds_.empty()) return std::nullopt;
    const int fd = fds_.front();
    fds_.pop_front();
    return fd;
  }

 private:
  std::mutex lock_;
  std::deque<int> fds_;
};

struct Dispatched : World {
  explicit Dispatched(int workers, std::uint32_t stacks = kThreads, std::uint32_t slots = 8) : World(stacks, 2, slots), workers(workers) {
    listener = Loop::make_listener(server, kOwn, kPort, false);
    server.serve([this] { accept(); });
    for (int i = 0; i < workers; ++i) server.serve([this, i] { work(i); });
  }
  ~Dispatched() { finish(); }
  Dispatched(const Dispatched&) = delete;
  Dispatched& operator=(const Dispatched&) = delete;

  void finish() {
    over = true;
    server.join();
    if (listener >= 0) server.expect(server.bench->close(listener) == 0);
    listener = -1;
  }
  [[nodiscard]] std::uint64_t sum(Counter counter) {
    std::uint64_t n = 0;
    server.bench->shards.for_each([&](const Shard& s) { n += s.instance != nullptr ? s.instance->stats().get(counter) : 0; });
    return n;
  }

  int workers, listener = -1;
  std::atomic<bool> over{false};
  std::atomic<int> at_home{0}, elsewhere{0};  // connections that are on the stack of the thread that serves them, and others
  std::array<Mailbox, 8> mail;
  // What is done with a connection before a worker puts it into its set; what that gives is closed afterwards.
  std::function<int(int fd)> before = [](int) { return -1; };

 private:
  void accept() {
    for (std::size_t next = 0; !over;) {
      pollfd p{listener, POLLIN, 0};
      const timespec moment{.tv_sec = 0, .tv_nsec = 1'000'000};
      if (server.bench->poll(&p, 1, &moment, nullptr) != 1) continue;
      const int fd = server.bench->accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      if (fd >= 0) mail[next++ % static_cast<std::size_t>(workers)].put(fd);
    }
  }
  void work(int number) {
    Loop loop(server);
    while (!over) {
      while (const std::optional<int> fd = mail[static_cast<std::size_t>(number)].take()) {
        const int other = before(*fd);
        loop.serve_connection(*fd);
        if (other >= 0) server.expect(server.bench->close(other) == 0);
        const bool home = server.bench->files.socket(*fd)->shard == server.bench->shards.of_thread();
        ++(home ? at_home : elsewhere);
      }
      loop.turn();
    }
  }
};

}  // namespace

TEST_CASE("device: what one thread accepts and others put into their sets is on the stacks of these") {
  Dispatched w(kThreads);
  w.talk(3, 60);
  w.finish();
  CHECK(w.stacks() == kThreads);
  CHECK(w.at_home == 180);
  CHECK(w.elsewhere == 0);
  // The first of them shares the stack that accepts.
  CHECK(w.accepted_by(0) == 180);
  for (unsigned i = 1; i < kThreads; ++i) CHECK(w.counted(i, Counter::connections_adopted) == 45);
  CHECK(w.counted(0, Counter::connections_handed_over) == 135);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

TEST_CASE("device: one thread that serves what another accepts needs no stack of its own") {
  Dispatched w(1);
  w.talk(2, 30);
  w.finish();
  CHECK(w.stacks() == 1);
  CHECK(w.server.bench->shards.count() == 1);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

TEST_CASE("device: threads for which there is no slot on the device serve on the stack that accepts") {
  Dispatched w(3, kThreads, 2);
  w.talk(3, 40);
  w.finish();
  CHECK(w.stacks() == 2);
  CHECK(w.at_home + w.elsewhere == 120);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

namespace {

// A connection that says `first`, and then what else.
void say(World& w, const std::string& first, const std::function<void(int)>& then) {
  const int fd = w.client.connected(kPort);
  w.client.expect(fd >= 0 && (first.empty() || w.client.send_all(fd, first)));
  then(fd);
  w.client.expect(w.client.bench->close(fd) == 0);
}

}  // namespace

TEST_CASE("device: what has come before a connection goes to another stack goes along, and so do the end and a reset") {
  Dispatched w(3);
  // All that the peer does at first has been done when it is put into a set.
  w.before = [](int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return -1;
  };
  w.client.start([&] {
    for (int round = 0; round < 30; ++round) {
      const std::string text = message(1, round);
      say(w, text, [&](int fd) {
        w.client.expect(w.client.bench->shutdown(fd, SHUT_WR) == 0);
        w.client.expect(w.client.receive(fd, text.size()) == text);
        w.client.expect(w.client.receive(fd, 1).empty());
      });
      say(w, "gone", [](int) {});
      say(w, "", [](int) {});
      say(w, "reset", [&](int fd) {
        const linger at_once{1, 0};
        w.client.expect(w.client.bench->setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
      });
    }
  });
  w.client.join();
  while (w.at_home + w.elsewhere < 120) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  w.finish();
  CHECK(w.sum(Counter::connections_adopted) >= 50);  // of 60: those that the peer has reset stay where they are
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

TEST_CASE("device: a connection that another set has stays, and the set that gets it is its thread's again when it has gone") {
  World w(2);
  auto& bench = w.server.bench;
  std::barrier step(2);
  std::array<int, 3> peers{}, fds{};
  w.server.start([&] {
    const int listener = Loop::make_listener(w.server, kOwn, kPort, false);
    for (std::size_t i = 0; i < 3; ++i) {
      std::thread peer([&, i] { peers[i] = w.client.connected(kPort); });
      pollfd p{listener, POLLIN, 0};
      w.server.expect(bench->poll(&p, 1, nullptr, nullptr) == 1);
      fds[i] = bench->accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      peer.join();
    }
    Loop loop(w.server);
    loop.serve_connection(fds[0]);
    step.arrive_and_wait();
    step.arrive_and_wait();
    w.server.expect(bench->close(fds[0]) == 0);
    step.arrive_and_wait();
    step.arrive_and_wait();
    w.server.expect(bench->close(listener) == 0);
  });
  w.server.start([&] {
    step.arrive_and_wait();
    Loop loop(w.server);
    loop.serve_connection(fds[1]);
    const EpollSet* set = bench->files.set(loop.set());
    Shard* own = bench->shards.of_thread();
    w.server.expect(own != &bench->first() && set->shard == own && bench->files.socket(fds[1])->shard == own);
    w.server.expect(watch(w.server, loop.set(), fds[0], EPOLLIN) == 0);
    w.server.expect(set->shard == nullptr && bench->files.socket(fds[0])->shard == &bench->first());
    // One that comes now goes to this thread's stack all the same.
    loop.serve_connection(fds[2]);
    w.server.expect(set->shard == nullptr && bench->files.socket(fds[2])->shard == own);
    loop.turn();
    w.server.expect(set->shard == nullptr);
    step.arrive_and_wait();
    step.arrive_and_wait();  // the other thread has closed it
    loop.turn();
    w.server.expect(set->shard == own && bench->files.owner(loop.set()) == own->index);
    std::thread peer([&] { w.client.expect(w.client.send_all(peers[2], "x") && w.client.receive(peers[2], 1) == "x"); });
    for (int i = 0; i < 100; ++i) loop.turn();
    peer.join();
    step.arrive_and_wait();
  });
  w.server.join();
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
  for (const int peer : peers) w.client.bench->close(peer);
}

TEST_CASE("device: a connection for which there is no room on the stack that it is to go to ends with a reset, at both ends") {
  Options few = on_wire("wire0", 2);
  few.stack.tcp.max_connections = 2;
  World w(few);
  auto& bench = w.server.bench;
  std::barrier step(2);
  std::array<int, 4> peers{}, fds{};
  w.server.start([&] {
    const int listener = Loop::make_listener(w.server, kOwn, kPort, false);
    Loop loop(w.server);
    for (std::size_t i = 0; i < fds.size(); ++i) {
      std::thread peer([&, i] { peers[i] = w.client.connected(kPort); });
      pollfd p{listener, POLLIN, 0};
      w.server.expect(bench->poll(&p, 1, nullptr, nullptr) == 1);
      fds[i] = bench->accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      peer.join();
      if (i == 0) loop.serve_connection(fds[0]);
      step.arrive_and_wait();
      step.arrive_and_wait();  // the other thread has put it into its set
    }
    w.server.expect(bench->close(listener) == 0);
  });
  w.server.start([&] {
    Loop loop(w.server);
    for (std::size_t i = 0; i < fds.size(); ++i) {
      step.arrive_and_wait();
      if (i > 0) loop.serve_connection(fds[i]);
      if (i == 3) {
        const EpollSet* set = bench->files.set(loop.set());
        epoll_event e{};
        w.server.expect(set->shard == bench->shards.of_thread() && bench->files.socket(fds[i])->shard == set->shard);
        w.server.expect(bench->epoll_wait(loop.set(), &e, 1, nullptr, nullptr) == 1 && e.data.fd == fds[i] && (e.events & EPOLLHUP) != 0);
        char byte = 0;
        w.server.expect(bench->recv(fds[i], &byte, 1, 0) == -ECONNRESET);
        loop.turn();
        w.server.expect(loop.connections() == 2);  // it has closed that one
      }
      step.arrive_and_wait();
    }
  });
  w.server.join();
  char byte = 0;
  CHECK(w.client.bench->recv(peers[3], &byte, 1, 0) == -ECONNRESET);
  CHECK(w.counted(1, Counter::connections_adopted) == 2);
  CHECK(w.counted(1, Counter::adoptions_refused) == 1);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
  for (const int peer : peers) w.client.bench->close(peer);
}

TEST_CASE("device: connections stay on the stack that accepts once those that have gone were short, and one that lasts comes back") {
  Dispatched w(2);
  std::array<int, 2> lasting{};
  w.client.start([&] {
    for (int& fd : lasting) fd = w.client.connected(kPort);  // one for each of the two that serve
  });
  w.client.join();
  w.talk(2, 150);
  w.client.start([&] {
    for (const int fd : lasting) w.client.expect(w.client.send_all(fd, "x") && w.client.receive(fd, 1) == "x");
  });
  w.client.join();
  for (const int fd : lasting) w.client.bench->close(fd);
  w.finish();
  CHECK(w.stacks() == 2);
  CHECK(w.at_home + w.elsewhere == 302);
  CHECK(w.counted(1, Counter::connections_adopted) == 64);
  CHECK(w.counted(0, Counter::connections_adopted) >= 1);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

TEST_CASE("device: connections go to the stacks of those who serve them, by any of their numbers, while other threads look at them") {
  Dispatched w(kThreads);
  std::atomic<int> seen{-1};
  w.before = [&](int fd) {
    seen = fd;
    return w.server.bench->dup(fd);
  };
  for (int i = 0; i < 2; ++i) {
    w.server.serve([&, i] {
      const sigset_t none{};
      while (!w.over) {
        const int fd = seen;
        if (fd < 0) continue;
        pollfd p{fd, POLLPRI, 0};
        const timespec none_at_all{};  // a sleep would keep it in its set after the close, as in the kernel
        (void)w.server.bench->poll(&p, 1, &none_at_all, i == 0 ? nullptr : &none);
        (void)w.server.bench.get(fd, SOL_SOCKET, SO_ERROR);
        char byte = 0;
        (void)w.server.bench->recv(fd, &byte, 1, MSG_PEEK);
      }
    });
  }
  w.talk(3, 60);
  w.finish();
  CHECK(w.at_home + w.elsewhere == 180);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

// Several stacks in one process: each thread that listens has its own. Part of thread_stress_test, so ThreadSanitizer looks at it.
#include <errno.h>
#include <poll.h>

#include <array>
#include <barrier>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "stack/capture/capture.hh"
#include "tests/intercept/loop.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

constexpr int kThreads = 4;

Options with_stacks(std::uint32_t n) {
  Options o = with_service_thread();
  o.stacks = n;
  return o;
}

// A copy of all that the stacks receive, in a ring that it fits into.
class Captured {
 public:
  static constexpr std::size_t kRing = std::size_t{1} << 24;
  explicit Captured(Process& process) : process_(process) {
    const Guard guard(process, Guard::Everything{});
    (void)set_.add(capture_);
    process.set_captures(&set_);
  }
  ~Captured() { stop(); }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;

  void stop() {
    const Guard guard(process_, Guard::Everything{});
    process_.set_captures(nullptr);
  }
  // How many packets there are, one behind the other; -1: something else is between them.
  [[nodiscard]] int packets() const {
    const auto& header = *reinterpret_cast<const stack::CaptureHeader*>(memory_.get());
    int n = 0;
    for (std::uint64_t at = 0; at != header.head; ++n) {
      stack::CaptureRecord r;
      std::memcpy(&r, memory_->data() + sizeof header + at, sizeof r);
      if (r.direction != stack::CaptureDirection::in || r.captured != r.length || r.size < sizeof r + r.captured || at + r.size > header.head) return -1;
      at += r.size;
    }
    return header.dropped == 0 && header.accepted == static_cast<std::uint64_t>(n) ? n : -1;
  }

 private:
  struct alignas(64) Memory : std::array<std::byte, sizeof(stack::CaptureHeader) + kRing> {};
  Process& process_;
  std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();
  stack::Capture capture_{*memory_, *stack::PacketFilter::check({}), 65535};
  stack::CaptureSet set_{now};
};

}  // namespace

TEST_CASE("each thread that listens has a stack of its own, as long as there may be more") {
  Threads t(with_stacks(3));
  std::barrier all(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    t.start([&] {
      Loop loop(t);
      const std::uint16_t port = loop.listen();
      all.arrive_and_wait();  // else one that has ended leaves its stack to the next
      for (int round = 0; round < 50; ++round) {
        loop.connect(port);
        for (const int before = loop.answers; loop.answers < before + 4;) loop.turn();
      }
      all.arrive_and_wait();
    });
  }
  t.join();
  CHECK(t.mistakes == 0);
  CHECK(t.bench->shards.count() == 3);
}

TEST_CASE("a thread that ends leaves its stack to the next one") {
  Threads t(with_stacks(4));
  for (int i = 0; i < 6; ++i) {
    t.start([&] {
      Loop loop(t);
      loop.connect(loop.listen());
      while (loop.answers < 4) loop.turn();
    });
    t.join();
  }
  CHECK(t.mistakes == 0);
  CHECK(t.bench->shards.count() == 1);
}

TEST_CASE("threads with stacks of their own connect to one another, and watch all of it in their sets") {
  Threads t(with_stacks(kThreads));
  std::barrier all(kThreads);
  std::array<std::uint16_t, kThreads> ports{};
  std::atomic<int> done{0};
  for (int i = 0; i < kThreads; ++i) {
    t.start([&, i] {
      Loop loop(t);
      ports[static_cast<std::size_t>(i)] = loop.listen();
      all.arrive_and_wait();
      for (int round = 0; round < 60; ++round) {
        loop.connect(ports[static_cast<std::size_t>(i + round) % kThreads]);
        for (const int before = loop.answers; loop.answers < before + 4;) loop.turn();
      }
      for (++done; done < kThreads;) loop.turn();  // serves the others
      all.arrive_and_wait();
    });
  }
  t.join();
  CHECK(t.mistakes == 0);
  CHECK(t.bench->shards.count() == kThreads);
}

TEST_CASE("listeners come and go on several stacks while others connect to them") {
  Threads t(with_stacks(kThreads));
  std::array<std::atomic<int>, 2> ports{};
  std::atomic<bool> over{false};
  for (std::atomic<int>& port : ports) {
    t.start([&] {
      for (int round = 0; round < 100; ++round) {
        Loop loop(t);
        port = loop.listen();
        for (int i = 0; i < 5; ++i) loop.turn();
        port = 0;
      }
    });
  }
  for (int i = 0; i < 2; ++i) {
    t.serve([&, i] {
      while (!over) {
        const int port = ports[static_cast<std::size_t>(i)];
        if (port == 0) continue;
        const int fd = t.bench.tcp();
        if (t.bench.connect(fd, kOwn, static_cast<std::uint16_t>(port)) == 0) {
          char byte = 'x';
          (void)t.bench->send(fd, &byte, 1, MSG_NOSIGNAL);
          pollfd p{fd, POLLIN, 0};
          const timespec moment{.tv_sec = 0, .tv_nsec = 2'000'000};
          (void)t.bench->poll(&p, 1, &moment, nullptr);
        }
        t.expect(t.bench->close(fd) == 0);
      }
    });
  }
  for (std::thread& r : t.running) r.join();
  t.running.clear();
  over = true;
  t.join();
  CHECK(t.mistakes == 0);
}

TEST_CASE("a poll over sockets of several stacks hears of each") {
  Threads t(with_stacks(kThreads));
  std::barrier all(3);
  std::array<int, 2> listeners{-1, -1};
  std::array<std::uint16_t, 2> ports{};
  for (std::size_t i = 0; i < 2; ++i) {
    t.start([&, i] {
      listeners[i] = t.bench.tcp();
      const sockaddr_in a = Bench::address(kOwn, 0);
      t.expect(t.bench->bind(listeners[i], reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0);
      t.expect(t.bench->listen(listeners[i], 64) == 0);
      ports[i] = t.bench.port_of(listeners[i]);
      all.arrive_and_wait();
      for (int round = 0; round < 100; ++round) {
        const int fd = t.connected(ports[i]);
        t.expect(t.send_all(fd, "x"));
        t.expect(t.receive(fd, 1) == "x");
        t.bench->close(fd);
      }
      all.arrive_and_wait();
    });
  }
  t.start([&] {
    all.arrive_and_wait();
    for (int served = 0; served < 200;) {
      std::array<pollfd, 2> both{pollfd{listeners[0], POLLIN, 0}, pollfd{listeners[1], POLLIN, 0}};
      t.expect(t.bench->poll(both.data(), 2, nullptr, nullptr) > 0);
      for (const pollfd& p : both) {
        if (p.revents == 0) continue;
        const int fd = t.bench->accept4(p.fd, nullptr, nullptr, 0);
        t.expect(t.receive(fd, 1) == "x" && t.send_all(fd, "x"));
        t.bench->close(fd);
        ++served;
      }
    }
    all.arrive_and_wait();
  });
  t.join();
  CHECK(t.mistakes == 0);
  for (const int fd : listeners) t.bench->close(fd);
}

TEST_CASE("the packets of all stacks are captured, of those as well that begin later") {
  Threads t(with_stacks(3));
  Captured captured(*t.bench);
  std::barrier all(3);
  for (int i = 0; i < 3; ++i) {
    t.start([&] {
      Loop loop(t);
      const std::uint16_t port = loop.listen();
      all.arrive_and_wait();
      for (int round = 0; round < 50; ++round) {
        loop.connect(port);
        for (const int before = loop.answers; loop.answers < before + 4;) loop.turn();
      }
      all.arrive_and_wait();
    });
  }
  t.join();
  captured.stop();
  CHECK(t.mistakes == 0);
  CHECK(t.bench->shards.count() == 3);
  CHECK(captured.packets() > 3 * 50 * 8);  // a byte each way, four times, is two packets with data each
}

TEST_CASE("the descriptors of threads with stacks of their own are not neighbours") {
  constexpr int kEach = 40, kLine = 64;  // entries of FdTable in a cache line
  Threads t(with_stacks(2));
  std::barrier all(2);
  std::array<std::vector<int>, 2> opened;
  for (std::size_t i = 0; i < 2; ++i) {
    t.start([&, i] {
      Loop loop(t);
      const std::uint16_t port = loop.listen();
      all.arrive_and_wait();
      for (int n = 0; n < kEach; ++n) opened[i].push_back(t.connected(port));
      all.arrive_and_wait();
    });
  }
  t.join();
  CHECK(t.mistakes == 0);
  std::array<std::set<int>, 2> lines;
  for (std::size_t i = 0; i < 2; ++i) {
    for (const int fd : opened[i]) {
      CHECK(fd >= 0);
      lines[i].insert(fd / kLine);
      t.bench->close(fd);
    }
  }
  for (const int line : lines[0]) CHECK(lines[1].count(line) == 0);
}

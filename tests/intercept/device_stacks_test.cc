// Several stacks of one process on a device: threads with a listener each (SO_REUSEPORT). Part of thread_stress_test, so
// ThreadSanitizer looks at it.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <barrier>
#include <catch2/catch.hpp>
#include <functional>
#include <set>

#include "intercept/device/kernel_follower.hh"
#include "tests/intercept/device_world.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

TEST_CASE("device: each thread with a listener of its own (SO_REUSEPORT) has a stack of its own, and what it accepts is there") {
  World w;
  std::barrier ready(kThreads + 1);
  std::atomic<bool> over{false};
  serve(w, ready, over, [](Loop& loop, int) { loop.listen(kOwn, kPort, true); });
  ready.arrive_and_wait();
  w.talk(3, 60);
  CHECK(w.stacks() == kThreads);
  std::uint64_t sum = 0;
  for (unsigned i = 0; i < kThreads; ++i) {
    CHECK(w.accepted_by(i) > 0);
    sum += w.accepted_by(i);
  }
  CHECK(sum == 180);
  end(w, ready, over);
}

TEST_CASE("device: how many CPUs there are is not decided by a thread that has chosen its own before the device is opened") {
  cpu_set_t all;
  REQUIRE(sched_getaffinity(getpid(), sizeof all, &all) == 0);
  TestWire wire;
  std::uint32_t stacks = 0;
  std::thread([&] {
    cpu_set_t one = all;
    for (int cpu = 0; CPU_COUNT(&one) > 1; ++cpu) CPU_CLR(cpu, &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    Threads t(on_wire("wire0", 0), &TestWire::open);
    Loop loop(t);
    loop.connect(kPort, kPeer);
    stacks = t.bench->options.stacks;
  }).join();
  CHECK(wire.cpus == static_cast<std::uint32_t>(CPU_COUNT(&all)));
  CHECK(stacks == wire.cpus);
}

TEST_CASE("device: listeners that one thread has made go to the stacks of those who put them into their sets") {
  World w;
  std::barrier ready(kThreads + 1);
  std::atomic<bool> over{false};
  std::array<int, kThreads> listeners{};
  std::array<const Shard*, kThreads> shards{};
  for (int& fd : listeners) fd = Loop::make_listener(w.server, kOwn, kPort, true);
  // This thread has the first stack, and one of them shares it.
  serve(w, ready, over, [&](Loop& loop, int i) {
    loop.serve_listener(listeners[static_cast<std::size_t>(i)]);
    shards[static_cast<std::size_t>(i)] = w.server.bench->shards.of_thread();
  });
  ready.arrive_and_wait();
  for (std::size_t i = 0; i < kThreads; ++i) CHECK(w.server.bench->files.socket(listeners[i])->shard == shards[i]);
  CHECK(std::set<const Shard*>(shards.begin(), shards.end()).size() == kThreads);
  w.talk(3, 40);
  CHECK(w.stacks() == kThreads);
  for (unsigned i = 0; i < kThreads; ++i) CHECK(w.accepted_by(i) > 0);
  end(w, ready, over);
}

namespace {

// The client's end listens until `over`: its port.
std::uint16_t serve_at_peer(World& w, const std::atomic<bool>& over) {
  std::atomic<std::uint16_t> port{0};
  w.client.serve([&] {
    Loop loop(w.client);
    port = loop.listen(kPeer);
    while (!over) loop.turn();
  });
  while (port == 0) std::this_thread::yield();
  return port;
}

// By a thread of the server's that has a listener: forty connections, each on its own stack.
void connect_to_peer(World& w, Loop& loop, std::uint16_t port) {
  for (int round = 0; round < 40; ++round) {
    const int fd = loop.connect(port, kPeer);
    w.server.expect(w.server.bench->files.socket(fd)->shard == w.server.bench->shards.of_thread());
    for (const int before = loop.answers; loop.answers < before + 4;) loop.turn();
  }
}

}  // namespace

TEST_CASE("device: what a thread connects to is on its own stack") {
  World w;
  std::barrier ready(kThreads + 1);
  std::atomic<bool> over{false};
  std::atomic<int> done{0};
  const std::uint16_t port = serve_at_peer(w, over);
  for (int i = 0; i < kThreads; ++i) {
    w.server.start([&] {
      Loop loop(w.server);
      loop.listen(kOwn, kPort, true);
      ready.arrive_and_wait();
      connect_to_peer(w, loop, port);
      for (++done; done < kThreads;) loop.turn();
      ready.arrive_and_wait();
    });
  }
  ready.arrive_and_wait();
  ready.arrive_and_wait();
  w.server.join();
  for (unsigned i = 0; i < kThreads; ++i)
    CHECK(w.server.bench->shards[i].instance->stats().get(stack::Counter::active_opens) == 40);
  over = true;
  w.client.join();
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

namespace {

// A network namespace with an interface that has the addresses of the server's end; whoever is at the other end of the wire is its neighbour.
struct OwnNetwork {
  OwnNetwork() {
    REQUIRE(unshare(CLONE_NEWNET) == 0);
    REQUIRE(run("ip link set lo up && ip link add wire address 02:00:00:00:03:00 type veth peer name other && ip link set other up && ip address add 10.77.0.1/24 dev wire && "
                "ip link set wire up && ip neighbour replace 10.77.0.9 lladdr 02:00:00:00:03:01 dev wire nud permanent"));
  }
  ~OwnNetwork() {
    (void)setns(before, CLONE_NEWNET);
    close(before);
  }
  OwnNetwork(const OwnNetwork&) = delete;
  OwnNetwork& operator=(const OwnNetwork&) = delete;
  static bool run(const char* command) { return system(command) == 0; }
  const int before = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
};

}  // namespace

TEST_CASE("device: each stack of a process follows the kernel's addresses, routes and neighbours, which change all the time") {
  if (geteuid() != 0) return;  // a network namespace needs root
  const OwnNetwork network;
  Options options = on_wire("wire0,iface=wire", kThreads);
  options.stack.interface.from_kernel = true;
  options.stack.interface.addresses.clear();
  World w(options);
  w.wire.end(0).kernel_answers = true;
  std::barrier ready(kThreads + 1);
  std::atomic<bool> over{false};
  const std::uint16_t port = serve_at_peer(w, over);
  std::atomic<int> done{0};
  for (int i = 0; i < kThreads; ++i) {
    w.server.start([&] {
      Loop loop(w.server);
      loop.listen(kOwn, kPort, true);
      ready.arrive_and_wait();
      connect_to_peer(w, loop, port);
      for (++done; done <= kThreads;) loop.turn();
    });
  }
  ready.arrive_and_wait();
  CHECK(w.stacks() == kThreads);
  std::set<const KernelFollower*> followers;
  w.server.bench->shards.for_each([&](const Shard& s) { followers.insert(s.follower.get()); });
  CHECK(followers.size() == kThreads);
  CHECK_FALSE(followers.contains(nullptr));
  w.client.start([&] {
    Loop loop(w.client);
    for (int round = 0; round < 40; ++round) {
      loop.connect(kPort);
      for (const int before = loop.answers; loop.answers < before + 4;) loop.turn();
    }
    ++done;
  });
  for (int i = 0; done <= kThreads || i < 10; ++i) {
    REQUIRE(OwnNetwork::run("ip address add 10.77.0.5/24 dev wire && ip route add 192.0.2.0/24 via 10.77.0.9 && "
                            "ip neighbour replace 10.77.0.8 lladdr 02:00:00:00:03:08 dev wire nud permanent && "
                            "ip address del 10.77.0.5/24 dev wire && ip route del 192.0.2.0/24 && ip neighbour del 10.77.0.8 dev wire"));
  }
  over = true;
  w.server.join();
  w.client.join();
  for (unsigned i = 0; i < kThreads; ++i) CHECK(w.server.bench->shards[i].instance->stats().get(stack::Counter::active_opens) == 40);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

TEST_CASE("device: threads whose listeners have nothing in common share one stack") {
  World w;
  std::barrier ready(3);
  std::atomic<bool> over{false};
  serve(w, ready, over, [](Loop& loop, int i) { loop.listen(kOwn, static_cast<std::uint16_t>(kPort + i), true); }, 2);
  ready.arrive_and_wait();
  w.talk(1, 20);
  CHECK(w.server.bench->shards.count() == 1);
  end(w, ready, over);
}

TEST_CASE("device: a thread for which there is no slot on the device goes on with the first one's stack") {
  World w(kThreads, 2, 2);
  std::barrier ready(kThreads + 1);
  std::atomic<bool> over{false};
  serve(w, ready, over, [](Loop& loop, int) { loop.listen(kOwn, kPort, true); });
  ready.arrive_and_wait();
  w.talk(2, 40);
  CHECK(w.stacks() == 2);
  end(w, ready, over);
}

TEST_CASE("device: a blocking accept fails with ENOBUFS when no slot has become free within a second") {
  TestWire wire(1, 1);
  Options o = Bench::default_options();
  o.device.port = "wire0";
  auto first = std::make_unique<Bench>(o, &TestWire::open);
  Bench second(o, &TestWire::open);
  for (Bench* b : {first.get(), &second}) (*b)->services.has_relatives = [] { return true; };
  REQUIRE(first->listener() >= 0);
  REQUIRE((*first)->started());
  const int fd = second.listener();
  REQUIRE(fd >= 0);
  CHECK(second->accept4(fd, nullptr, nullptr, 0) == -ENOBUFS);
  const timeval soon{.tv_sec = 0, .tv_usec = 20'000};
  REQUIRE(second->setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0);
  CHECK(second->accept4(fd, nullptr, nullptr, 0) == -EAGAIN);
  first.reset();
  CHECK(second->accept4(fd, nullptr, nullptr, 0) == -EAGAIN);
  CHECK(second->started());
}

TEST_CASE("device: listeners come and go in threads with stacks of their own, and every connection is served or refused") {
  World w;
  std::atomic<bool> over{false};
  w.server.serve([&] {
    Loop loop(w.server);
    loop.listen(kOwn, kPort, true);
    while (!over) loop.turn();
  });
  for (int i = 0; i < 2; ++i) {
    w.server.serve([&] {
      while (!over) {
        Loop loop(w.server);
        loop.listen(kOwn, kPort, true);
        for (int turn = 0; turn < 20 && !over; ++turn) loop.turn();
      }
    });
  }
  std::atomic<int> served{0};
  for (int i = 0; i < 2; ++i) {
    w.client.start([&] {
      for (int round = 0; round < 100; ++round) {
        const int fd = w.client.bench.tcp();
        char byte = 'x';
        if (w.client.bench.connect(fd, kOwn, kPort) == 0 && w.client.bench->send(fd, &byte, 1, MSG_NOSIGNAL) == 1) {
          pollfd p{fd, POLLIN, 0};
          const timespec limit{.tv_sec = 5, .tv_nsec = 0};
          w.client.expect(w.client.bench->poll(&p, 1, &limit, nullptr) == 1);  // an answer, or a reset of who has gone
          if (w.client.bench->recv(fd, &byte, 1, 0) == 1) ++served;
        }
        w.client.expect(w.client.bench->close(fd) == 0);
      }
    });
  }
  w.client.join();
  over = true;
  w.server.join();
  CHECK(served > 0);
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

// One queue: what three of the stacks have to say goes out through the fourth.
TEST_CASE("device: a process that ends has all its stacks deliver what was written, and leave the device") {
  constexpr std::size_t kBytes = 20000;
  World w(kThreads, 1);
  std::barrier ready(kThreads + 1);
  std::atomic<int> accepted{0};
  for (int i = 0; i < kThreads; ++i) {
    w.server.start([&] {
      const int fd = Loop::make_listener(w.server, kOwn, kPort, true);
      ready.arrive_and_wait();
      while (accepted < 40) {
        pollfd p{fd, POLLIN, 0};
        const timespec moment{.tv_sec = 0, .tv_nsec = 1'000'000};
        if (w.server.bench->poll(&p, 1, &moment, nullptr) != 1) continue;
        const int served = w.server.bench->accept4(fd, nullptr, nullptr, 0);
        if (served < 0) continue;
        ++accepted;
        w.server.expect(w.server.send_all(served, std::string(kBytes, 'd')));
      }
    });
  }
  ready.arrive_and_wait();
  for (int i = 0; i < 2; ++i) {
    w.client.start([&] {
      std::array<int, 20> fds{};
      for (int& fd : fds) fd = w.client.connected(kPort);
      for (const int fd : fds) {
        w.client.expect(w.client.receive(fd, kBytes).size() == kBytes);
        w.client.expect(w.client.receive(fd, 1).empty());
        w.client.bench->close(fd);
      }
    });
  }
  w.server.join();
  CHECK(w.stacks() == kThreads);
  w.server.bench->at_exit();
  w.client.join();
  CHECK(w.wire.end(0).control().members().empty());
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

// The frames of an AF_XDP queue whose owners are killed: none is lost, none is used twice, wherever the owner
// died.
#include <sys/mman.h>
#include <sys/ptrace.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <climits>
#include <optional>
#include <set>

#include "stack/port/dpdk/af_xdp/xsk.hh"
#include "tests/port/device.hh"
#include "tests/port/wire.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

DeviceConfig large() {
  auto c = config(kXdpPort);
  c.rx_ring = c.tx_ring = 2048;  // as many as there are frames, so that each of them can be seen
  return c;
}

std::unique_ptr<Port> claim(Device& device) {
  std::unique_ptr<Port> port;
  EXPECT(within(seconds(5), [&] { return (port = device.claim(0, 3)) != nullptr; }));
  return port;
}

std::size_t receive_all(Port& port) {
  std::size_t all = 0, n = 0;
  do {
    std::array<Packet*, 64> in;
    n = port.rx(in.data(), in.size());
    port.pool().free(in.data(), n);
    all += n;
  } while (n > 0);
  return all;
}

// When everything has been received: no frame waits twice to be filled.
void expect_distinct() {
  const dpdk::Xsk& x = *dpdk::xsks().front();
  std::set<std::uint64_t> seen;
  auto fill = x.fill;
  for (std::uint32_t i = *fill.consumer; i != *fill.producer; ++i)
    EXPECT(seen.insert(*xsk_ring_prod__fill_addr(&fill, i)).second);
}

struct Count {
  std::size_t receive = 0, send = 0;
  bool operator==(const Count&) const = default;
};

// By use: so many frames the kernel can receive before anybody reads, and so many can be handed to an
// interface that is down.
Count count(Device& device) {
  auto* shared =
      static_cast<Count*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Process p([&](Process&) {
    const int fd = packet_socket("peer");
    const auto port = claim(device);
    (void)receive_all(*port);
    const std::string f = raw_frame("count");
    for (int i = 0; i < 3000; ++i) EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
    EXPECT(within(seconds(2), [&] { return port->status().rx_dropped > 0; }));
    shared->receive = receive_all(*port);
    expect_distinct();
    run("ip link set ours down");
    std::size_t taken = 0;
    do {
      std::array<Packet*, 16> burst;
      for (Packet*& q : burst) q = make_frame(port->pool(), "count");
      taken = port->tx(burst.data(), burst.size());
      port->pool().free(burst.data() + taken, burst.size() - taken);
      shared->send += taken;
    } while (taken > 0);
    run("ip link set ours up");
    EXPECT(within(seconds(5), [&] {
      port->service(now());
      return port->max_sleep() > seconds(1);
    }));
  });
  EXPECT(p.join() == 0);
  const Count result = *shared;
  munmap(shared, 4096);
  return result;
}

void expect_same(const Count& before, const Count& after) {
  if (!(after == before))
    fprintf(stderr, "receive %zu, send %zu; then %zu, %zu\n", before.receive, before.send, after.receive,
            after.send);
  EXPECT(after == before);
}

}  // namespace

TEST_CASE("after 50 owners of an af_xdp queue were killed in the midst of traffic all frames are there") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(large());
    const Count before = count(*device);
    EXPECT(before.receive == 2048 && before.send == 2048);
    const auto open = descriptors();
    for (int life = 0; life < 50; ++life) {
      const std::string text = "life " + std::to_string(life);
      const std::string f = raw_frame(text);
      Process child([&](Process& parent) {
        const auto port = claim(*device);
        EXPECT(port->pool().available() == port->pool().capacity());
        parent.tell();
        EXPECT(within(seconds(2), [&] { return receive(*port, text); }));
        // What its predecessor left in the ring is in front of it, and may be more than the kernel's socket
        // takes.
        while (!parent.told()) (void)mtcp::test::send(*port, text);
        Packet* lost[100];
        EXPECT(port->pool().alloc(lost, 100) == 100);
        while (true) {
          (void)receive(*port, text);
          std::array<Packet*, 16> burst;
          for (Packet*& q : burst) q = make_frame(port->pool(), "more");
          const std::size_t taken = port->tx(burst.data(), burst.size());
          port->pool().free(burst.data() + taken, burst.size() - taken);
        }
      });
      EXPECT(child.wait());
      EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
      EXPECT(within(seconds(2), [&] { return kernel_receives(fd, text); }));
      child.tell();
      const Time end = now() + std::chrono::microseconds(100 + life * 37);
      while (now() < end) (void)::send(fd, f.data(), f.size(), 0);
      child.kill_hard();
      char frame[64];
      while (recv(fd, frame, sizeof frame, 0) > 0) {
      }
    }
    EXPECT(descriptors() == open);
    expect_same(before, count(*device));
  });
  CHECK(p.join() == 0);
}

// Two instructions between which the test below may never end a process.
TEST_CASE(
    "frames that a dead owner had given back, but not yet taken out of the ring, are not given back twice") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(large());
    const Count before = count(*device);
    const std::string f = raw_frame("given back");
    for (int i = 0; i < 5; ++i) EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
    Process child([&](Process& parent) {
      const auto port = claim(*device);
      dpdk::Xsk& x = *dpdk::xsks().front();
      const std::uint32_t from = *x.rx.consumer, to = *x.fill.producer;
      EXPECT(within(seconds(1), [&] { return *x.rx.producer - from == 5; }));
      for (std::uint32_t i = 0; i < 5; ++i)
        *xsk_ring_prod__fill_addr(&x.fill, to + i) =
            xsk_umem__extract_addr(xsk_ring_cons__rx_desc(&x.rx, from + i)->addr);
      std::atomic_ref(*x.fill.producer).store(to + 5);
      parent.tell();
      while (true) pause();
    });
    EXPECT(child.wait());
    child.kill_hard();
    expect_same(before, count(*device));
  });
  CHECK(p.join() == 0);
}

// Each life receives three frames and sends three, and ends a few instructions later than the one before it;
// where the first ends is another place in each run, or what MTCP_SEED says.
TEST_CASE("an owner of an af_xdp queue that dies after any instruction leaves all frames behind") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(large());
    const Count before = count(*device);
    const std::string f = raw_frame("step");
    // How many instructions it took, if it came to its end before `most`.
    const auto live = [&](int most) -> std::optional<int> {
      for (int i = 0; i < 3; ++i) EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
      Process child([&](Process& parent) {
        const auto port = claim(*device);
        std::array<Packet*, 3> out, in;
        for (Packet*& q : out) q = make_frame(port->pool(), "step");
        EXPECT(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
        raise(SIGSTOP);
        const std::size_t n = port->rx(in.data(), in.size());
        const std::size_t sent = port->tx(out.data(), out.size());
        _exit(n <= 3 && sent == 3 ? 0 : 1);
        (void)parent;
      });
      int status = 0;
      EXPECT(waitpid(child.pid(), &status, 0) == child.pid() && WIFSTOPPED(status));
      for (int i = 0; i < most; ++i) {
        EXPECT(ptrace(PTRACE_SINGLESTEP, child.pid(), 0, 0) == 0);
        EXPECT(waitpid(child.pid(), &status, 0) == child.pid());
        if (!WIFEXITED(status)) continue;
        EXPECT(WEXITSTATUS(status) == 0);
        return i;
      }
      child.kill_hard();
      return std::nullopt;
    };
    // All lives together take half of the square of that; where nothing is optimised there are several times as many.
    constexpr int kLeast = 11, kMostInAll = 200'000;
    const int whole = live(INT_MAX).value_or(0);
    const int stride = std::max(kLeast, whole / 2 * whole / kMostInAll);
    const char* seed = getenv("MTCP_SEED");
    const int first = (seed != nullptr ? atoi(seed) : getpid()) % stride;
    fprintf(stderr, "MTCP_SEED=%d\n", first);
    int lives = 0;
    for (int steps = first; !live(steps); steps += stride, ++lives)
      if (lives % 64 == 63) expect_same(before, count(*device));
    EXPECT(lives > 30);
    expect_same(before, count(*device));
  });
  CHECK(p.join() == 0);
}

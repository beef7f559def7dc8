// How fast the wire is: one process sends, the other receives, a core each; then a round trip by polling.
// Usage: port_memif_bench [seconds] [huge pages: -1 automatic, 0 off]. Numbers only, nothing is asserted.
#include <sched.h>
#include <stdio.h>

#include <algorithm>
#include <vector>

#include "perf/number.hh"
#include "tests/port/device.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

constexpr std::size_t kBurst = 32;

void pin(int nth) {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cpus) || nth-- > 0) continue;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    return;
  }
}

std::unique_ptr<Device> open_end(const char* role, int hugepages) {
  auto c = config(std::string("net_memif0,socket=mtcp-bench-") + std::to_string(getppid()) + ",role=" + role,
                  16384);
  c.hugepages = hugepages;
  return open_or_die(c);
}

void wait_for_link(Port& port) {
  Packet* in[kBurst];
  EXPECT(within(seconds(10), [&] {
    port.service(now());
    port.pool().free(in, port.rx(in, kBurst));
    return port.link_up();
  }));
}

// Sends frames of `size` bytes as fast as they are taken; with `keep` the same packets again and again, as
// for retransmission.
void blast(Port& port, std::uint32_t size, bool keep, double limit) {
  Packet* out[kBurst];
  std::vector<Packet*> kept(kBurst);
  if (keep) EXPECT(port.pool().alloc(kept.data(), kBurst) == kBurst);
  const Time end = now() + Duration(static_cast<std::int64_t>(limit * 1e9));
  for (std::size_t turn = 0; turn % 64 != 0 || now() < end; ++turn) {
    if (turn % 1024 == 0) port.service(now());
    std::size_t n = kBurst;
    if (keep)
      std::copy(kept.begin(), kept.end(), out);
    else
      n = port.pool().alloc(out, kBurst);
    for (std::size_t i = 0; i < n; ++i) {
      out[i]->len = size;
      out[i]->flags = keep ? kKeep : 0;
      out[i]->data[12] = std::byte{0x88};
      out[i]->data[13] = std::byte{0xb5};
    }
    const std::size_t sent = port.tx(out, n);
    if (!keep && sent < n) port.pool().free(out + sent, n - sent);
  }
  if (keep) port.pool().free(kept.data(), kBurst);
}

void count(Port& port, std::uint32_t size, const char* what, double limit) {
  Packet* in[kBurst];
  std::uint64_t packets = 0;
  Time first{}, last{};
  const Time end = now() + Duration(static_cast<std::int64_t>((limit + 0.5) * 1e9));
  for (std::size_t turn = 0; turn % 64 != 0 || now() < end; ++turn) {
    if (turn % 1024 == 0) port.service(now());
    const std::size_t n = port.rx(in, kBurst);
    if (n == 0) continue;
    if (packets == 0) first = now();
    packets += n;
    if (turn % 64 == 0) last = now();
    port.pool().free(in, n);
  }
  const double t = std::chrono::duration<double>(last - first).count();
  printf("%-28s %7.2f Mpps %7.2f GB/s\n", what, static_cast<double>(packets) / t * 1e-6,
         static_cast<double>(packets) * size / t * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  const auto limit = argc > 1 ? mtcp::perf::number<double>(argv[1], 0.001, 3600) : 1.0;
  const auto huge = argc > 2 ? mtcp::perf::number<int>(argv[2], -1, 1) : -1;
  if (!limit || !huge) {
    fprintf(stderr, "usage: memif_bench [SECONDS [-1|0|1]]\n");
    return 2;
  }
  struct Case {
    std::uint32_t size;
    bool keep;
    const char* name;
  };
  const Case cases[] = {
      {64, false, "64 B"}, {1500, false, "1500 B"}, {1500, true, "1500 B, kept by the sender"}};
  Process sender([&](Process& parent) {
    pin(1);
    const auto device = open_end("client", *huge);
    const auto port = device->claim(0, 1);
    wait_for_link(*port);
    for (const Case& c : cases) {
      EXPECT(parent.wait());
      blast(*port, c.size, c.keep, *limit);
      const Time end = now() + milliseconds(500);
      while (now() < end) port->service(now());
    }
    while (!parent.told())
      if (receive(*port, "ping")) (void)mtcp::test::send(*port, "pong");
  });
  Process receiver([&](Process& parent) {
    pin(0);
    const auto device = open_end("server", *huge);
    const auto port = device->claim(0, 1);
    wait_for_link(*port);
    for (const Case& c : cases) {
      parent.tell();
      count(*port, c.size, c.name, *limit);
    }
    parent.tell();
    std::vector<double> trips;
    for (int i = 0; i < 20000; ++i) {
      const Time start = now();
      EXPECT(mtcp::test::send(*port, "ping"));
      EXPECT(within(seconds(1), [&] { return receive(*port, "pong"); }));
      trips.push_back(std::chrono::duration<double, std::micro>(now() - start).count());
    }
    std::ranges::sort(trips);
    printf("round trip by polling        %7.2f us median, %.2f us at 99 %%\n", trips[trips.size() / 2],
           trips[trips.size() * 99 / 100]);
  });
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    if (!receiver.wait()) return 1;
    sender.tell();
  }
  if (!receiver.wait()) return 1;
  const int result = receiver.join();
  sender.tell();
  return result + sender.join();
}

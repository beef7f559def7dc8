// Whether a card spreads flows by the hash that steering computes: opens it with its queues, and says of each TCP
// segment that comes in whether it is on the queue of its hash, and whether the card's own hash, if it tells it, is
// ours. "spread_probe PCI-ADDRESS QUEUES SEGMENTS"; prints the card's MAC address, and at the end (20 s at most)
// "queues=N,N agree=N differ=N hash_agrees=N hash_differs=N".
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <array>
#include <memory>
#include <vector>

#include "stack/port/device.hh"
#include "stack/steering/flow_hash.hh"

using namespace mtcp::stack;

namespace {

Time now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Time(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

struct Tally {
  unsigned agree = 0, differ = 0, hash_agrees = 0, hash_differs = 0;
};

// The number of TCP segments on that queue.
unsigned look(Port& port, std::uint32_t queue, std::uint32_t queues, const FlowHash& hash, Tally& tally) {
  std::array<Packet*, 32> burst;
  port.service(now());
  const std::size_t n = port.rx(burst.data(), burst.size());
  unsigned segments = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const Packet& p = *burst[i];
    const FrameKind kind = classify(p.bytes(), hash);
    if (!kind.tcp) continue;
    ++segments;
    // DpdkDevice::spread(), in a table whose size is a power of two, as the number of queues is.
    ++(kind.hash % queues == queue ? tally.agree : tally.differ);
    if ((p.flags & kRxHash) != 0) ++(kind.hash == p.payload_sum ? tally.hash_agrees : tally.hash_differs);
  }
  port.pool().free(burst.data(), n);
  return segments;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return fprintf(stderr, "usage: spread_probe PCI-ADDRESS QUEUES SEGMENTS\n"), 2;
  DeviceConfig config;
  config.port = argv[1];
  config.queues = static_cast<std::uint32_t>(atoi(argv[2]));
  config.packets = 2048;
  config.rx_ring = config.tx_ring = 512;
  std::string message;
  const auto device = open_device(config, message);
  if (device == nullptr) return fprintf(stderr, "%s\n", message.c_str()), 1;
  std::vector<std::unique_ptr<Port>> ports;
  for (std::uint32_t q = 0; q < config.queues; ++q) ports.push_back(device->claim(q, q));
  const MacAddress mac = ports[0]->mac();
  for (std::size_t i = 0; i < mac.bytes.size(); ++i)
    printf("%s%02x", i == 0 ? "" : ":", unsigned{mac.bytes[i]});
  printf("\n");
  fflush(stdout);
  const FlowHash hash(FlowHash::make_key(*device->secrets()));
  std::vector<unsigned> segments(config.queues);
  Tally tally;
  const Time end = now() + seconds(20);
  while (tally.agree + tally.differ < static_cast<unsigned>(atoi(argv[3])) && now() < end)
    for (std::uint32_t q = 0; q < config.queues; ++q)
      segments[q] += look(*ports[q], q, config.queues, hash, tally);
  printf("queues=");
  for (std::uint32_t q = 0; q < config.queues; ++q) printf("%s%u", q == 0 ? "" : ",", segments[q]);
  printf(" agree=%u differ=%u hash_agrees=%u hash_differs=%u\n", tally.agree, tally.differ, tally.hash_agrees,
         tally.hash_differs);
  return 0;
}

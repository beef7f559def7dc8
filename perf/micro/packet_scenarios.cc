// Single packets to a server that answers them: SYNs, cookies, refusals, ARP.
#include <cstring>
#include <memory>

#include "perf/micro/meter.hh"
#include "perf/micro/scenarios.hh"
#include "perf/micro/two_ends.hh"

namespace mtcp::perf {
namespace {

constexpr std::size_t kBurst = 32;
constexpr std::uint64_t kBursts = 64;

// The server answers, and nobody reads it.
void discard(MemoryPort& port) {
  stack::Packet* packets[kBurst];
  while (const std::size_t n = port.rx(packets, kBurst)) port.pool().free(packets, n);
}

void turn(End& end, stack::Time t) {
  end.worker.poll(t);
  end.worker.flush(t);
}

// SYNs to `port`, as many as answers; counted is what the server does.
std::uint64_t syns(std::uint32_t backlog, std::uint16_t port, stack::Counter answered) {
  stack::Time t = stack::Time{} + stack::seconds(1);
  auto ends = std::make_unique<TwoEnds>(t);
  if (!ends->listen(backlog)) return 0;
  // The neighbours get to know each other, by what is refused; then the backlog is full where it is short.
  if (ends->connect(t, kPort + 1) == nullptr) return 0;
  for (int i = 0; i < 4; i++) {
    turn(ends->client, t);
    turn(ends->server, t);
  }
  if (ends->connect(t, port) == nullptr) return 0;
  ends->client.worker.flush(t);
  turn(ends->server, t);
  discard(ends->client.port);
  const Meter meter;
  const std::uint64_t before = ends->server.stats.get(answered);
  for (std::uint64_t i = 0; i < kBursts; i++) {
    for (std::size_t n = 0; n < kBurst; n++)
      if (ends->connect(t, port) == nullptr) return 0;
    ends->client.worker.flush(t);
    {
      const Count count;
      turn(ends->server, t);
    }
    discard(ends->client.port);
    t += stack::microseconds(100);
  }
  const bool all = ends->server.stats.get(answered) == before + kBursts * kBurst;
  return all ? kBursts * kBurst : 0;
}

// A host asks for the server's address.
std::uint64_t arp_requests() {
  constexpr std::uint64_t kNumber = 1000;
  // Ethernet, Ethernet and IPv4, request; sender 10.0.0.2, target 10.0.0.1.
  constexpr std::uint8_t kRequest[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1,
                                         2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1};
  stack::Time t = stack::Time{} + stack::seconds(1);
  auto ends = std::make_unique<TwoEnds>(t);
  const Meter meter;
  for (std::uint64_t i = 0; i < kNumber; i++) {
    stack::Packet* p = nullptr;
    if (ends->pool.alloc(&p, 1) == 0) return 0;
    std::memcpy(p->data, kRequest, sizeof kRequest);
    p->len = sizeof kRequest;
    if (ends->client.port.tx(&p, 1) == 0) return 0;
    t += stack::milliseconds(20);  // replies are limited
    {
      const Count count;
      turn(ends->server, t);
    }
    discard(ends->client.port);
  }
  return ends->server.stats.get(stack::Counter::arp_replies_sent) >= kNumber ? kNumber : 0;
}

constexpr Scenario kScenarios[] = {
    {"syn", "a SYN is answered, the connection half open", [] { return syns(65535, kPort, stack::Counter::segments_sent); }},
    {"syn-cookie", "a SYN is answered by a cookie", [] { return syns(1, kPort, stack::Counter::syn_cookies_sent); }},
    {"refused", "a segment that belongs to nothing is answered by a reset", [] { return syns(1, kPort + 1, stack::Counter::resets_sent); }},
    {"arp", "a neighbour's request for our address is answered", arp_requests},
};

}  // namespace

std::span<const Scenario> packet_scenarios() { return kScenarios; }

}  // namespace mtcp::perf

// A server with several stacks on one end of a wire, and a client at the other, for tests of what threads do on a device.
#pragma once

#include <array>
#include <barrier>
#include <catch2/catch.hpp>
#include <functional>
#include <string>

#include "tests/intercept/loop.hh"
#include "tests/intercept/wired_device.hh"

namespace mtcp::intercept::testing {

inline constexpr int kThreads = 4;
inline constexpr std::uint16_t kPort = 7801;
inline constexpr const char* kPeer = "10.77.0.9";

inline Options on_wire(const char* end, std::uint32_t stacks) {
  Options o = with_service_thread();
  o.device.port = end;
  o.stacks = stacks;
  if (std::string(end) == "wire1") o.stack.interface.addresses = {{stack::IpAddress::v4(10, 77, 0, 9), 120}};
  return o;
}

// A server at one end and a client at the other.
struct World {
  explicit World(std::uint32_t stacks = kThreads, std::uint32_t queues = 2, std::uint32_t slots = 8) : World(on_wire("wire0", stacks), queues, slots) {}
  explicit World(const Options& options, std::uint32_t queues = 2, std::uint32_t slots = 8) : wire(queues, slots), server(options, &TestWire::open) {}
  ~World() {
    server.join();
    client.join();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Connections that four messages are answered on, from `threads` threads of the client.
  void talk(int threads, int rounds) {
    for (int i = 0; i < threads; ++i) {
      client.start([this, rounds] {
        Loop loop(client);
        for (int round = 0; round < rounds; ++round) {
          loop.connect(kPort);
          for (const int before = loop.answers; loop.answers < before + 4;) loop.turn();
        }
      });
    }
    client.join();
  }
  // Of the server.
  [[nodiscard]] std::uint64_t counted(unsigned shard, stack::Counter counter) { return server.bench->shards[shard].instance->stats().get(counter); }
  [[nodiscard]] std::uint64_t accepted_by(unsigned shard) { return counted(shard, stack::Counter::passive_opens); }
  [[nodiscard]] int stacks() {
    int n = 0;
    server.bench->shards.for_each([&n](const Shard& s) { n += s.instance != nullptr ? 1 : 0; });
    return n;
  }

  TestWire wire;
  Threads server, client{on_wire("wire1", 1), &TestWire::open};
};

// Threads that serve until `over`.
inline void serve(World& w, std::barrier<>& ready, const std::atomic<bool>& over, const std::function<void(Loop&, int)>& begin, int threads = kThreads) {
  for (int i = 0; i < threads; ++i) {
    w.server.serve([&w, &ready, &over, begin, i] {
      Loop loop(w.server);
      begin(loop, i);
      ready.arrive_and_wait();
      while (!over) loop.turn();
      ready.arrive_and_wait();  // else one that has ended leaves its stack to the others
    });
  }
}

inline void end(World& w, std::barrier<>& ready, std::atomic<bool>& over) {
  over = true;
  ready.arrive_and_wait();
  w.server.join();
  CHECK(w.server.mistakes == 0);
  CHECK(w.client.mistakes == 0);
}

}  // namespace mtcp::intercept::testing

// What single parts of the stack cost, in nanoseconds: checksum, flow table, packet cache, timer wheel.
#include <array>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "perf/micro/flow_keys.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/checksum.hh"

namespace mtcp::perf {
namespace {

using Clock = std::chrono::steady_clock;

// Keeps the compiler from dropping a result.
template <typename T>
void keep(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

// The best of several tries: what disturbs can only make it slower.
template <typename Work>
double best_ns(std::size_t operations, Work&& work) {
  double best = 1e18;
  for (int round = 0; round < 7; round++) {
    const auto start = Clock::now();
    work();
    best = std::min(best, std::chrono::duration<double, std::nano>(Clock::now() - start).count());
  }
  return best / static_cast<double>(operations);
}

void checksum() {
  std::vector<std::byte> from(65536, std::byte{0x5a}), to(65536);
  for (const std::size_t size : {40U, 64U, 576U, 1448U, 8192U}) {
    constexpr std::size_t kTimes = 20000;
    const double sum = best_ns(kTimes, [&] {
      for (std::size_t i = 0; i < kTimes; i++) keep(stack::partial_sum(from.data() + i % 64, size));
    });
    const double copy = best_ns(kTimes, [&] {
      for (std::size_t i = 0; i < kTimes; i++)
        keep(stack::copy_and_sum(to.data(), from.data() + i % 64, size));
    });
    std::printf("checksum %5zu B: %7.1f ns, %5.1f GB/s; with a copy %7.1f ns, %5.1f GB/s\n", size, sum,
                static_cast<double>(size) / sum, copy, static_cast<double>(size) / copy);
  }
}

void flow_table() {
  for (const std::uint32_t flows : {1000U, 10000U, 100000U, 1000000U}) {
    stack::FlowTable table({1, 2});
    std::vector<stack::FlowKey> keys(flows);
    for (std::uint32_t i = 0; i < flows; i++) {
      keys[i] = key_of(i);
      if (!table.insert(table.hash(keys[i]), {stack::FlowRef::Kind::connection, i})) return;
    }
    std::mt19937 random(1);
    std::vector<std::uint32_t> order(100000);
    for (auto& o : order) o = static_cast<std::uint32_t>(random() % flows);
    const double find = best_ns(order.size(), [&] {
      for (const std::uint32_t i : order) {
        keep(table.find(table.hash(keys[i]), [&](stack::FlowRef r) { return keys[r.index()] == keys[i]; }));
      }
    });
    const double hash = best_ns(order.size(), [&] {
      for (const std::uint32_t i : order) keep(table.hash(keys[i % 1000]));
    });
    const double churn = best_ns(order.size(), [&] {
      for (const std::uint32_t i : order) {
        const std::uint32_t h = table.hash(keys[i]);
        table.erase(h, {stack::FlowRef::Kind::connection, i});
        keep(table.insert(h, {stack::FlowRef::Kind::connection, i}));
      }
    });
    std::printf("flow table %7u flows: find %6.1f ns (hash %.1f ns of it), erase and insert %6.1f ns\n",
                flows, find, hash, churn);
  }
}

void packet_cache() {
  stack::HeapPool pool(65536);
  stack::PacketCache cache(pool);
  std::array<stack::Packet*, 32> burst{};
  constexpr std::size_t kTimes = 20000;
  const double pair = best_ns(kTimes * burst.size(), [&] {
    for (std::size_t i = 0; i < kTimes; i++) {
      for (auto& p : burst) p = cache.alloc();
      for (auto& p : burst) cache.free(p);
    }
  });
  std::printf("packet cache: %.1f ns for alloc and free, in bursts of %zu\n", pair, burst.size());
}

void wheel() {
  constexpr std::size_t kTimers = 100000;
  std::vector<stack::TimerNode> nodes(kTimers);
  stack::Time now{};
  stack::TimerWheel timers(now);
  const double arm = best_ns(kTimers, [&] {
    for (std::size_t i = 0; i < kTimers; i++) timers.arm(nodes[i], now + stack::milliseconds(200 + i % 64));
  });
  const double cancel = best_ns(kTimers, [&] {
    for (auto& n : nodes) {
      timers.arm(n, now + stack::milliseconds(200));
      timers.cancel(n);
    }
  });
  const double idle = best_ns(10000, [&] {
    for (int i = 0; i < 10000; i++) {
      now += stack::microseconds(5);
      keep(timers.expire(now));
    }
  });
  std::printf("timer wheel: arm %.1f ns, arm and cancel %.1f ns, a turn with nothing due %.1f ns\n", arm,
              cancel, idle);
  const double fire = best_ns(kTimers, [&] {
    for (std::size_t i = 0; i < kTimers; i++) timers.arm(nodes[i], now + stack::milliseconds(1 + i % 100));
    now += stack::milliseconds(200);
    while (timers.expire(now) != nullptr) {
    }
  });
  std::printf("timer wheel: arm and fire %.1f ns\n", fire);
}

}  // namespace
}  // namespace mtcp::perf

int main() {
  mtcp::perf::checksum();
  mtcp::perf::flow_table();
  mtcp::perf::packet_cache();
  mtcp::perf::wheel();
  return 0;
}

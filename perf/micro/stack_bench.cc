// What the stack itself costs: two Workers in one thread over a wire of memory, without device, descriptors
// or libc.
//   stack_bench conn [CONCURRENCY [SECONDS]]   short connections, 64 bytes there and back; ns per connection,
//   both ends stack_bench bulk [CONNECTIONS [SECONDS]]   one direction as fast as it goes; GB/s, ns per
//   frame, both ends
#include <chrono>
#include <cstdio>
#include <memory>
#include <string_view>

#include "perf/micro/loads.hh"
#include "perf/number.hh"

namespace mtcp::perf {
namespace {

using Clock = std::chrono::steady_clock;

stack::Time now() {
  return stack::Time(std::chrono::duration_cast<stack::Duration>(Clock::now().time_since_epoch()));
}

void print_counters(const char* title, const stack::Stats& stats) {
  std::printf("%s:", title);
  for (std::size_t i = 0; i < static_cast<std::size_t>(stack::Counter::count_); i++) {
    const auto counter = static_cast<stack::Counter>(i);
    if (stats.get(counter) != 0) {
      std::printf(" %s=%llu", stack::Stats::info(counter).name,
                  static_cast<unsigned long long>(stats.get(counter)));
    }
  }
  std::printf("\n");
}

struct Measured {
  double seconds, done, frames, turns;
};

// Turns of the load: some that are not counted, then as many as there is time for. `done()`: what it has done
// so far.
template <typename Load, typename Done>
Measured measure(Load& load, TwoEnds& ends, double length, Done&& done) {
  const auto warm = Clock::now() + std::chrono::milliseconds(200);
  const auto end = warm + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(length));
  const auto frames = [&] { return ends.server.port.frames() + ends.client.port.frames(); };
  std::uint64_t before = 0, frames_before = 0, turns = 0;
  bool counting = false;
  auto counted_from = warm;
  for (;;) {
    const auto wall = Clock::now();
    if (!counting && wall >= warm) {
      counting = true;
      before = done();
      frames_before = frames();
      counted_from = wall;
      turns = 0;
    }
    if (wall >= end) {
      return {std::chrono::duration<double>(wall - counted_from).count(),
              static_cast<double>(done() - before), static_cast<double>(frames() - frames_before),
              static_cast<double>(turns)};
    }
    const auto t = stack::Time(std::chrono::duration_cast<stack::Duration>(wall.time_since_epoch()));
    load.ask(t);
    load.serve(t);
    turns++;
  }
}

void run(ShortConnections& load, TwoEnds& ends, double length) {
  const auto m = measure(load, ends, length, [&] { return load.done(); });
  std::printf(
      "conn: %.0f connections/s, %.0f ns per connection (both ends), %.1f frames per connection, %.1f "
      "connections per turn, %llu failed\n",
      m.done / m.seconds, m.seconds / m.done * 1e9, m.frames / m.done, m.done / m.turns,
      static_cast<unsigned long long>(ends.failed));
}

void run(Bulk& load, TwoEnds& ends, double length) {
  load.open(now());
  const auto m = measure(load, ends, length, [&] { return load.received(); });
  std::printf(
      "bulk: %.2f GB/s, %.0f ns per frame (both ends, ACKs counted), %.0f bytes per frame, %llu failed\n",
      m.done / m.seconds / 1e9, m.seconds / m.frames * 1e9, m.done / m.frames,
      static_cast<unsigned long long>(ends.failed));
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  using mtcp::perf::number;
  const auto connections = argc > 2 ? number<unsigned>(argv[2], 1, 1'000'000) : mode == "conn" ? 64U : 4U;
  const auto seconds = argc > 3 ? number<double>(argv[3], 0.001, 86400) : 2.0;
  if ((mode != "conn" && mode != "bulk") || argc > 4 || !connections || !seconds) {
    std::fprintf(stderr, "usage: stack_bench conn|bulk [CONNECTIONS [SECONDS]]\n");
    return 2;
  }
  auto ends = std::make_unique<mtcp::perf::TwoEnds>(mtcp::perf::now());
  if (!ends->listen()) {
    std::fprintf(stderr, "stack_bench: listen failed\n");
    return 1;
  }
  if (mode == "conn") {
    mtcp::perf::ShortConnections load(*ends, *connections);
    mtcp::perf::run(load, *ends, *seconds);
  } else {
    mtcp::perf::Bulk load(*ends, *connections, 256 * 1024);
    mtcp::perf::run(load, *ends, *seconds);
  }
  mtcp::perf::print_counters("server", ends->server.stats);
  mtcp::perf::print_counters("client", ends->client.stats);
  return ends->failed == 0 ? 0 : 1;
}

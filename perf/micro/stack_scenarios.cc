// Two stacks on a wire of memory: connections and transfers, as a client and a server have them.
#include <memory>

#include "perf/micro/loads.hh"
#include "perf/micro/meter.hh"
#include "perf/micro/scenarios.hh"

namespace mtcp::perf {
namespace {

constexpr stack::Duration kTurn = stack::microseconds(50);
constexpr int kPatience = 200'000;  // turns
constexpr std::uint64_t kMegabyte = 1'000'000;

enum Part : unsigned { kClientPart = 1, kServerPart = 2, kBoth = 3 };

// The ends and their clock.
struct World {
  stack::Time t = stack::Time{} + stack::seconds(1);
  TwoEnds ends{t};
  World() {
    if (!ends.listen()) ends.failed++;
  }
  // Turns of `load` until `done()`; what `parts` do is counted. False: something failed, or it takes too long.
  template <typename Load, typename Done>
  bool run(Load& load, unsigned parts, Done&& done) {
    for (int i = 0; i < kPatience && ends.failed == 0; i++) {
      if (done()) return true;
      t += kTurn;
      {
        const Count count((parts & kClientPart) != 0);
        load.ask(t);
      }
      const Count count((parts & kServerPart) != 0);
      load.serve(t);
    }
    return false;
  }
};

std::uint64_t short_connections(unsigned parts, unsigned concurrency, std::uint64_t number) {
  auto w = std::make_unique<World>();
  ShortConnections load(w->ends, concurrency);
  if (!w->run(load, 0, [&] { return load.done() >= 2 * std::uint64_t{concurrency}; })) return 0;
  const Meter meter;
  const std::uint64_t before = load.done();
  if (!w->run(load, parts, [&] { return load.done() >= before + number; })) return 0;
  return load.done() - before;
}

std::uint64_t kept_connections(unsigned connections, std::size_t request, std::size_t answer, std::uint64_t number) {
  auto w = std::make_unique<World>();
  KeptConnections load(w->ends, connections, request, answer);
  const auto opened = [&] {
    load.open(w->t);
    return load.all_open();
  };
  if (!w->run(load, 0, opened)) return 0;
  if (!w->run(load, 0, [&] { return load.done() >= connections; })) return 0;
  const Meter meter;
  const std::uint64_t before = load.done();
  if (!w->run(load, kBoth, [&] { return load.done() >= before + number; })) return 0;
  return load.done() - before;
}

std::uint64_t bulk(unsigned parts, std::uint64_t megabytes) {
  auto w = std::make_unique<World>();
  Bulk load(w->ends, 1, 256 * 1024);
  load.open(w->t);
  if (!w->run(load, 0, [&] { return load.received() >= 4 * kMegabyte; })) return 0;
  const Meter meter;
  const std::uint64_t before = load.received();
  if (!w->run(load, parts, [&] { return load.received() >= before + megabytes * kMegabyte; })) return 0;
  return megabytes;
}

// `lost`: one of so many data frames, but of the last megabyte none. Just so much is sent as is counted: what is in flight behind a hole
// at the end would be work without a result, and how much that is depends on chance.
std::uint64_t lossy_bulk(std::uint64_t megabytes, unsigned lost) {
  constexpr std::uint64_t kFirst = 4 * kMegabyte;
  auto w = std::make_unique<World>();
  Bulk load(w->ends, 1, 256 * 1024);
  load.allow(kFirst, w->t);
  load.open(w->t);
  const auto reach = [&](unsigned parts, std::uint64_t bytes) { return w->run(load, parts, [&] { return load.received() >= bytes; }); };
  if (!reach(0, kFirst)) return 0;
  const std::uint64_t all = kFirst + megabytes * kMegabyte;
  w->ends.client.port.lose_one_of(lost);
  const Meter meter;
  {
    const Count count(true);
    load.allow(all - kFirst, w->t);
  }
  if (!reach(kBoth, all - kMegabyte)) return 0;
  w->ends.client.port.lose_one_of(0);
  return reach(kBoth, all) ? megabytes : 0;
}

constexpr Scenario kScenarios[] = {
    {"short-client", "a short connection, 64 bytes there and back: the client's part", [] { return short_connections(kClientPart, 64, 2000); }},
    {"short-server", "the same: the server's part", [] { return short_connections(kServerPart, 64, 2000); }},
    {"short-8000", "the same, 8,000 at a time: both ends", [] { return short_connections(kBoth, 8000, 8000); }},
    {"message-1", "a request of 64 bytes and its answer on a connection that stays: both ends", [] { return kept_connections(1, 64, 64, 2000); }},
    {"message-1024", "the same, on 1,024 connections in turn", [] { return kept_connections(1024, 64, 64, 4096); }},
    {"message-8000", "the same, on 8,000 connections in turn", [] { return kept_connections(8000, 64, 64, 8000); }},
    {"keep-alive", "a request of 100 bytes, an answer of 8 KB, on 64 connections: both ends", [] { return kept_connections(64, 100, 8192, 2000); }},
    {"send", "1 MB is sent: the sender's part", [] { return bulk(kClientPart, 20); }},
    {"receive", "1 MB is received: the receiver's part", [] { return bulk(kServerPart, 20); }},
    {"loss", "1 MB with one of 50 segments lost: SACK, recovery, reassembly; both ends", [] { return lossy_bulk(10, 50); }},
};

}  // namespace

std::span<const Scenario> stack_scenarios() { return kScenarios; }

}  // namespace mtcp::perf

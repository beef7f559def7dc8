// What the stack itself costs: two Workers in one thread over a wire of memory, without device, descriptors
// or libc.
//   stack_bench conn [CONCURRENCY [SECONDS]]   short connections, 64 bytes there and back; ns per connection,
//   both ends stack_bench bulk [CONNECTIONS [SECONDS]]   one direction as fast as it goes; GB/s, ns per
//   frame, both ends
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "perf/micro/memory_wire.hh"
#include "perf/number.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/worker.hh"

namespace mtcp::perf {
namespace {

using Clock = std::chrono::steady_clock;
using stack::Connection;
using stack::SocketBase;

constexpr std::uint16_t kPort = 9000;
constexpr std::size_t kMessage = 64;
const stack::IpAddress kServer = stack::IpAddress::v4(10, 0, 0, 1),
                       kClient = stack::IpAddress::v4(10, 0, 0, 2);

stack::Options options_for(const stack::IpAddress& address) {
  stack::Options o;
  o.interface.addresses.push_back({address, 96 + 24});
  o.tcp.ip_local_port_first = 1024;
  o.tcp.ip_local_port_last = 65535;
  o.tcp.max_connections = 65536;
  return o;
}

stack::Time now() {
  return stack::Time(std::chrono::duration_cast<stack::Duration>(Clock::now().time_since_epoch()));
}

struct End {
  End(stack::PacketPool& pool, const stack::IpAddress& address, std::uint8_t number)
      : options(options_for(address)),
        port(pool, number),
        worker(options, &port, pool, stats, stack::Secrets{.key = {number, 2, 3, 4}}, now()) {}
  stack::Options options;
  MemoryPort port;
  stack::Stats stats;
  stack::Worker worker;
};

struct Bench {
  Bench() { server.port.join(client.port); }
  stack::HeapPool pool{1U << 18};
  End server{pool, kServer, 1};
  End client{pool, kClient, 2};
  stack::Listener* listener = nullptr;
  std::uint64_t failed = 0;
  int marker = 0;  // what `user` points to: the application has the socket

  bool listen() {
    stack::Worker::ListenOptions o;
    o.backlog = 65535;
    auto result = server.worker.listen({kServer, kPort}, o);
    if (!result) return false;
    listener = *result;
    listener->user = &marker;
    return true;
  }
  Connection* connect(stack::Time t) {
    auto result = client.worker.connect({stack::IpAddress::any_v4(), 0}, {kServer, kPort}, {}, t);
    if (!result) return nullptr;
    (*result)->user = &marker;
    return *result;
  }
  Connection* accept() {
    Connection* c = server.worker.accept(*listener);
    if (c != nullptr) c->user = &marker;
    return c;
  }
};

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

// --- short connections, as msg_server and msg_client

class ShortConnections {
 public:
  ShortConnections(Bench& bench, unsigned concurrency) : b_(bench), concurrency_(concurrency) {}
  void run(double length);

 private:
  void serve(stack::Time t);
  void ask(stack::Time t);
  void serve_one(Connection& c, stack::Time t);
  void client_event(Connection& c, stack::Time t);

  Bench& b_;
  unsigned concurrency_;
  unsigned active_ = 0;
  std::uint64_t done_ = 0;
  std::array<std::byte, kMessage> buffer_{};
};

void ShortConnections::serve_one(Connection& c, stack::Time t) {
  const iovec v{buffer_.data(), buffer_.size()};
  const auto got = b_.server.worker.receive(c, {&v, 1}, {}, t);
  if (!got && got.error() == stack::Errc::would_block) return;
  if (got && *got == kMessage) {
    if (!b_.server.worker.send(c, {&v, 1}, false, t)) b_.failed++;
  } else {
    b_.failed++;
  }
  b_.server.worker.close(c, t);
}

void ShortConnections::serve(stack::Time t) {
  b_.server.worker.poll(t);
  while (SocketBase* s = b_.server.worker.next_event()) {
    s->edges = 0;
    if (s->kind == SocketBase::Kind::connection) {
      serve_one(static_cast<Connection&>(*s), t);
      continue;
    }
    while (Connection* c = b_.accept()) {
      if (b_.server.worker.readiness(*c).readable) serve_one(*c, t);
    }
  }
  b_.server.worker.flush(t);
}

void ShortConnections::client_event(Connection& c, stack::Time t) {
  const auto ready = b_.client.worker.readiness(c);
  const iovec v{buffer_.data(), buffer_.size()};
  if (ready.error) {
    b_.failed++;
  } else if (ready.readable) {
    for (;;) {
      const auto got = b_.client.worker.receive(c, {&v, 1}, {}, t);
      if (!got && got.error() == stack::Errc::would_block) return;
      if (!got) b_.failed++;
      if (!got || *got == 0) break;
    }
    done_++;
  } else if (ready.writable && c.bytes_acked == 0 && c.hot.snd_queued == 0) {
    if (b_.client.worker.send(c, {&v, 1}, false, t)) return;
    b_.failed++;
  } else {
    return;
  }
  b_.client.worker.close(c, t);
  active_--;
}

void ShortConnections::ask(stack::Time t) {
  b_.client.worker.poll(t);
  while (SocketBase* s = b_.client.worker.next_event()) {
    s->edges = 0;
    client_event(static_cast<Connection&>(*s), t);
  }
  while (active_ < concurrency_) {
    if (b_.connect(t) == nullptr) break;
    active_++;
  }
  b_.client.worker.flush(t);
}

void ShortConnections::run(double length) {
  const auto start = Clock::now();
  const auto warm = start + std::chrono::milliseconds(200);
  const auto end = warm + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(length));
  std::uint64_t before = 0, frames_before = 0, turns = 0;
  bool counting = false;
  auto counted_from = warm;
  for (;;) {
    const auto wall = Clock::now();
    if (!counting && wall >= warm) {
      counting = true;
      before = done_;
      frames_before = b_.server.port.frames() + b_.client.port.frames();
      counted_from = wall;
      turns = 0;
    }
    if (wall >= end) {
      const double seconds = std::chrono::duration<double>(wall - counted_from).count();
      const auto n = static_cast<double>(done_ - before);
      const auto frames =
          static_cast<double>(b_.server.port.frames() + b_.client.port.frames() - frames_before);
      std::printf(
          "conn: %.0f connections/s, %.0f ns per connection (both ends), %.1f frames per connection, %.1f "
          "connections per "
          "turn, %llu failed\n",
          n / seconds, seconds / n * 1e9, frames / n, n / static_cast<double>(turns),
          static_cast<unsigned long long>(b_.failed));
      return;
    }
    const auto t = stack::Time(std::chrono::duration_cast<stack::Duration>(wall.time_since_epoch()));
    ask(t);
    serve(t);
    turns++;
  }
}

// --- bulk: the client sends, the server reads

class Bulk {
 public:
  Bulk(Bench& bench, unsigned connections, std::size_t chunk)
      : b_(bench), connections_(connections), chunk_(chunk) {}
  void run(double length);

 private:
  void read_all(stack::Time t);
  void write_all(stack::Time t);

  Bench& b_;
  unsigned connections_;
  std::vector<std::byte> chunk_;
  std::vector<Connection*> senders_;
  std::uint64_t received_ = 0;
};

void Bulk::read_all(stack::Time t) {
  b_.server.worker.poll(t);
  while (SocketBase* s = b_.server.worker.next_event()) {
    s->edges = 0;
    if (s->kind == SocketBase::Kind::listener) {
      while (b_.accept() != nullptr) {
      }
      continue;
    }
    const iovec v{chunk_.data(), chunk_.size()};
    for (;;) {
      const auto got = b_.server.worker.receive(static_cast<Connection&>(*s), {&v, 1}, {}, t);
      if (!got || *got == 0) break;
      received_ += *got;
    }
  }
  b_.server.worker.flush(t);
}

void Bulk::write_all(stack::Time t) {
  b_.client.worker.poll(t);
  while (SocketBase* s = b_.client.worker.next_event()) {
    s->edges = 0;
    const iovec v{chunk_.data(), chunk_.size()};
    if (b_.client.worker.readiness(static_cast<Connection&>(*s)).error) {
      b_.failed++;
      continue;
    }
    while (b_.client.worker.send(static_cast<Connection&>(*s), {&v, 1}, false, t)) {
    }
  }
  b_.client.worker.flush(t);
}

void Bulk::run(double length) {
  for (unsigned i = 0; i < connections_; i++) senders_.push_back(b_.connect(now()));
  const auto start = Clock::now();
  const auto warm = start + std::chrono::milliseconds(200);
  const auto end = warm + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(length));
  std::uint64_t before = 0, frames_before = 0;
  bool counting = false;
  auto counted_from = warm;
  for (;;) {
    const auto wall = Clock::now();
    if (!counting && wall >= warm) {
      counting = true;
      before = received_;
      frames_before = b_.client.port.frames() + b_.server.port.frames();
      counted_from = wall;
    }
    if (wall >= end) {
      const double seconds = std::chrono::duration<double>(wall - counted_from).count();
      const auto bytes = static_cast<double>(received_ - before);
      const auto frames =
          static_cast<double>(b_.client.port.frames() + b_.server.port.frames() - frames_before);
      std::printf(
          "bulk: %.2f GB/s, %.0f ns per frame (both ends, ACKs counted), %.0f bytes per frame, %llu failed\n",
          bytes / seconds / 1e9, seconds / frames * 1e9, bytes / frames,
          static_cast<unsigned long long>(b_.failed));
      return;
    }
    const auto t = stack::Time(std::chrono::duration_cast<stack::Duration>(wall.time_since_epoch()));
    write_all(t);
    read_all(t);
  }
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
  auto bench = std::make_unique<mtcp::perf::Bench>();
  if (!bench->listen()) {
    std::fprintf(stderr, "stack_bench: listen failed\n");
    return 1;
  }
  if (mode == "conn") {
    mtcp::perf::ShortConnections(*bench, *connections).run(*seconds);
  } else {
    mtcp::perf::Bulk(*bench, *connections, 256 * 1024).run(*seconds);
  }
  mtcp::perf::print_counters("server", bench->server.stats);
  mtcp::perf::print_counters("client", bench->client.stats);
  return bench->failed == 0 ? 0 : 1;
}

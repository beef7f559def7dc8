// Payload that stays where it is: packets of many segments, which the device cuts, until the wire loses some of them.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <optional>

#include "stack/packet/external.hh"
#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

// What a socket is to send, in memory.
class Memory final : public ExternalMemory {
 public:
  Memory(const Socket& s, std::size_t bytes) : bytes_(bytes) {
    for (std::size_t i = 0; i < bytes; ++i) bytes_[i] = pattern_of(s.key.local_port, s.key.remote_port, i);
    base = bytes_.data();
  }
  void read(std::uint32_t offset, std::span<std::byte> out) const override { std::memcpy(out.data(), bytes_.data() + offset, out.size()); }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

// A server whose device gathers, and a connection that it has accepted.
struct World {
  explicit World(std::uint64_t seed = 0) : sim(seed), server(sim.add_host()), client(sim.add_host()) {
    server.port.gathers = true;
    server.restart(false);
    server.listen(80);
    to = &client.connect(server, 80);
    REQUIRE(sim.run_until([&] { return server.accepted.size() == 1 && to->connected; }));
    from = server.accepted.front();
    memory.emplace(*from, 1 << 20);
  }
  // The first `bytes`, in writes of `part`; every other one is copied if `mixed`. False if they have not arrived in time.
  bool transfer(std::size_t bytes, std::size_t part = SIZE_MAX, bool mixed = false) {
    std::size_t writes = 0;
    return sim.run_until([&] {
      while (sent < bytes && from->connection != nullptr) {
        const std::size_t n = std::min(part, bytes - sent);
        const auto got = write(n, sent + n < bytes, mixed && writes % 2 == 0);
        if (!got) break;
        sent += *got;
        ++writes;
      }
      return to->received == bytes;
    }, seconds(300));
  }
  Result<std::size_t> write(std::size_t n, bool more, bool copied) {
    Worker& worker = *server.worker;
    if (copied || !worker.takes_external(*from->connection)) {
      const iovec v{const_cast<std::byte*>(memory->base + sent), n};
      return worker.send(*from->connection, {&v, 1}, more, server.clock());
    }
    return worker.send_external(*from->connection, *memory, static_cast<std::uint32_t>(sent), n, more, server.clock());
  }
  // Everything has been acknowledged, and so nobody refers to the memory.
  bool is_over() {
    return sim.run_until([&] { return memory->references == 0 && server.worker->drained(*from->connection); }, seconds(60));
  }

  Sim sim;
  Host &server, &client;
  Socket *from = nullptr, *to = nullptr;
  std::optional<Memory> memory;
  std::size_t sent = 0;
};

}  // namespace

TEST_CASE("what the device gathers arrives as it is in memory, in packets of many segments, which are given back") {
  World w;
  INFO(w.sim.label());
  REQUIRE(w.transfer(1 << 20));
  CHECK(w.to->wrong == 0);
  CHECK(w.server.port.cut >= 16);
  CHECK(w.server.count(Counter::segments_sent) >= (1U << 20) / 1448);
  CHECK(w.server.count(Counter::retransmitted_segments) == 0);
  CHECK(w.is_over());
}

TEST_CASE("copied and gathered, in writes of any size, arrives in its order") {
  for (const std::size_t part : {1UL, 100UL, 1448UL, 5000UL, 63712UL, 131072UL}) {
    World w;
    INFO(w.sim.label() << ", " << part);
    const std::size_t bytes = std::min<std::size_t>(1 << 20, part * 300);
    REQUIRE(w.transfer(bytes, part, true));
    CHECK(w.to->wrong == 0);
    CHECK(w.is_over());
  }
}

TEST_CASE("over wires that lose, reorder and duplicate, it is sent again by segments (RFC 2018, RFC 8985)") {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    World w(seed);
    INFO(w.sim.label());
    w.sim.wire.options.loss = static_cast<double>(seed % 4) * 0.02;
    w.sim.wire.options.reorder = seed % 3 == 0 ? 0.05 : 0;
    w.sim.wire.options.reorder_by = milliseconds(3);
    w.sim.wire.options.duplicate = seed % 5 == 0 ? 0.02 : 0;
    w.sim.wire.options.delay = milliseconds(2);
    REQUIRE(w.transfer(1 << 20, seed % 2 == 0 ? SIZE_MAX : 40000, seed % 7 == 0));
    CHECK(w.to->wrong == 0);
    CHECK(w.is_over());
  }
}

TEST_CASE("a lost segment of a packet of many is sent again alone (RFC 2018)") {
  World w;
  INFO(w.sim.label());
  REQUIRE(w.transfer(500'000));
  w.sim.wire.drop(is_data, 100);
  REQUIRE(w.transfer(1 << 20));
  CHECK(w.to->wrong == 0);
  CHECK(w.server.count(Counter::retransmitted_segments) <= 2);
  CHECK(w.is_over());
}

TEST_CASE("a window that takes part of a packet gets that part (RFC 9293 3.8.6)") {
  World w;
  INFO(w.sim.label());
  w.to->reading = false;
  (void)w.transfer(1 << 20);
  CHECK(w.to->received == 0);
  w.to->reading = true;
  w.to->read_limit = 20000;
  w.to->kick();
  w.sent = std::min(w.sent, w.memory->size());
  REQUIRE(w.sim.run_until([&] { w.to->kick(); return w.to->received >= w.sent; }, seconds(300)));
  CHECK(w.to->wrong == 0);
}

TEST_CASE("a device that gathers no more gets copies, also of what is under way") {
  World w;
  INFO(w.sim.label());
  w.sim.wire.options.loss = 0.05;
  REQUIRE(w.transfer(300'000));
  w.server.port.gathers_no_more = true;
  REQUIRE(w.transfer(1 << 20));
  CHECK(w.to->wrong == 0);
  CHECK(w.is_over());
}

TEST_CASE("a connection that is reset refers to nothing any more") {
  World w;
  INFO(w.sim.label());
  w.to->reading = false;
  for (int i = 0; i < 20; ++i) {
    if (const auto n = w.write(65536, true, false); n) w.sent += *n;
    w.sim.step(w.sim.now + milliseconds(1));
  }
  CHECK(w.memory->references != 0);
  w.from->abort();
  CHECK(w.sim.run_until([&] { return w.memory->references == 0; }, seconds(5)));
}

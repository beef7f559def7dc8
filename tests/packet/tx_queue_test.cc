#include "stack/packet/tx_queue.hh"

#include <catch2/catch.hpp>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/stats.hh"
#include "tests/bare_port.hh"

using namespace mtcp::stack;

namespace {

// Takes what there is room for and remembers it.
class Sink final : public mtcp::test::BarePort {
 public:
  using BarePort::BarePort;
  std::size_t room = SIZE_MAX;
  std::vector<std::uint32_t> lengths;  // tells the packets apart

  std::size_t tx(Packet* const* packets, std::size_t n) override {
    std::size_t i = 0;
    for (; i < n && room > 0; ++i, --room) {
      Packet* p = packets[i];
      lengths.push_back(p->len);
      queued_flags += (p->flags & kQueued) != 0 ? 1 : 0;
      if ((p->flags & kKeep) == 0) pool_.free(&p, 1);
    }
    return i;
  }
  int queued_flags = 0;
};

struct World {
  HeapPool pool{1024};
  PacketCache cache{pool};
  Stats stats;
  Sink sink{pool};
  Packet* packet(std::uint32_t len) {
    Packet* p = cache.alloc();
    p->len = len;
    return p;
  }
};

}  // namespace

TEST_CASE("control goes before ACKs, and ACKs before data, each in its own order", "[tx_queue]") {
  World w;
  TxQueue q(100, w.stats);
  REQUIRE(q.add(w.packet(30), TxPriority::data));
  REQUIRE(q.add(w.packet(20), TxPriority::ack));
  REQUIRE(q.add(w.packet(10), TxPriority::control));
  REQUIRE(q.add(w.packet(31), TxPriority::data));
  REQUIRE(q.add(w.packet(11), TxPriority::control));
  CHECK(q.size() == 5);
  q.flush(w.sink);
  CHECK(q.empty());
  CHECK(w.sink.lengths == std::vector<std::uint32_t>{10, 11, 20, 30, 31});
  CHECK(w.sink.queued_flags == 0);
  CHECK(w.stats.get(Counter::tx_packets) == 5);
  CHECK(w.stats.get(Counter::tx_bytes) == 102);
}

TEST_CASE("what the device does not take stays, in order, and the count tells of it", "[tx_queue]") {
  World w;
  TxQueue q(100, w.stats);
  for (std::uint32_t i = 1; i <= 70; ++i) REQUIRE(q.add(w.packet(i), TxPriority::data));
  w.sink.room = 40;
  q.flush(w.sink);
  CHECK(q.size() == 30);
  CHECK(w.stats.get(Counter::tx_full) == 1);
  REQUIRE(q.add(w.packet(1000), TxPriority::control));
  w.sink.room = SIZE_MAX;
  q.flush(w.sink);
  CHECK(w.sink.lengths.size() == 71);
  CHECK(w.sink.lengths[40] == 1000);
  CHECK(w.sink.lengths[41] == 41);
  CHECK(w.sink.lengths[70] == 70);
}

TEST_CASE("a full queue refuses, and leaves the packet to the caller", "[tx_queue]") {
  World w;
  TxQueue q(3, w.stats);
  for (std::uint32_t i = 0; i < 3; ++i) REQUIRE(q.add(w.packet(i), TxPriority::ack));
  CHECK(q.full(TxPriority::ack));
  Packet* extra = w.packet(9);
  CHECK_FALSE(q.add(extra, TxPriority::ack));
  CHECK((extra->flags & kQueued) == 0);
  CHECK(q.add(extra, TxPriority::data));
  q.flush(w.sink);
  CHECK(w.sink.lengths.size() == 4);
}

TEST_CASE("a kept packet that is freed while it waits is the device's afterwards", "[tx_queue]") {
  World w;
  TxQueue q(10, w.stats);
  {
    Packet* kept = w.packet(1);
    Packet* freed = w.packet(2);
    kept->flags = kKeep;
    freed->flags = kKeep;
    REQUIRE(q.add(kept, TxPriority::data));
    REQUIRE(q.add(freed, TxPriority::data));
    w.cache.free(freed);
    q.flush(w.sink);
    CHECK(w.sink.lengths == std::vector<std::uint32_t>{1, 2});
    w.cache.free(kept);
  }
  // 62 and `kept` in the cache, and `freed` has come back by way of the device.
  CHECK(w.pool.available() == w.pool.capacity() - 63);
}

TEST_CASE("clear frees what nobody keeps", "[tx_queue]") {
  World w;
  TxQueue q(10, w.stats);
  Packet* kept = w.packet(1);
  kept->flags = kKeep;
  REQUIRE(q.add(kept, TxPriority::data));
  REQUIRE(q.add(w.packet(2), TxPriority::control));
  q.clear(w.cache);
  CHECK(q.empty());
  CHECK((kept->flags & kQueued) == 0);
  w.cache.free(kept);
  CHECK(w.pool.available() == w.pool.capacity() - 64);
}

TEST_CASE("the ring goes round", "[tx_queue]") {
  World w;
  TxQueue q(5, w.stats);
  for (std::uint32_t i = 0; i < 100; ++i) {
    REQUIRE(q.add(w.packet(2 * i), TxPriority::data));
    REQUIRE(q.add(w.packet(2 * i + 1), TxPriority::data));
    q.flush(w.sink);
  }
  for (std::uint32_t i = 0; i < 200; ++i) REQUIRE(w.sink.lengths[i] == i);
}

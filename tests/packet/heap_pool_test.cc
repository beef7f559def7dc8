#include "stack/packet/heap_pool.hh"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "tests/limit.hh"

using namespace mtcp::stack;

TEST_CASE("A heap pool hands out its capacity and not one packet more") {
  HeapPool pool(1000);
  std::vector<Packet*> all(1200);
  REQUIRE(pool.alloc(all.data(), 600) == 600);
  REQUIRE(pool.alloc(all.data() + 600, 600) == 400);
  CHECK(pool.available() == 0);
  CHECK(pool.alloc(all.data() + 1000, 1) == 0);
  CHECK(std::set<Packet*>(all.begin(), all.begin() + 1000).size() == 1000);
  pool.free(all.data(), 1000);
  CHECK(pool.available() == 1000);
}

TEST_CASE("Buffers of a heap pool do not overlap") {
  HeapPool pool(300, 512);
  std::vector<Packet*> all(300);
  REQUIRE(pool.alloc(all.data(), 300) == 300);
  for (std::size_t i = 0; i < 300; ++i) std::memset(all[i]->buf, static_cast<int>(i % 251), all[i]->capacity);
  for (std::size_t i = 0; i < 300; ++i) {
    REQUIRE(all[i]->capacity == 512);
    REQUIRE(all[i]->buf[0] == static_cast<std::byte>(i % 251));
    REQUIRE(all[i]->buf[511] == static_cast<std::byte>(i % 251));
  }
  pool.free(all.data(), 300);
}

TEST_CASE("A heap pool that had no memory for a while is as large as before when there is some") {
  constexpr std::size_t kPackets = 4096, kBytes = 60'000;
  HeapPool pool(kPackets, kBytes);
  std::vector<Packet*> all(kPackets);
  REQUIRE(pool.alloc(all.data(), 256) == 256);
  CHECK(mtcp::test::with_limit(RLIMIT_AS, 1, [&] { return pool.alloc(all.data() + 256, 1); }) == 0);
  CHECK(pool.capacity() == 256);
  CHECK(pool.available() == 0);
  pool.free(all.data(), 256);
  CHECK(pool.capacity() == kPackets);
  REQUIRE(pool.alloc(all.data(), kPackets) == kPackets);
  CHECK(std::set<Packet*>(all.begin(), all.end()).size() == kPackets);
  pool.free(all.data(), kPackets);
}

TEST_CASE("A packet that comes back is handed out again as an empty one") {
  HeapPool pool(8);
  Packet* p = nullptr;
  REQUIRE(pool.alloc(&p, 1) == 1);
  p->len = 99;
  p->flags = kKeep | kPayloadSum;
  p->next = p;
  Packet* const first = p;
  pool.free(&p, 1);
  REQUIRE(pool.alloc(&p, 1) == 1);
  CHECK(p == first);
  CHECK(p->len == 0);
  CHECK(p->flags == 0);
  CHECK(p->next == nullptr);
  CHECK(p->headroom() == kHeadroom);
  pool.free(&p, 1);
}

TEST_CASE("A packet cache leaves a reserve to the device, and gives everything back to its pool when it goes") {
  HeapPool pool(200);
  {
    PacketCache cache(pool);
    std::vector<Packet*> held;
    while (Packet* p = cache.alloc()) held.push_back(p);
    CHECK(cache.reserve() == PacketCache::reserve_of(200));
    CHECK(cache.reserve() > 0);
    CHECK(held.size() == 200 - cache.reserve());
    for (Packet* p : held) cache.free(p);
    CHECK(pool.available() < 200);
  }
  CHECK(pool.available() == 200);
}

TEST_CASE("Packets belong to the process that has the pool: a child has no memory for them") {
  HeapPool pool(8);
  Packet* p = nullptr;
  REQUIRE(pool.alloc(&p, 1) == 1);
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto* const start = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(p->buf) / page * page);
  unsigned char there = 0;
  REQUIRE(mincore(start, 1, &there) == 0);
  const pid_t child = fork();
  if (child == 0) _exit(mincore(start, 1, &there) != 0 && errno == ENOMEM ? 0 : 1);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  pool.free(&p, 1);
}

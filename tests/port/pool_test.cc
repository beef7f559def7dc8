// The packets of a queue whose process is killed, at any instruction: the pool is whole again, and nothing has two
// owners.
#include "stack/port/dpdk/pool.hh"

#include <catch2/catch.hpp>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <random>
#include <set>
#include <vector>

#include "stack/port/dpdk/eal/eal.hh"
#include "tests/port/device.hh"

using namespace mtcp::stack;
using namespace mtcp::test;
using dpdk::MbufPool;

namespace {

constexpr std::size_t kPackets = 2048, kBurst = 32;

std::uint32_t seed() {
  const char* text = getenv("MTCP_SEED");
  const std::uint32_t s = text != nullptr ? static_cast<std::uint32_t>(atoi(text)) : std::random_device{}();
  fprintf(stderr, "MTCP_SEED=%u\n", s);
  return s;
}

void wait_a_moment(std::mt19937& random) {
  const Time end = now() + std::chrono::microseconds(random() % 3000);
  while (now() < end) {
  }
}

// A card and its driver, as drivers do it: rings of mbufs in shared memory, whose slots are refilled as they are used.
struct Card {
  static constexpr std::uint32_t kRing = 128;
  std::array<rte_mbuf*, kRing> rx_ring, tx_ring;
  std::uint32_t rx_at, tx_at;

  static Card& create(rte_mempool* pool) {
    void* memory = mmap(nullptr, sizeof(Card), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(memory != MAP_FAILED);
    auto* card = static_cast<Card*>(memory);
    for (rte_mbuf*& slot : card->rx_ring) EXPECT((slot = rte_mbuf_raw_alloc(pool)) != nullptr);
    return *card;
  }
  std::size_t receive(rte_mempool* pool, rte_mbuf** out, std::size_t n) {
    std::uint32_t at = rx_at;
    for (std::size_t i = 0; i < n; ++i, ++at) {
      rte_mbuf* fresh = rte_mbuf_raw_alloc(pool);
      if (fresh == nullptr) {
        n = i;
        break;
      }
      out[i] = rx_ring[at % kRing];
      rx_ring[at % kRing] = fresh;
    }
    rx_at = at;
    return n;
  }
  void send(rte_mbuf** m, std::size_t n) {
    std::uint32_t at = tx_at;
    for (std::size_t i = 0; i < n; ++i, ++at) {
      rte_mbuf*& slot = tx_ring[at % kRing];
      if (slot != nullptr) rte_pktmbuf_free_seg(slot);
      slot = m[i];
    }
    tx_at = at;
  }
};

// A stack: receives, sends, keeps what it has sent for a while.
[[noreturn]] void live(MbufPool& pool, Card& card, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Packet*> hand;
  std::array<rte_mbuf*, kBurst> mbufs;
  std::array<Packet*, kBurst> burst;
  while (true) {
    pool.enter_driver();
    std::size_t n = card.receive(pool.mempool(), mbufs.data(), random() % kBurst);
    for (std::size_t i = 0; i < n; ++i) {
      pool.take_from_device(mbufs[i]);
      hand.push_back(dpdk::packet_of(mbufs[i]));
    }
    pool.leave_driver();
    n = pool.alloc(burst.data(), random() % kBurst);
    const bool keep = random() % 2 == 0;
    pool.enter_driver();
    for (std::size_t i = 0; i < n; ++i) pool.give_to_device(mbufs[i] = dpdk::mbuf_of(burst[i]), keep);
    card.send(mbufs.data(), n);
    pool.leave_driver();
    if (keep) hand.insert(hand.end(), burst.begin(), burst.begin() + static_cast<std::ptrdiff_t>(n));
    std::shuffle(hand.begin(), hand.end(), random);
    while (hand.size() > 500) {
      n = std::min<std::size_t>(hand.size(), 1 + random() % 64);
      pool.free(hand.data() + hand.size() - n, n);
      hand.resize(hand.size() - n);
    }
  }
}

struct Census {
  std::size_t free = 0, card = 0, both = 0;
};

Census count(MbufPool& pool, const Card& card) {
  std::multiset<rte_mbuf*> in_card;
  for (const auto* ring : {&card.rx_ring, &card.tx_ring})
    for (rte_mbuf* m : *ring)
      if (m != nullptr) in_card.insert(m);
  Census c;
  std::vector<Packet*> all(kPackets + 1);
  c.free = pool.alloc(all.data(), all.size());
  EXPECT(pool.available() == 0);
  all.resize(c.free);
  EXPECT((std::set<Packet*>(all.begin(), all.end()).size() == c.free));
  for (Packet* p : all) {
    EXPECT(rte_mbuf_refcnt_read(dpdk::mbuf_of(p)) == 1 && p->pool == &pool);
    c.both += in_card.count(dpdk::mbuf_of(p));
  }
  pool.free(all.data(), all.size());
  c.card = std::set<rte_mbuf*>(in_card.begin(), in_card.end()).size();
  EXPECT(c.card == in_card.size());
  return c;
}

}  // namespace

TEST_CASE("a pool is whole after each of many deaths, and what the card holds stays there") {
  Process p([](Process&) {
    std::mt19937 random(seed());
    std::string message;
    EXPECT(dpdk::start_eal({.memory = 16 << 20, .hugepages = 0, .pci = ""}, message));
    const auto pool = MbufPool::create("deaths", kPackets, 1518, MbufPool::Use::device);
    EXPECT(pool != nullptr);
    Card& card = Card::create(pool->mempool());
    std::size_t lost = 0, both = 0;
    std::uint32_t stale_from = 0;
    int in_driver = 0;
    for (int death = 0; death < 200; ++death) {
      const std::uint32_t seed = random();
      Process child([&](Process& parent) {
        parent.tell();
        live(*pool, card, seed);
      });
      EXPECT(child.wait());
      wait_a_moment(random);
      child.kill_hard();
      const bool was_in_driver = pool->in_driver();
      in_driver += was_in_driver ? 1 : 0;
      pool->recover();
      EXPECT(!pool->in_driver());
      const Census c = count(*pool, card);
      const std::size_t now_lost = kPackets - c.free - c.card + c.both;
      // Outside of the driver nothing is lost. In it: what was on its way, and no more.
      if (now_lost > lost || c.both > both)
        fprintf(stderr, "death %d%s: %zu lost, %zu before; %zu in a slot and free, %zu before\n", death,
                was_in_driver ? " in the driver" : "", now_lost, lost, c.both, both);
      EXPECT(now_lost <= lost + (was_in_driver ? 2 * kBurst : 0));
      // One that the driver had let go and not yet taken from its slot: there until that slot is used, and harmless.
      const std::size_t still_there = card.tx_at - stale_from < kBurst ? both : 0;
      EXPECT(c.both <= still_there + (was_in_driver ? 1 : 0));
      if (c.both > still_there) stale_from = card.tx_at;
      lost = now_lost;
      both = c.both;
    }
    fprintf(stderr, "200 deaths, %d in the driver: %zu packets lost\n", in_driver, lost);
    EXPECT(in_driver < 200);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a recovery that is cut short itself is done over by the next") {
  Process p([](Process&) {
    std::mt19937 random(seed());
    std::string message;
    EXPECT(dpdk::start_eal({.memory = 16 << 20, .hugepages = 0, .pci = ""}, message));
    const auto pool = MbufPool::create("deaths", kPackets, 1518, MbufPool::Use::device);
    EXPECT(pool != nullptr);
    std::array<Packet*, 300> sent;
    EXPECT(pool->alloc(sent.data(), sent.size()) == sent.size());
    for (std::size_t i = 0; i < 200; ++i) pool->give_to_device(dpdk::mbuf_of(sent[i]), i % 2 == 0);
    for (int death = 0; death < 50; ++death) {
      Process child([&](Process& parent) {
        parent.tell();
        while (true) pool->recover();
      });
      EXPECT(child.wait());
      wait_a_moment(random);
      child.kill_hard();
      pool->recover();
      EXPECT(pool->available() == kPackets - 200);
    }
    std::array<rte_mbuf*, 200> done;
    std::transform(sent.begin(), sent.begin() + 200, done.begin(), [](Packet* q) { return dpdk::mbuf_of(q); });
    for (rte_mbuf* m : done) rte_pktmbuf_free_seg(m);
    EXPECT(pool->available() == kPackets);
    // Once more, as a driver would that had not noted it.
    rte_pktmbuf_free_seg(done[0]);
    EXPECT(pool->available() == kPackets);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("what is freed while the device reads it is used again only when that is done") {
  Process p([](Process&) {
    std::string message;
    EXPECT(dpdk::start_eal({.memory = 16 << 20, .hugepages = 0, .pci = ""}, message));
    const auto pool = MbufPool::create("readers", kPackets, 1518, MbufPool::Use::device);
    EXPECT(pool != nullptr);
    Packet* p = nullptr;
    EXPECT(pool->alloc(&p, 1) == 1);
    rte_mbuf* m = dpdk::mbuf_of(p);
    pool->give_to_device(m, true);
    pool->free(&p, 1);
    EXPECT(pool->available() == kPackets - 1);
    rte_pktmbuf_free_seg(m);
    EXPECT(pool->available() == kPackets);
    EXPECT(pool->alloc(&p, 1) == 1 && p == dpdk::packet_of(m) && rte_mbuf_refcnt_read(m) == 1);
    pool->free(&p, 1);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a queue's packets are all there after each of 60 processes that were killed on it") {
  Process p([](Process&) {
    std::mt19937 random(seed());
    const auto device = open_or_die(config("net_null0,size=64", kPackets));
    for (int death = 0; death < 60; ++death) {
      Process child([&](Process& parent) {
        const auto port = device->claim(0, 1);
        EXPECT(port != nullptr);
        parent.tell();
        std::vector<Packet*> hand;
        std::array<Packet*, kBurst> burst;
        while (true) {
          std::size_t n = port->rx(burst.data(), burst.size());
          hand.insert(hand.end(), burst.begin(), burst.begin() + static_cast<std::ptrdiff_t>(n));
          n = std::min<std::size_t>(hand.size(), kBurst / 2);
          EXPECT(port->tx(hand.data() + hand.size() - n, n) == n);
          hand.resize(hand.size() - n);
          if (hand.size() < 1000) continue;
          port->pool().free(hand.data(), hand.size());
          hand.clear();
        }
      });
      EXPECT(child.wait());
      wait_a_moment(random);
      child.kill_hard();
      const auto port = device->claim(0, 2);
      EXPECT(port != nullptr && port->pool().available() == kPackets);
    }
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a hash that the device tells comes with the packet") {
  Process p([](Process&) {
    const auto device = open_or_die(config("net_ring0"));
    const auto port = device->claim(0, 0);
    EXPECT(port != nullptr);
    const std::size_t all = port->pool().available();
    rte_ring* wire = rte_ring_lookup("ETH_RXTX0_net_ring0");
    EXPECT(wire != nullptr);
    for (const bool tells : {true, false}) {
      Packet* out = make_frame(port->pool(), "frame");
      rte_mbuf* m = dpdk::mbuf_of(out);
      m->pkt_len = m->data_len = static_cast<std::uint16_t>(out->len);
      m->ol_flags = tells ? RTE_MBUF_F_RX_RSS_HASH : 0;
      m->hash.rss = 0x12345678;
      EXPECT(rte_ring_enqueue(wire, m) == 0);
      Packet* in = nullptr;
      EXPECT(port->rx(&in, 1) == 1 && in == out);
      EXPECT(((in->flags & kRxHash) != 0) == tells && (!tells || in->payload_sum == 0x12345678));
      port->pool().free(&in, 1);
    }
    EXPECT(port->pool().available() == all);
  });
  CHECK(p.join() == 0);
}

#include "stack/port/dpdk/memif/memif_copy.hh"

#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "stack/wire/frame.hh"
#include "tests/port/segments.hh"

using namespace mtcp::stack;
using namespace mtcp::stack::dpdk;
using mtcp::test::Segments;

namespace {

// Whether the TCP checksum of a frame is that of its bytes.
bool is_right(std::span<const std::byte> frame) {
  const TcpLayout at = find_tcp(frame);
  REQUIRE(at.headers != 0);
  const auto addresses = at.v4 ? frame.subspan(at.ip + 12, 8) : frame.subspan(at.ip + 8, 32);
  return sum_is_good(std::uint64_t{partial_sum(addresses.data(), addresses.size())} + sum_of_field(6) +
                     sum_of_field(static_cast<std::uint16_t>(at.length - at.tcp)) +
                     partial_sum(&frame[at.tcp], at.length - at.tcp));
}

struct World {
  explicit World(bool v4) : segments(pool, v4) {}
  ~World() { pool.free(packets.data(), packets.size()); }
  Packet& with(std::size_t payload) { return add(segments.next(payload)); }
  Packet& empty() {
    Packet* p = nullptr;
    REQUIRE(pool.alloc(&p, 1) == 1);
    return add(p);
  }
  Packet& add(Packet* p) {
    packets.push_back(p);
    return *p;
  }

  HeapPool pool{16, 9216};
  Segments segments;
  std::vector<Packet*> packets;
  alignas(64) std::array<std::byte, 9216> ring{};
};

}  // namespace

TEST_CASE("a frame on its way into a memif ring gets its checksum, whatever its size; the packet stays as it is", "[memif]") {
  const bool v4 = GENERATE(true, false);
  const std::size_t payload = GENERATE(0U, 1U, 64U, 297U, 298U, 299U, 317U, 318U, 384U, 511U, 512U, 1447U, 1448U, 8947U, 8948U);
  World w(v4);
  Packet& p = w.with(payload);
  p.flags |= kTxL4Offload;
  const std::vector<std::byte> before(p.data, p.data + p.len);
  bool streamed = false;
  std::byte* to = w.ring.data();
  SECTION("past the caches if it is large") {
    streamed = copy_to_ring(to, w.ring.size(), p, Stores::past_caches);
    CHECK(streamed == (p.len >= kLargeFrame));
  }
  SECTION("not where there is no room for whole lines") {
    if (p.len % kCacheLine == 0) return;
    streamed = copy_to_ring(to, p.len, p, Stores::past_caches);
    CHECK_FALSE(streamed);
    CHECK(w.ring[p.len] == std::byte{});
  }
  SECTION("nor where it does not begin with one") {
    to += 8;
    streamed = copy_to_ring(to, w.ring.size() - 8, p, Stores::past_caches);
    CHECK_FALSE(streamed);
  }
  SECTION("nor where all CPUs have a cache in common") {
    streamed = copy_to_ring(to, w.ring.size(), p, Stores::cached);
    CHECK_FALSE(streamed);
    CHECK(w.ring[p.len] == std::byte{});
  }
  if (streamed) end_streams();
  const std::span<const std::byte> frame(to, p.len);
  CHECK(is_right(frame));
  CHECK(std::memcmp(p.data, before.data(), before.size()) == 0);
  const std::size_t checksum = find_tcp(frame).tcp + 16;
  CHECK(std::memcmp(to, before.data(), checksum) == 0);
  CHECK(std::memcmp(to + checksum + 2, &before[checksum + 2], before.size() - checksum - 2) == 0);
}

TEST_CASE("a frame whose checksum is there already is copied into a memif ring byte by byte", "[memif]") {
  World w(true);
  Packet& p = w.with(GENERATE(64U, 1448U));
  const Stores stores = GENERATE(Stores::cached, Stores::past_caches);
  p.flags = 0;
  (void)copy_to_ring(w.ring.data(), w.ring.size(), p, stores);
  end_streams();
  CHECK(std::memcmp(w.ring.data(), p.data, p.len) == 0);
}

TEST_CASE("a large frame out of a memif ring is vouched for if its checksum is right, and only then", "[memif]") {
  const bool v4 = GENERATE(true, false);
  const std::size_t payload = GENERATE(64U, 400U, 1448U, 1447U, 8948U);
  const Stores stores = GENERATE(Stores::cached, Stores::past_caches);
  World w(v4);
  Packet& p = w.with(payload);
  p.flags |= kTxL4Offload;
  (void)copy_to_ring(w.ring.data(), w.ring.size(), p, stores);
  end_streams();
  Packet& got = w.empty();
  SECTION("as it is") {
    copy_from_ring(got, w.ring.data(), p.len);
    CHECK(((got.flags & kRxL4Good) != 0) == (p.len >= kLargeFrame));
    CHECK(got.len == p.len);
    CHECK(is_right(got.bytes()));
  }
  SECTION("with any bit changed") {
    for (std::size_t at = 12; at < p.len; at += at < 80 ? 1 : 97) {
      // Not part of the TCP checksum: the rest of the IP header, but for what find_tcp() asks for.
      if (v4 && (at < 26 && at != 23)) continue;
      if (!v4 && (at < 22 && at != 18 && at != 20)) continue;
      w.ring[at] ^= std::byte{0x10};
      got.reset();
      copy_from_ring(got, w.ring.data(), p.len);
      w.ring[at] ^= std::byte{0x10};
      CAPTURE(at);
      CHECK((got.flags & kRxL4Good) == 0);
    }
  }
  SECTION("not in two pieces") {
    copy_from_ring(got, w.ring.data(), p.len - 10);
    copy_from_ring(got, w.ring.data() + p.len - 10, 10);
    CHECK(got.len == p.len);
    CHECK((got.flags & kRxL4Good) == 0);
  }
  SECTION("nor with bytes behind the segment") {
    copy_from_ring(got, w.ring.data(), p.len + 2);
    CHECK((got.flags & kRxL4Good) == 0);
  }
}

#include "stack/port/dpdk/interface/merge.hh"

#include <array>
#include <catch2/catch.hpp>
#include <functional>

#include "tests/port/segments.hh"

using namespace mtcp::stack;
using namespace mtcp::stack::dpdk;
using mtcp::test::Segments;

namespace {

constexpr std::uint8_t kFin = 0x01, kPsh = 0x08, kAck = 0x10;

struct Burst {
  explicit Burst(bool v4 = true) : segments(pool, v4) {}
  ~Burst() { pool.free(packets.data(), packets.size()); }
  Packet& add(std::size_t payload, std::uint8_t flags = kAck) {
    packets.push_back(segments.next(payload, flags));
    return *packets.back();
  }
  [[nodiscard]] MergedFrame merge(std::size_t from = 0) const {
    const std::span<Packet* const> all(packets);
    return mtcp::stack::dpdk::merge(all.subspan(from));
  }

  HeapPool pool{128, 2048};
  Segments segments;
  std::vector<Packet*> packets;
};

}  // namespace

TEST_CASE("segments that follow each other leave as one, the last of them as short as it is") {
  const bool v4 = GENERATE(true, false);
  Burst b(v4);
  for (int i = 0; i < 5; ++i) b.add(1448);
  b.add(100, kAck | kPsh | kFin);
  b.add(1448);
  const MergedFrame f = b.merge();
  REQUIRE(f.packets == 6);
  CHECK(f.v4 == v4);
  CHECK(f.tcp == b.segments.tcp());
  CHECK(f.headers == b.segments.headers());
  CHECK(f.segment == 1448);
  CHECK(f.payload == 5 * 1448 + 100);
  CHECK(b.merge(6).packets == 1);

  std::array<std::byte, kMaxHeaders> h{};
  write_merged_headers(f, {b.packets.data(), b.packets.size()}, h.data());
  const std::byte* first = b.packets[0]->data;
  const auto size = static_cast<std::uint16_t>(f.size() - 14);
  CHECK(std::memcmp(h.data(), first, 16) == 0);
  CHECK(load_be<std::uint16_t>(&h[v4 ? 16 : 18]) == (v4 ? size : size - 40));
  if (v4) CHECK(sum_is_good(partial_sum(&h[14], 20)));
  const std::byte* tcp = &h[f.tcp];
  CHECK(std::memcmp(tcp, first + f.tcp, 13) == 0);  // sequence number and all
  CHECK(tcp[13] == std::byte{kAck | kPsh | kFin});
  CHECK(std::memcmp(tcp + 14, first + f.tcp + 14, 2) == 0);
  CHECK(std::memcmp(tcp + 18, first + f.tcp + 18, 14) == 0);
  // The checksum of the pseudo-header, which a device adds the rest to.
  std::uint16_t sum;
  std::memcpy(&sum, tcp + 16, 2);
  const std::uint64_t pseudo = sum_of_field(6) + sum_of_field(static_cast<std::uint16_t>(f.size() - f.tcp)) +
                               (v4 ? partial_sum(&h[26], 8) : partial_sum(&h[22], 32));
  CHECK(sum == fold_sum(pseudo));
}

TEST_CASE("a frame never says more than 65,535 bytes") {
  const bool v4 = GENERATE(true, false);
  Burst b(v4);
  for (int i = 0; i < 64; ++i) b.add(1448);
  const MergedFrame f = b.merge();
  CHECK(f.packets == (65535 - (b.segments.headers() - 14)) / 1448);
  CHECK(f.size() - 14 <= 65535);
}

TEST_CASE("what is between two segments of one flow, or differs in them, keeps them apart") {
  struct Case {
    const char* what;
    std::size_t left;  // packets that still leave as one; of three
    std::function<void(Burst&)> change;
  };
  const auto flip = [](std::size_t packet, std::size_t offset, int bits) {
    return [=](Burst& b) { b.packets[packet]->data[offset] ^= std::byte(bits); };
  };
  const std::vector<Case> cases = {
      {"nothing", 3, [](Burst&) {}},
      {"a gap", 1, flip(1, 41, 1)},
      {"the same segment twice", 1, [](Burst& b) { std::swap(b.packets[0], b.packets[1]); }},
      {"another source port", 1, flip(1, 34, 1)},
      {"another destination port", 2, flip(2, 37, 1)},
      {"another source address", 1, flip(1, 29, 1)},
      {"another destination address", 1, flip(1, 33, 1)},
      {"another neighbour", 1, flip(1, 5, 1)},
      {"another ACK", 2, flip(2, 45, 1)},
      {"another window", 1, flip(1, 49, 1)},
      {"another timestamp", 2, flip(2, 61, 1)},
      {"another echo", 1, flip(1, 65, 1)},
      {"other options", 1, flip(1, 54, 1)},
      {"another TTL", 1, flip(1, 22, 1)},
      {"another traffic class", 1, flip(1, 15, 0x20)},
      {"another ECN codepoint", 1, flip(1, 15, 1)},
      {"PSH on the first", 1, flip(0, 47, kPsh)},
      {"PSH on the second", 2, flip(1, 47, kPsh)},
      {"FIN on the second", 2, flip(1, 47, kFin)},
      {"FIN on the first", 1, flip(0, 47, kFin)},
      {"SYN", 1, flip(1, 47, 0x02)},
      {"RST", 1, flip(1, 47, 0x04)},
      {"URG", 1, flip(1, 47, 0x20)},
      {"an urgent pointer", 1, flip(1, 53, 1)},
      {"ECE", 1, flip(1, 47, 0x40)},
      {"CWR", 2, flip(2, 47, 0x80)},
      {"CWR on the first", 1, flip(0, 47, 0x80)},
      {"AE (RFC 9768)", 1, flip(1, 46, 0x01)},
      {"no ACK", 1, flip(1, 47, kAck)},
      {"a fragment", 1, flip(1, 20, 0x20)},
      {"the first a fragment", 1, flip(0, 20, 0x20)},
      {"may be fragmented", 1, flip(0, 20, 0x40)},
      {"UDP", 2, flip(2, 23, 6 ^ 17)},
      {"UDP first", 1, flip(0, 23, 6 ^ 17)},
      {"ARP", 1, flip(1, 13, 6)},
      {"a checksum that is filled in", 1, [](Burst& b) { b.packets[1]->flags = 0; }},
      {"all checksums filled in", 1,
       [](Burst& b) {
         for (Packet* p : b.packets) p->flags = 0;
       }},
      {"padding behind the packet", 1, [](Burst& b) { ++b.packets[1]->len; }},
      {"a header that is cut off", 1, [](Burst& b) { b.packets[1]->len = 60; }},
  };
  for (const Case& c : cases) {
    Burst b;
    for (int i = 0; i < 3; ++i) b.add(1000);
    c.change(b);
    INFO(c.what);
    CHECK(b.merge().packets == c.left);
  }
}

TEST_CASE("only the last may be short, and an ACK without data is none of them") {
  Burst b;
  b.add(1000);
  b.add(999);
  b.add(1000);
  b.add(1001);
  b.add(0);
  b.add(1);
  CHECK(b.merge().packets == 2);
  CHECK(b.merge(2).packets == 1);  // the next is larger
  CHECK(b.merge(3).packets == 1);
  CHECK(b.merge(4).packets == 1);
  CHECK(b.merge(5).packets == 1);
}

TEST_CASE("a segment alone says where its checksum is, and what is not one does not") {
  Burst b;
  Packet& p = b.add(0, 0x12);
  CHECK(b.merge().tcp == 34);
  CHECK(b.merge().headers == 66);
  p.flags = 0;
  CHECK(b.merge().headers == 0);
}

TEST_CASE("an IPv4 header with options is not repeated for each segment") {
  Burst b;
  for (int i = 0; i < 2; ++i) {
    Packet& p = b.add(100);
    std::memmove(p.data + 38, p.data + 34, p.len - 34);
    std::memset(p.data + 34, 1, 4);
    p.data[14] = std::byte{0x46};
    p.len += 4;
    store_be<std::uint16_t>(p.data + 16, static_cast<std::uint16_t>(p.len - 14));
  }
  CHECK(b.merge().packets == 1);
  CHECK(b.merge().tcp == 38);
}

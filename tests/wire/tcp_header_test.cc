#include "stack/wire/tcp_header.hh"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "stack/packet/heap_pool.hh"

using namespace mtcp::stack;

namespace {

const IpAddress kHere = IpAddress::v4(10, 9, 0, 2), kThere = IpAddress::v4(10, 9, 0, 1);

struct Bench {
  HeapPool pool{64};
  Packet* p = nullptr;
  Segment segment;

  Bench() { REQUIRE(pool.alloc(&p, 1) == 1); }
  ~Bench() { pool.free(&p, 1); }

  // Puts the bytes at the very end of the buffer: the address sanitizer sees a read behind them.
  void put(const std::vector<std::byte>& bytes) {
    p->reset();
    p->data = p->buf + p->capacity - bytes.size();
    p->len = static_cast<std::uint32_t>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), p->data);
  }
  ParseError parse(const std::vector<std::byte>& bytes, bool verify = false) {
    put(bytes);
    segment = {};
    return parse_tcp(p, kThere, kHere, verify, segment);
  }
};

std::vector<std::byte> header(const TcpHeader& h, std::size_t payload = 0) {
  std::vector<std::byte> bytes(tcp_header_length(h) + payload, std::byte{0x61});
  REQUIRE(write_tcp(bytes.data(), h) == bytes.size() - payload);
  return bytes;
}

// A segment with these raw option bytes, padded with end-of-list.
std::vector<std::byte> with_options(std::vector<int> options, std::uint8_t flags = kSyn) {
  auto bytes = header({.source_port = 1, .destination_port = 2, .flags = flags});
  while (options.size() % 4 != 0) options.push_back(0);
  for (const int o : options) bytes.push_back(static_cast<std::byte>(o));
  bytes[12] = static_cast<std::byte>(bytes.size() / 4 << 4);
  return bytes;
}

void add_checksum(std::vector<std::byte>& bytes, const IpAddress& source, const IpAddress& destination) {
  bytes[16] = bytes[17] = std::byte{0};
  store_checksum(&bytes[16], sum_of_pseudo_header(source, destination, source.is_v4(), 6, bytes.size()) +
                                 partial_sum(bytes.data(), bytes.size()));
}

}  // namespace

TEST_CASE("rfc9293: a header that was written reads back the same, for all combinations of options") {
  Bench bench;
  for (unsigned mix = 0; mix < 32; ++mix) {
    TcpHeader h{.source_port = 40000,
                .destination_port = 80,
                .seq = Seq(0xfffffff0),
                .ack = Seq(77),
                .flags = static_cast<std::uint8_t>(kSyn | kAck | ((mix & 1) != 0 ? kPsh : 0)),
                .window = 65535};
    if ((mix & 2) != 0) h.mss = 1460;
    if ((mix & 4) != 0) h.window_scale = 9;
    if ((mix & 8) != 0) h.sack_permitted = true;
    if ((mix & 16) != 0) h.timestamps = true, h.ts_val = 0x01020304, h.ts_ecr = 0xa0b0c0d0;
    const auto bytes = header(h, 5);
    INFO("mix " << mix);
    REQUIRE(bench.parse(bytes) == ParseError::none);
    const Segment& s = bench.segment;
    CHECK(s.key.local == kHere);
    CHECK(s.key.remote == kThere);
    CHECK(s.key.local_port == 80);
    CHECK(s.key.remote_port == 40000);
    CHECK(s.seq == h.seq);
    CHECK(s.ack == h.ack);
    CHECK(s.flags == h.flags);
    CHECK(s.window == 65535);
    CHECK(s.len == 5);
    CHECK(s.options.mss == h.mss);
    CHECK(s.options.has_window_scale == (h.window_scale >= 0));
    CHECK(s.options.window_scale == std::max(h.window_scale, 0));
    CHECK(s.options.sack_permitted == h.sack_permitted);
    CHECK(s.options.has_timestamps == h.timestamps);
    CHECK(s.options.ts_val == h.ts_val);
    CHECK(s.options.ts_ecr == h.ts_ecr);
    CHECK(s.packet == bench.p);
    CHECK(bench.p->len == 5);
    CHECK(bench.p->seq == h.seq + 1);
  }
}

TEST_CASE("The options of a SYN come in Linux's order") {
  const auto kinds = [](const TcpHeader& h) {
    const auto bytes = header(h);
    std::vector<int> out;
    for (std::size_t at = kTcpHeader; at < bytes.size();) {
      out.push_back(std::to_integer<int>(bytes[at]));
      at += out.back() == kOptionNop ? 1 : std::to_integer<std::size_t>(bytes[at + 1]);
    }
    return out;
  };
  TcpHeader h{.flags = kSyn, .timestamps = true, .mss = 1460, .window_scale = 7, .sack_permitted = true};
  CHECK(kinds(h) == std::vector{2, 4, 8, 1, 3});
  h.sack_permitted = false;
  CHECK(kinds(h) == std::vector{2, 1, 1, 8, 1, 3});
  h.sack_permitted = true;
  h.timestamps = false;
  CHECK(kinds(h) == std::vector{2, 1, 1, 4, 1, 3});
}

TEST_CASE("rfc2018: a SACK option added to a written header is as one written with it") {
  for (const bool timestamps : {false, true}) {
    TcpHeader h{.flags = kAck, .timestamps = timestamps, .ts_val = 5, .sack_count = 3};
    for (std::uint32_t i = 0; i < 3; ++i) h.sack[i] = {Seq(100 * i), Seq(100 * i + 50)};
    const auto whole = header(h);
    h.sack_count = 0;
    auto added = header(h);
    const std::size_t length = added.size();
    added.resize(length + sack_option_length(3));
    write_sack_option(added.data() + length, std::span(h.sack).first(3));
    lengthen_header(added.data(), sack_option_length(3));
    CHECK(added == whole);
  }
}

TEST_CASE("rfc2018: a SACK option without whole blocks is ignored, the segment is not") {
  Bench bench;
  for (const auto& bytes : {std::vector{5, 2}, std::vector{5, 6, 1, 2, 3, 4}, std::vector{5, 12, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9}}) {
    REQUIRE(bench.parse(with_options(bytes, kAck)) == ParseError::none);
    CHECK(bench.segment.options.sack_count == 0);
  }
}

TEST_CASE("rfc2018: SACK blocks read back, up to four of them") {
  Bench bench;
  for (std::uint8_t count = 1; count <= 4; ++count) {
    TcpHeader h{.flags = kAck, .sack_count = count};
    for (std::uint32_t i = 0; i < count; ++i) h.sack[i] = {Seq(100 * i), Seq(100 * i + 50)};
    REQUIRE(bench.parse(header(h)) == ParseError::none);
    REQUIRE(bench.segment.options.sack_count == count);
    CHECK(bench.segment.options.sack[count - 1].end == Seq(100U * count - 50));
  }
}

TEST_CASE("rfc7323: a plain header is the same as one written option by option") {
  for (const bool timestamps : {false, true}) {
    const auto general = header({.source_port = 7,
                                 .destination_port = 8,
                                 .seq = Seq(9),
                                 .ack = Seq(10),
                                 .flags = kAck | kPsh,
                                 .window = 11,
                                 .timestamps = timestamps,
                                 .ts_val = 12,
                                 .ts_ecr = 13});
    std::vector<std::byte> plain(general.size());
    REQUIRE(write_tcp_plain(plain.data(), 7, 8, Seq(9), Seq(10), kAck | kPsh, 11, timestamps, 12, 13) ==
            plain.size());
    CHECK(plain == general);
  }
}

TEST_CASE(
    "rfc9293: a checksum over IPv4 and IPv6 pseudo-headers verifies; a wrong one, or another address, does "
    "not") {
  Bench bench;
  auto bytes = header({.source_port = 1, .destination_port = 2, .flags = kAck}, 33);
  add_checksum(bytes, kThere, kHere);
  CHECK(bench.parse(bytes, true) == ParseError::none);
  bench.put(bytes);
  CHECK(parse_tcp(bench.p, IpAddress::v4(10, 9, 0, 3), kHere, true, bench.segment) ==
        ParseError::bad_checksum);
  bytes[40] ^= std::byte{1};
  CHECK(bench.parse(bytes, true) == ParseError::bad_checksum);
  CHECK(bench.parse(bytes, false) == ParseError::none);

  IpAddress one;
  one.bytes[15] = 1;
  add_checksum(bytes, one, one);
  bench.put(bytes);
  CHECK(parse_tcp(bench.p, one, one, true, bench.segment) == ParseError::none);
}

TEST_CASE("rfc9293: a segment cut short anywhere in its header is refused and left alone") {
  Bench bench;
  const auto whole = header({.mss = 1460, .window_scale = 7, .sack_permitted = true}, 10);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<long>(n));
    const ParseError e = bench.parse(cut);
    INFO("length " << n);
    if (n < whole.size() - 10) {
      REQUIRE(e == ParseError::too_short);
      REQUIRE(bench.p->len == n);
    } else {
      REQUIRE(e == ParseError::none);
      REQUIRE(bench.segment.len == n - (whole.size() - 10));
    }
  }
}

TEST_CASE("rfc9293: a data offset below 5 is refused") {
  Bench bench;
  auto bytes = header({}, 100);
  for (unsigned offset = 0; offset < 5; ++offset) {
    bytes[12] = static_cast<std::byte>(offset << 4);
    CHECK(bench.parse(bytes) == ParseError::bad_header);
  }
}

TEST_CASE("rfc9293: an option of length 0 or 1, or one that runs past the header, ends the options and not the segment") {
  const std::vector<std::vector<int>> cases{{2, 0, 5, 180},     {8, 1, 0, 0}, {99, 0, 0, 0},
                                            {1, 1, 1, 2}, {1, 1, 2, 4}, {99, 255, 0, 0}};
  for (const auto& bad : cases) {
    // What comes before it counts, what follows does not.
    for (const bool first : {true, false}) {
      std::vector<int> options = bad;
      if (!first) options.insert(options.begin(), {3, 3, 7, 1});
      Bench bench;
      CAPTURE(bad, first);
      REQUIRE(bench.parse(with_options(options)) == ParseError::none);
      CHECK(bench.segment.options.mss == 0);
      CHECK_FALSE(bench.segment.options.has_timestamps);
      CHECK(bench.segment.options.has_window_scale == !first);
    }
  }
}

TEST_CASE("rfc9293: unknown options and those of a wrong length are stepped over") {
  Bench bench;
  REQUIRE(bench.parse(with_options(
              {99, 5, 1, 2, 3, 2, 3, 1, 2, 4, 5, 180, 3, 4, 7, 7, 4, 3, 0, 8, 4, 0, 0})) == ParseError::none);
  CHECK(bench.segment.options.mss == 1460);
  CHECK_FALSE(bench.segment.options.has_window_scale);
  CHECK_FALSE(bench.segment.options.sack_permitted);
  CHECK_FALSE(bench.segment.options.has_timestamps);
}

TEST_CASE("rfc9293: nothing behind the end of the option list is read") {
  Bench bench;
  REQUIRE(bench.parse(with_options({0, 2, 4, 5, 180, 3, 0, 0})) == ParseError::none);
  CHECK(bench.segment.options.mss == 0);
}

TEST_CASE("rfc7323: a window scale above 14 counts as 14, and options of a SYN count only there") {
  Bench bench;
  REQUIRE(bench.parse(with_options({3, 3, 200, 1})) == ParseError::none);
  CHECK(bench.segment.options.window_scale == 14);
  REQUIRE(bench.parse(with_options({3, 3, 7, 2, 4, 5, 180, 4, 2}, kAck)) == ParseError::none);
  CHECK_FALSE(bench.segment.options.has_window_scale);
  CHECK(bench.segment.options.mss == 0);
  CHECK_FALSE(bench.segment.options.sack_permitted);
}

TEST_CASE("Random bytes never make the parser read outside the packet or claim more than there is") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  Bench bench;
  unsigned accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes(random() % 100);
    for (auto& b : bytes) b = static_cast<std::byte>(random() % 3 == 0 ? random() % 12 : random());
    if (bench.parse(bytes) != ParseError::none) continue;
    ++accepted;
    REQUIRE(bench.segment.len + kTcpHeader <= bytes.size());
    REQUIRE(bench.segment.options.sack_count <= 4);
    REQUIRE(bench.segment.options.window_scale <= 14);
  }
  CHECK(accepted > 0);
}

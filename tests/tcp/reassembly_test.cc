// Segments out of order: what is kept of them, and what that costs.
#include <map>
#include <random>

#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

In at(std::uint32_t from, std::uint32_t n) { return {.seq = from, .ack = 0, .data = pattern(n, from)}; }

}  // namespace

TEST_CASE("rfc9293 3.8.6: the window is a promise: what runs on behind a gap is kept, whatever its segments' sizes are") {
  for (const std::uint32_t n : {1U, 7U, 88U, 89U, 200U, 257U, 536U, 700U, 1000U, 1024U, 1200U, 1400U, 1460U}) {
    INFO("segments of " << n);
    Script s;
    const std::uint32_t window = s.info().rcv_wnd;
    std::uint32_t end = n;
    for (; end + n <= window; end += n) {
      s.peer(at(end, n));
      s.forget();
    }
    CHECK(s.count(Counter::out_of_order_pruned) == 0);
    s.peer(at(0, n));
    CHECK(s.last_sent().ack == end);
    CHECK(s.read() == pattern(end));
  }
}

TEST_CASE("Filled from its end, a window is kept as well") {
  for (const std::uint32_t n : {5U, 60U, 536U, 1400U}) {
    INFO("segments of " << n);
    Script s;
    const std::uint32_t window = s.info().rcv_wnd / n * n;
    for (std::uint32_t from = window - n; from != 0; from -= n) {
      s.peer(at(from, n));
      s.forget();
    }
    s.peer(at(0, n));
    CHECK(s.read() == pattern(s.last_sent().ack));
    if (n >= 536) CHECK(s.count(Counter::out_of_order_pruned) == 0);
  }
}

TEST_CASE("rfc9293 3.10.7.4: of contradicting data out of order what came first stays, unless it is covered whole (as Linux)") {
  struct Case {
    const char* name;
    std::uint32_t from, size;  // of the second segment; the first has 20 bytes from 100 on
    std::string reads;         // from 100 on
  };
  const auto a = [](std::size_t n) { return std::string(n, 'a'); };
  const auto b = [](std::size_t n) { return std::string(n, 'b'); };
  const Case cases[] = {
      {"the same", 100, 20, a(20)},  {"its beginning", 100, 10, a(20)}, {"beyond its end", 110, 20, a(20) + b(10)}, {"inside", 105, 10, a(20)},
      {"covered, from its beginning", 100, 40, b(40)}, {"covered on both sides", 90, 40, b(30)}, {"covered to its end", 90, 30, b(20)},
  };
  for (const Case& each : cases) {
    for (const std::uint32_t scale : {1U, 10U}) {  // in the island itself, and in packets
      CAPTURE(each.name, scale);
      Setup setup;
      setup.sack = true;
      Script s(setup);
      s.peer({.seq = 100 * scale, .ack = 0, .data = std::string(std::size_t{20} * scale, 'a')});
      s.peer({.seq = each.from * scale, .ack = 0, .data = std::string(std::size_t{each.size} * scale, 'b')});
      s.forget();
      s.peer({.seq = 0, .ack = 0, .data = std::string(std::size_t{90} * scale, 'c')});
      if (each.from >= 100) s.peer({.seq = 90 * scale, .ack = 0, .data = std::string(std::size_t{10} * scale, 'c')});
      std::string wanted;
      for (const char byte : each.reads) wanted += std::string(scale, byte);
      const std::string got = s.read();
      REQUIRE(got.size() >= 100 * scale);
      CHECK(got.substr(100 * scale) == wanted);
      CHECK(s.info().rcv_wnd != 0);
    }
  }
}

TEST_CASE("rfc9293 3.10.7.4: pieces of all sizes in any order, again and overlapping, yield the stream") {
  const unsigned seed = GENERATE(range(1U, 30U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  Setup setup;
  setup.sack = seed % 2 == 0;
  Script s(setup);
  constexpr std::uint32_t kLength = 60000;
  const std::string stream = pattern(kLength);
  const std::uint32_t most = std::array{3U, 30U, 90U, 600U, 1460U}[seed % 5];
  std::string got;
  for (int i = 0; i < 100000 && got.size() < kLength; ++i) {
    const std::uint32_t acked = static_cast<std::uint32_t>(s.info().bytes_received);
    const std::uint32_t from = std::min<std::uint32_t>(acked + random() % 5000, kLength - 1);
    const std::uint32_t n = std::min<std::uint32_t>(1 + random() % most, kLength - from);
    s.peer({.seq = from, .ack = 0, .data = stream.substr(from, n)});
    if (random() % 20 == 0) s.peer({.seq = acked, .ack = 0, .data = stream.substr(acked, 1 + random() % 400)});
    for (const Out& o : s.all_sent())
      for (const auto& [begin, end] : o.sack) REQUIRE((begin < end && end <= kLength));
    if (random() % 50 == 0) got += s.read(random() % 4000);
  }
  got += s.read();
  REQUIRE(got == stream);
}

TEST_CASE("A few bytes out of order hold no packet") {
  Script s;
  s.peer(at(1, 1));
  const auto before = s.pool.available();
  for (std::uint32_t i = 1; i < 200; ++i) {
    s.peer(at(100 * i, 1 + i % 87));
    s.forget();
  }
  CHECK(before - s.pool.available() <= 256);  // what the stock of the stack takes
  CHECK(s.count(Counter::out_of_order_pruned) == 0);
}

TEST_CASE("rfc2018 8: at the limit the last of what is out of order goes, and is not reported any more") {
  Setup setup;
  setup.sack = true;
  Script s(setup);
  std::uint32_t last = 0;
  for (std::uint32_t from = 2000; s.count(Counter::out_of_order_pruned) == 0; from += 12) {
    REQUIRE(from < s.info().rcv_wnd);
    s.peer(at(from, 10));
    const Out o = s.last_sent();
    if (s.count(Counter::out_of_order_pruned) == 0) last = o.sack.front().first;
  }
  s.peer(at(1000, 10));  // before all of them
  const Out o = s.last_sent();
  REQUIRE(!o.sack.empty());
  CHECK(o.sack.front() == std::pair{1000U, 1010U});
  for (const auto& [begin, end] : o.sack) CHECK(begin != last);
  s.peer(at(0, 1000));
  CHECK(s.last_sent().ack == 1010);
}

TEST_CASE("In-order data comes before data out of order, of which no more goes than must") {
  Setup setup;
  setup.socket.rcvbuf = 16384;
  Script s(setup);
  for (std::uint32_t from = 100; from + 60 <= s.info().rcv_wnd; from += 61) s.peer(at(from, 60));
  s.forget();
  for (std::uint32_t from = 0; from < 100; ++from) s.peer(at(from, 1));
  CHECK(s.last_sent().ack == 160);
  for (std::uint32_t from = 160; from < 500; ++from) s.peer(at(from, 1));
  CHECK(s.read() == pattern(s.last_sent().ack));
}

TEST_CASE("rfc9293 3.10.7.4: data that has come in order is not taken back by a FIN in its midst") {
  Script s;
  s.peer({.seq = 100, .ack = 0, .flags = kFin | kAck});
  s.peer(at(0, 150));
  CHECK(s.last_sent().ack == 150);
  CHECK(s.read() == pattern(150));
  CHECK(s.info().state == State::established);
  s.peer(at(150, 10));
  CHECK(s.last_sent().ack == 160);
  s.peer({.seq = 160, .ack = 0, .flags = kFin | kAck});
  CHECK(s.last_sent().ack == 161);
  CHECK(s.info().state == State::close_wait);
}

TEST_CASE("rfc9293 3.10.7.4: what is beyond a FIN is dropped, and not reported") {
  Setup setup;
  setup.sack = true;
  Script s(setup);
  s.peer(at(300, 50));
  s.peer({.seq = 100, .ack = 0, .flags = kFin | kAck});
  s.peer(at(0, 100));
  const Out last = s.last_sent();
  CHECK(last.ack == 101);
  CHECK(last.sack.empty());
  CHECK(s.count(Counter::out_of_order_pruned) == 1);
  CHECK(s.read() == pattern(100));
  CHECK(s.info().state == State::close_wait);
}

TEST_CASE("A connection that ends gives back what is out of order") {
  Script s;
  s.peer(at(5000, 1000));
  s.peer(at(7000, 5));
  s.peer({.seq = 0, .ack = 0, .flags = kRst});
  CHECK(s.info().state == State::closed);
  CHECK(s.read().empty());
}

}  // namespace mtcp::test

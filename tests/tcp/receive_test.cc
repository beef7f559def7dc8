// What arrives: order, windows, timestamps, FIN, hostile segments.
#include <random>

#include "tests/tcp/script.hh"

namespace mtcp::test {

TEST_CASE("rfc9293 3.10.7.4: data in order is read as it was sent") {
  Script s;
  s.peer_data("hello ");
  s.peer_data("world");
  CHECK(s.worker->readable_bytes(*s.c) == 11);
  CHECK((s.edges() & SocketBase::kReadEdge) != 0);
  CHECK(s.read(3) == "hel");
  CHECK(s.read() == "lo world");
  CHECK(s.read_result().error() == Errc::would_block);
}

TEST_CASE("MSG_PEEK leaves the data, MSG_TRUNC counts it") {
  Script s;
  s.peer_data("abcdef");
  char buffer[4] = {};
  const iovec v{buffer, 4};
  CHECK(*s.worker->receive(*s.c, {&v, 1}, {.peek = true}, s.now) == 4);
  CHECK(std::string(buffer, 4) == "abcd");
  CHECK(*s.worker->receive(*s.c, {&v, 1}, {.discard = true}, s.now) == 4);
  CHECK(s.read() == "ef");
}

TEST_CASE("rfc9293 3.10.7.4: overlapping, repeated and disordered segments yield the stream, byte by byte") {
  const auto seed = GENERATE(range(1U, 25U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  Script s;
  const std::string stream = pattern(30000);
  std::string got;
  std::uint32_t next = 0;  // what the peer knows to be acknowledged
  for (int i = 0; i < 20000 && got.size() < stream.size(); ++i) {
    const std::uint32_t from =
        std::min<std::uint32_t>(next + random() % 6000 - std::min(next, 1000U) * (random() % 2),
                                static_cast<std::uint32_t>(stream.size()) - 1);
    const std::uint32_t most = random() % 3 == 0 ? 40 : 1400;
    const std::uint32_t n =
        std::min<std::uint32_t>(1 + random() % most, static_cast<std::uint32_t>(stream.size()) - from);
    s.peer({.seq = from, .ack = 0, .data = stream.substr(from, n)});
    if (random() % 8 == 0) s.peer({.seq = next, .ack = 0, .data = stream.substr(next, 100)});
    if (random() % 3 == 0) got += s.read(random() % 4000);
    for (const Out& o : s.all_sent()) {
      REQUIRE(o.ack >= next);
      next = o.ack;
    }
  }
  got += s.read();
  REQUIRE(got == stream);
}

TEST_CASE("rfc7323 2.4, rfc9293 3.8.6: the right edge of the window never moves to the left") {
  const auto seed = GENERATE(range(1U, 20U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  Script s;
  std::uint32_t edge = 0, at = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::uint32_t n = 1 + random() % 1400;
    if (at + n <= edge || edge == 0) {
      s.peer({.seq = at, .ack = 0, .data = pattern(n)});
      at += n;
    }
    if (random() % 2 == 0) s.read(random() % 3000);
    for (const Out& o : s.all_sent()) {
      const std::uint32_t right = o.ack + (o.window << s.info().rcv_wscale);
      REQUIRE(right >= edge);
      edge = right;
    }
  }
}

TEST_CASE("rfc9293 3.8.6.2.2: a window that is full opens again only by a segment or half of the buffer") {
  Setup setup;
  setup.socket.rcvbuf = 16384;
  setup.peer_wscale = -1;
  Script s(setup);
  const std::uint32_t window = s.info().rcv_wnd;
  REQUIRE(window == 8192);
  for (std::uint32_t sent = 0; sent < window; sent += 1024) s.peer_data(pattern(1024));
  CHECK(s.last_sent().window == 0);
  CHECK(s.read(500).size() == 500);
  CHECK(s.sent_nothing());
  CHECK(s.read(3000).size() == 3000);
  const Out update = s.sent();
  CHECK(update.window >= 1024);
  CHECK(s.sent_nothing());
}

TEST_CASE("rfc9293 3.8.6.1: data into a closed window is dropped and answered, a bare FIN is taken") {
  Setup setup;
  setup.socket.rcvbuf = 4096;
  Script s(setup);
  const std::uint32_t window = s.info().rcv_wnd;
  for (std::uint32_t at = 0; at < window; at += window / 2) s.peer_data(pattern(window / 2));
  s.forget();
  s.peer({.seq = window, .ack = 0, .data = "z"});
  CHECK(s.last_sent().ack == window);
  CHECK(s.count(Counter::receive_buffer_full) == 1);
  s.peer({.seq = window, .ack = 0, .flags = kAck | kFin});
  CHECK(s.info().state == State::close_wait);
  CHECK(s.read().size() == window);
  CHECK(*s.read_result() == 0);
}

TEST_CASE("rfc9293 3.10.7.4: what lies beyond the window is cut off") {
  Setup setup;
  setup.socket.rcvbuf = 4096;
  Script s(setup);
  const std::uint32_t window = s.info().rcv_wnd;
  s.peer({.seq = 0, .ack = 0, .data = pattern(1000)});
  s.peer({.seq = 1000, .ack = 0, .data = pattern(1400, 1000)});
  const std::string got = s.read();
  CHECK(got == pattern(got.size()));
  CHECK(got.size() >= window);
  CHECK(got.size() <= window + window / 8);
}

TEST_CASE("rfc9293 3.10.7.4: a segment outside the window draws an ACK, but not one without data for ever") {
  Script s;
  s.peer({.seq = 4000000, .ack = 0, .data = "far"});
  CHECK(s.sent().ack == 0);
  CHECK(s.count(Counter::out_of_window) == 1);
  for (int i = 0; i < 10; ++i) s.peer({.seq = 4000000, .ack = 0});
  CHECK(s.all_sent().size() == 1);  // one in 500 ms
  s.peer({.seq = 4000000, .ack = 0, .flags = kRst});
  CHECK(s.sent_nothing());
}

TEST_CASE("A keep-alive of the peer is answered") {
  Script s;
  s.peer_data("x");
  s.forget();
  s.peer({.seq = 0, .ack = 0});
  CHECK(s.sent().ack == 1);
}

TEST_CASE("rfc7323 4.3: the timestamp of the segment at the left edge is echoed") {
  Setup setup;
  setup.timestamps = true;
  Script s(setup);
  s.peer({.seq = 0, .ack = 0, .data = "a", .ts_val = 8000000});
  CHECK(s.sent().options.ts_ecr == 8000000);
  s.peer({.seq = 5, .ack = 0, .data = "f", .ts_val = 8000010});  // behind a gap
  CHECK(s.sent().options.ts_ecr == 8000000);
  s.peer({.seq = 1, .ack = 0, .data = "bcde", .ts_val = 8000005});
  CHECK(s.sent().options.ts_ecr == 8000005);
}

TEST_CASE("rfc7323 5.3: PAWS drops a segment with an older timestamp and answers it") {
  Setup setup;
  setup.timestamps = true;
  Script s(setup);
  s.peer({.seq = 0, .ack = 0, .data = "new", .ts_val = 9000000});
  s.forget();
  s.peer({.seq = 3, .ack = 0, .data = "old", .ts_val = 8999998});
  CHECK(s.sent().ack == 3);
  CHECK(s.count(Counter::paws_rejected) == 1);
  CHECK(s.read() == "new");
  // As Linux: by one tick it is not older, but does not become the newest either.
  s.peer({.seq = 3, .ack = 0, .data = "same", .ts_val = 8999999});
  CHECK(s.count(Counter::paws_rejected) == 1);
  CHECK(s.read() == "same");
  CHECK(s.last_sent().options.ts_ecr == 9000000);
}

TEST_CASE("rfc7323 5.5: after 24 days of silence the old timestamp means nothing") {
  Setup setup;
  setup.timestamps = true;
  Script s(setup);
  s.peer({.seq = 0, .ack = 0, .data = "new", .ts_val = 9000000});
  s.now += std::chrono::hours(25 * 24);
  s.worker->poll(s.now);
  s.peer({.seq = 3, .ack = 0, .data = "!", .ts_val = 5});
  CHECK(s.read() == "new!");
}

TEST_CASE("rfc9293 3.10.7.4: a FIN out of order waits for what precedes it") {
  Script s;
  s.peer({.seq = 3, .ack = 0, .data = "def", .flags = kAck | kFin});
  CHECK(s.info().state == State::established);
  s.peer({.seq = 0, .ack = 0, .data = "abc"});
  CHECK(s.info().state == State::close_wait);
  CHECK(s.last_sent().ack == 7);
  CHECK(s.read() == "abcdef");
  CHECK(*s.read_result() == 0);
}

TEST_CASE("rfc9293 3.10.7.4: a FIN that comes twice is acknowledged twice") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "abc", .flags = kAck | kFin});
  CHECK(s.last_sent().ack == 4);
  s.peer({.seq = 0, .ack = 0, .data = "abc", .flags = kAck | kFin});
  CHECK(s.last_sent().ack == 4);
  CHECK(s.read() == "abc");
  CHECK(s.worker->readiness(*s.c).peer_closed);
}

TEST_CASE("rfc9293 3.10.7.4: what begins behind a FIN is ignored, and a FIN in the midst of data ends the connection") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "abc", .flags = kAck | kFin});
  s.forget();
  s.peer({.seq = 4, .ack = 0, .data = "behind"});
  s.peer({.seq = 4, .ack = 0, .flags = kAck | kFin});
  CHECK(s.all_sent().empty());
  CHECK(s.info().state == State::close_wait);
  s.peer({.seq = 3, .ack = 0, .data = "no FIN"});
  CHECK(s.sent().rst());
  CHECK(s.count(Counter::data_after_close) == 1);
  CHECK(s.worker->take_error(*s.c) == Errc::broken_pipe);
  CHECK(s.read() == "abc");
}

TEST_CASE("rfc1122 4.2.2.13: data for an application that has closed draws a reset") {
  Script s;
  s.close();
  CHECK(s.sent().fin());
  const std::uint32_t acknowledged = GENERATE(0U, 1U);  // our FIN, or not yet
  s.peer({.seq = 0, .ack = acknowledged, .data = "nobody reads this"});
  const auto reset = s.sent();
  CHECK(reset.rst());
  CHECK(reset.seq == acknowledged);  // RFC 9293 3.5.2: that of the ACK
  CHECK(s.worker->connections() == 0);
  CHECK(s.count(Counter::data_after_close) == 1);
}

TEST_CASE("rfc1122 4.2.2.13: so does a FIN behind a gap, but not one that follows on what was read") {
  Script s;
  s.close();
  s.forget();
  s.peer({.seq = 100, .ack = 0, .flags = kAck});
  CHECK(s.count(Counter::data_after_close) == 0);
  SECTION("in order") {
    s.peer({.seq = 0, .ack = 1, .flags = kAck | kFin});
    CHECK(s.count(Counter::data_after_close) == 0);
    CHECK(s.worker->time_waits() == 1);
  }
  SECTION("behind a gap") {
    s.peer({.seq = 100, .ack = 1, .flags = kAck | kFin});
    CHECK(s.last_sent().rst());
    CHECK(s.count(Counter::data_after_close) == 1);
    CHECK(s.worker->connections() == 0);
  }
}

TEST_CASE("rfc9293 3.10.7.4: a segment without ACK is dropped") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "x", .flags = 0});
  CHECK(s.read().empty());
  CHECK(s.count(Counter::no_ack_flag) == 1);
}

TEST_CASE("SO_RCVLOWAT: readable only with as much as was asked for") {
  Setup setup;
  setup.socket.rcvlowat = 10;
  Script s(setup);
  s.peer_data("12345");
  CHECK(!s.worker->readiness(*s.c).readable);
  CHECK((s.edges() & SocketBase::kReadEdge) == 0);
  s.peer_data("67890");
  CHECK(s.worker->readiness(*s.c).readable);
  CHECK((s.edges() & SocketBase::kReadEdge) != 0);
}

TEST_CASE("shutdown(SHUT_RD): what is there can be read, then the stream ends") {
  Script s;
  s.peer_data("left");
  s.worker->shutdown(*s.c, true, false, s.now);
  CHECK(s.read() == "left");
  CHECK(*s.read_result() == 0);
  CHECK(s.worker->readiness(*s.c).readable);
}

TEST_CASE("rfc7323 2: the window scale is for the buffer that there may be, as Linux chooses it") {
  const auto scale = [](std::uint32_t rcvbuf, std::uint32_t clamp) {
    Setup setup;
    setup.socket.rcvbuf = rcvbuf;
    setup.socket.window_clamp = clamp;
    const Script s(setup);
    return int{s.syn->options.window_scale};
  };
  CHECK(scale(0, 0) == 10);
  CHECK(scale(16384, 0) == 0);
  CHECK(scale(1 << 20, 0) == 4);
  CHECK(scale(0, 100'000) == 1);
}

TEST_CASE("TCP_WINDOW_CLAMP bounds the window") {
  Setup setup;
  setup.socket.window_clamp = 5000;
  setup.peer_wscale = -1;
  Script s(setup);
  s.peer_data("x");
  CHECK(s.last_sent().window <= 5000);
}

TEST_CASE("One-byte segments cost no more memory than twice the receive buffer") {
  Script s;
  const auto before = s.pool.available();
  for (std::uint32_t i = 0; i < 60000; ++i) {
    s.peer({.seq = i, .ack = 0, .data = "b"}, i % 100 == 0);
    s.forget();
  }
  CHECK(before - s.pool.available() < 2 * 131072 / 2048 + 400);  // and what the caches hold
  CHECK(s.read().size() == 60000);
}

TEST_CASE("Segments of one byte behind gaps cost no more memory than the limit of the receive buffer") {
  Script s;
  const auto before = s.pool.available();
  for (std::uint32_t i = 0; i < 30000; ++i) {
    s.peer({.seq = 2 * i + 1, .ack = 0, .data = "g"});
    s.forget();
  }
  CHECK(before - s.pool.available() < 131072 / 2048 * 5 / 4 + 8 + 400);
  CHECK(s.count(Counter::out_of_order_pruned) > 0);
  // In-order data comes before it.
  s.peer({.seq = 0, .ack = 0, .data = pattern(1400)});
  CHECK(s.read().size() >= 1400);
}

TEST_CASE("rfc9293 3.8.6.2.2: the receive buffer grows with what the application reads in a round trip") {
  Setup setup;
  setup.timestamps = true;
  Script s(setup);
  const auto before = s.info().rcv_wnd;
  for (int round = 0; round < 8; ++round) {
    s.now += milliseconds(10);
    s.worker->poll(s.now);
    std::uint32_t room = s.info().rcv_wnd;
    for (; room >= 1400; room -= 1400) {
      s.peer_data(pattern(1400));
      s.read();
      s.forget();
    }
  }
  CHECK(s.info().rcv_wnd > 4 * before);
  CHECK(s.info().rcv_wnd <= 33554432 / 2);
}

}  // namespace mtcp::test

// How much it costs to recover: counts of segments, retransmissions and timeouts, and the time that transfers
// take.
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

// A client that sends to a server over a path of 10 ms, and the counters of both.
struct OneWay {
  explicit OneWay(std::uint64_t seed = 1) : sim(seed) {
    sim.wire.options.delay = milliseconds(5);
    server.on_accept = [](Socket& s) { s.close_on_eof = true; };
    listener = &server.listen(80);
  }
  Socket& start(std::uint64_t bytes, const SocketOptions& o = {}) {
    Socket& c = client.connect(server, 80, o);
    c.send(bytes);
    c.shutdown_when_sent = c.close_on_eof = true;
    return c;
  }
  // Virtual time until both ends have closed.
  Duration finish(Socket& c, Duration limit = seconds(600)) {
    const Time start = sim.now;
    REQUIRE(sim.run_until(
        [&] {
          return c.connection == nullptr && !server.accepted.empty() && !server.accepted[0]->connection;
        },
        limit));
    CHECK(server.accepted[0]->received == c.to_send);
    CHECK(server.accepted[0]->wrong == 0);
    return sim.now - start;
  }
  Sim sim;
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  Listener* listener = nullptr;
};

}  // namespace

TEST_CASE("rfc5681: on a clean wire nothing is sent twice, and the window opens", "[sim]") {
  OneWay w;
  Socket& c = w.start(20'000'000);
  const Duration took = w.finish(c);
  CHECK(w.client.count(Counter::retransmitted_segments) == 0);
  CHECK(w.client.count(Counter::duplicate_acks_received) == 0);
  CHECK(w.server.count(Counter::out_of_order_queued) == 0);
  // 20 MB over 10 ms: eight round trips of slow start to the 3 MB that the receive buffer allows, then 300
  // MB/s.
  CHECK(took < milliseconds(400));
  // Stretched ACKs, but no more than one for two segments.
  CHECK(w.server.count(Counter::segments_sent) < 20'000'000 / 1448 / 2 + 100);
}

TEST_CASE("rfc5681 3.2: one lost segment costs one fast retransmit and no timeout", "[sim]") {
  for (unsigned nth : {20U, 100U, 500U}) {
    OneWay w;
    w.sim.wire.drop(is_data, nth);
    Socket& c = w.start(2'000'000);
    w.finish(c);
    INFO("segment " << nth);
    CHECK(w.client.count(Counter::fast_retransmits) == 1);
    CHECK(w.client.count(Counter::retransmitted_segments) == 1);
    CHECK(w.client.count(Counter::rto_fired) == 0);
  }
}

TEST_CASE("rfc6582: several losses in one window cost one recovery, a round trip each, and no timeout",
          "[sim]") {
  OneWay w;
  unsigned n = 0;
  w.sim.wire.drop_if = [&n](const FrameInfo& f) {
    if (!is_data(f) || f.retransmission) return false;
    ++n;
    return n == 200 || n == 204 || n == 209 || n == 215;
  };
  Socket& c = w.start(2'000'000);
  w.finish(c);
  CHECK(w.client.count(Counter::fast_retransmits) == 1);
  CHECK(w.client.count(Counter::retransmitted_segments) == 4);
  CHECK(w.client.count(Counter::rto_fired) == 0);
}

TEST_CASE("rfc8985: a retransmission that is lost, too, costs another one and no timeout", "[sim]") {
  OneWay w;
  w.sim.wire.drop(is_data, 100);
  w.sim.wire.drop(is_retransmission, 1);
  Socket& c = w.start(1'000'000);
  w.finish(c);
  CHECK(w.client.count(Counter::rto_fired) == 0);
  CHECK(w.client.count(Counter::retransmitted_segments) == 2);
}

TEST_CASE("rfc6298: without SACK, a retransmission that is lost, too, costs one timeout", "[sim]") {
  OneWay w;
  w.client.options.tcp.sack = false;
  w.sim.wire.drop(is_data, 100);
  w.sim.wire.drop(is_retransmission, 1);
  Socket& c = w.start(1'000'000);
  w.finish(c);
  CHECK(w.client.count(Counter::rto_fired) == 1);
}

TEST_CASE("rfc3042: the loss of a segment near the end of a small window still needs no timeout", "[sim]") {
  OneWay w;
  w.sim.wire.drop(is_data, 6);
  Socket& c = w.start(10 * 1448);
  w.finish(c);
  CHECK(w.client.count(Counter::rto_fired) == 0);
  CHECK(w.client.count(Counter::fast_retransmits) == 1);
}

TEST_CASE("rfc8985 7: losing the very last segment costs a tail probe and no timeout", "[sim]") {
  OneWay w;
  w.sim.wire.drop(is_data, 10);
  Socket& c = w.start(10 * 1448);
  const Duration took = w.finish(c);
  CHECK(w.client.count(Counter::rto_fired) == 0);
  CHECK(w.client.count(Counter::tail_probes_sent) == 1);
  CHECK(took < milliseconds(400));
}

TEST_CASE("rfc6298: without SACK, losing the very last segment costs one timeout", "[sim]") {
  OneWay w;
  w.client.options.tcp.sack = false;
  w.sim.wire.drop(is_data, 10);
  Socket& c = w.start(10 * 1448);
  const Duration took = w.finish(c);
  CHECK(w.client.count(Counter::rto_fired) == 1);
  CHECK(took < milliseconds(400));
}

TEST_CASE("rfc5681: lost ACKs alone cause no retransmission while others get through", "[sim]") {
  OneWay w;
  w.sim.wire.options.bandwidth = 1.25e7;  // or a whole flight would arrive at once, and draw a single ACK
  unsigned n = 0;
  w.sim.wire.drop_if = [&n](const FrameInfo& f) { return is_pure_ack(f) && f.from == 0 && ++n % 2 == 0; };
  Socket& c = w.start(2'000'000);
  w.finish(c);
  CHECK(w.client.count(Counter::fast_retransmits) == 0);
  CHECK(w.client.count(Counter::rto_fired) <= 2);  // the ACKs of the FIN may be among them
}

TEST_CASE("rfc5681: a bottleneck is kept busy", "[sim]") {
  OneWay w;
  w.sim.wire.options.bandwidth = 1.25e6;  // 10 Mbit/s; a bandwidth-delay product of nine segments
  w.sim.wire.options.queue = 40;
  Socket& c = w.start(5'000'000);
  const Duration took = w.finish(c);
  const Duration least = milliseconds(5000 * 1514 / 1448 * 4 / 5);
  CHECK(took < least + least / 5);
}

TEST_CASE("rfc9293 3.8.6.1: a reader that stops and goes on neither loses data nor keeps the sender asleep",
          "[sim]") {
  OneWay w;
  Socket* reader = nullptr;
  w.server.on_accept = [&reader](Socket& s) {
    s.close_on_eof = true;
    s.reading = false;
    reader = &s;
  };
  Socket& c = w.start(1'000'000);
  w.sim.run_for(seconds(60));
  REQUIRE(reader != nullptr);
  REQUIRE(c.connection != nullptr);
  CHECK(w.client.count(Counter::window_probes_sent) >= 3);
  CHECK(w.client.count(Counter::window_probes_sent) < 20);
  CHECK(w.client.count(Counter::rto_fired) == 0);
  reader->reading = true;
  reader->kick();
  const Duration took = w.finish(c);
  CHECK(took < milliseconds(500));  // the window update, not the next probe, wakes the sender
}

TEST_CASE("rfc9293 3.8.6.1: a lost window update is made up for by the next probe", "[sim]") {
  OneWay w;
  Socket* reader = nullptr;
  w.server.on_accept = [&reader](Socket& s) {
    s.close_on_eof = true;
    s.reading = false;
    reader = &s;
  };
  Socket& c = w.start(500'000);
  w.sim.run_for(seconds(1));
  REQUIRE(reader != nullptr);
  w.sim.wire.drop(is_pure_ack, 1, 3);
  reader->reading = true;
  reader->kick();
  w.finish(c, seconds(30));
}

TEST_CASE("rfc9293 3.8.6.2: a reader that takes a few bytes at a time gets no silly segments", "[sim]") {
  OneWay w;
  Worker::ListenOptions o;
  o.socket.rcvbuf = 32768;
  w.server.listen(81, o);
  Socket* reader = nullptr;
  w.server.on_accept = [&reader](Socket& s) {
    s.close_on_eof = true;
    s.read_limit = 100;
    reader = &s;
  };
  std::uint64_t segments = 0, bytes = 0;
  w.sim.wire.tap = [&](const FrameInfo& f) {
    if (is_data(f)) ++segments, bytes += f.len;
  };
  Socket& c = w.client.connect(w.server, 81);
  c.send(300'000);
  c.shutdown_when_sent = c.close_on_eof = true;
  for (int i = 0; i < 40000 && c.connection != nullptr; ++i) {
    w.sim.run_for(milliseconds(1));
    if (reader != nullptr && reader->connection != nullptr) reader->kick();
  }
  CHECK(c.connection == nullptr);
  CHECK(bytes / segments > 1000);
}

TEST_CASE("rfc5681 4.1: a burst after an idle time begins with the restart window", "[sim]") {
  OneWay w;
  Socket& c = w.client.connect(w.server, 80);
  c.send(3'000'000);
  REQUIRE(w.sim.run_until(
      [&] { return !w.server.accepted.empty() && w.server.accepted[0]->received == 3'000'000; }));
  w.sim.run_for(seconds(20));
  unsigned burst = 0;
  w.sim.wire.tap = [&burst](const FrameInfo& f) { burst += is_data(f) ? 1 : 0; };
  c.send(500'000);
  w.sim.run_for(milliseconds(4));  // less than a round trip
  CHECK(burst == 10);
}

TEST_CASE("rfc9293 3.8.6.3: request and response are one segment each way", "[sim]") {
  OneWay w;
  w.server.on_accept = [](Socket& s) { s.echo = true; };
  Socket& c = w.client.connect(w.server, 80);
  REQUIRE(w.sim.run_until([&] { return c.connected; }));
  w.sim.run_for(milliseconds(50));
  std::uint64_t frames = 0;
  w.sim.wire.tap = [&frames](const FrameInfo&) { ++frames; };
  for (std::uint64_t i = 1; i <= 100; ++i) {
    c.send(64);
    REQUIRE(w.sim.run_until([&] { return c.received == 64 * i; }));
  }
  CHECK(frames <= 2 * 100 + 20);  // quick ACKs at the start
}

TEST_CASE("rfc2861 3.2: a window of which little is used for an RTO shrinks halfway to that, and ssthresh remembers it", "[sim]") {
  for (const bool after_idle : {true, false}) {
    OneWay w;
    w.client.options.tcp.slow_start_after_idle = after_idle;
    Socket& c = w.client.connect(w.server, 80);
    c.send(3'000'000);
    REQUIRE(w.sim.run_until([&] { return !w.server.accepted.empty() && w.server.accepted[0]->received == 3'000'000; }));
    const std::uint32_t cwnd = w.client.worker->info(*c.connection).cwnd;
    REQUIRE(cwnd > 500'000);
    // Never idle for an RTO, and three segments at a time.
    for (int i = 0; i < 30; ++i) {
      c.send(4000);
      w.sim.run_for(milliseconds(50));
    }
    const ConnectionInfo info = w.client.worker->info(*c.connection);
    if (after_idle) {
      CHECK(info.cwnd < cwnd / 16);
      CHECK(info.cwnd >= 10 * 1448);
    } else {
      CHECK(info.cwnd >= cwnd);
    }
  }
}

TEST_CASE("rfc7661: a window that is in use does not shrink, however small the writes are", "[sim]") {
  OneWay w;
  w.sim.wire.options.bandwidth = 1.25e6;
  w.sim.wire.options.queue = 1000;
  Socket& c = w.client.connect(w.server, 80);
  std::uint32_t least = UINT32_MAX;
  for (int i = 0; i < 3000; ++i) {
    if (c.to_send - (w.server.accepted.empty() ? 0 : w.server.accepted[0]->received) < 100'000) c.send(3000);
    w.sim.run_for(milliseconds(1));
    if (i > 1000) least = std::min<std::uint32_t>(least, w.client.worker->info(*c.connection).cwnd);
  }
  CHECK(least > 40'000);
}

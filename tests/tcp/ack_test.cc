// What an ACK does: acceptability, RTT, RTO, congestion window, loss recovery, giving up.
#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

// The segments of `all` that carry data, as (seq, length).
std::vector<std::pair<std::uint32_t, std::size_t>> data_of(const std::vector<Out>& all) {
  std::vector<std::pair<std::uint32_t, std::size_t>> v;
  for (const Out& o : all)
    if (!o.data.empty()) v.emplace_back(o.seq, o.data.size());
  return v;
}
using Data = std::vector<std::pair<std::uint32_t, std::size_t>>;

// Nine more segments than the peer has ACKed are on their way, and there is more to send.
void fill(Script& s) {
  s.peer_ack(0);  // the window, scaled: what follows does not change it
  s.write(pattern(50000));
  REQUIRE(s.all_sent().size() == 10);
}

Setup reno() {
  Setup setup;
  setup.options.tcp.congestion_control = "reno";
  return setup;
}

}  // namespace

TEST_CASE("rfc5961 5.2: an ACK of something never sent draws a challenge ACK and is dropped") {
  Script s;
  s.write("abc");
  s.forget();
  s.peer({.seq = 0, .ack = 4, .data = "not taken"});
  CHECK(s.sent().ack == 0);
  CHECK(s.count(Counter::bad_ack) == 1);
  CHECK(s.read().empty());
}

TEST_CASE("rfc5961 5.2: an ACK older than the largest window draws a challenge ACK and is dropped") {
  Setup setup;
  setup.peer_wscale = -1;
  setup.peer_window = 30000;
  Script s(setup);
  s.peer({.seq = 0, .ack = 0U - 70000U, .data = "not taken"});
  CHECK(s.sent().ack == 0);
  CHECK(s.read().empty());
}

TEST_CASE("rfc9293 3.10.7.4: data of a segment with an old ACK is taken") {
  Script s;
  s.write("abc");
  s.peer_ack(3);
  s.peer({.seq = 0, .ack = 1, .data = "late"});
  CHECK(s.read() == "late");
  CHECK(s.info().tx_queued == 0);
}

TEST_CASE("rfc9293 3.10.7.4: an old segment does not bring an old window back") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "ab"});
  s.peer({.seq = 2, .ack = 0, .data = "cd", .window = 1000});
  s.peer({.seq = 0, .ack = 0, .data = "ab", .window = 7});
  CHECK(s.info().snd_wnd == 1000U << 7);
}

TEST_CASE("rfc9293 3.10.7.4: with nothing new a window grows or closes, but does not shrink: it may be late") {
  Script s;
  s.peer_ack(0, 1000);
  s.peer_ack(0, 500);
  CHECK(s.info().snd_wnd == 1000U << 7);
  s.peer_ack(0, 2000);
  CHECK(s.info().snd_wnd == 2000U << 7);
  s.peer_ack(0, 0);
  CHECK(s.info().snd_wnd == 0);
  s.peer_ack(0, 1000);
  s.write("abc");
  s.peer_ack(3, 500);
  CHECK(s.info().snd_wnd == 500U << 7);
  s.peer({.seq = 0, .ack = 3, .data = "ab", .window = 300});
  s.peer({.seq = 2, .ack = 3, .data = "cd", .window = 200});
  CHECK(s.info().snd_wnd == 200U << 7);
}

TEST_CASE("rfc5961 5.2: an ACK from before our FIN is merely old, and its data and FIN are taken") {
  Script s;
  s.shutdown();
  s.peer_ack(1);
  REQUIRE(s.info().state == State::fin_wait_2);
  s.peer({.seq = 0, .ack = 0, .data = "late", .flags = kAck | kFin});
  CHECK(s.count(Counter::bad_ack) == 0);
  CHECK(s.read() == "late");
  CHECK(s.last_sent().ack == 5);
}

TEST_CASE("A thread that did not run between reading the clock and receiving takes no round trip for shorter than it was") {
  static Time arrived;
  Script s;
  s.peer_ack(0);
  s.write(pattern(1000));
  arrived = s.now + milliseconds(7);
  s.clock = [] { return arrived; };
  s.peer_ack(1000);  // received by a turn that began as soon as the data had left
  CHECK(s.now == arrived);
  CHECK(s.info().min_rtt >= milliseconds(7));
}

TEST_CASE("rfc6298 2: the first RTO comes from the handshake, and doubles each time it runs out") {
  Setup setup;
  setup.rtt = milliseconds(400);
  Script s(setup);
  CHECK(s.info().srtt == milliseconds(400));
  CHECK(s.info().rto == milliseconds(400 + 4 * 200));
  s.write("x");
  s.forget();
  for (int i = 0; i < 4; ++i) {
    const Duration waited = s.wait_for_segment(seconds(60));
    const Duration expected = milliseconds(1200) * (1 << i);
    CHECK(waited >= expected);
    CHECK(waited <= expected + milliseconds(2));
    CHECK(s.sent().data == "x");
  }
  CHECK(s.count(Counter::rto_fired) == 4);
  CHECK(s.info().retransmits == 4);
}

TEST_CASE("rfc6298 2.4: the RTO is never below rto_min") {
  Setup setup;
  setup.rtt = microseconds(50);
  Script s(setup);
  s.write("x");
  s.forget();
  CHECK(s.wait_for_segment(seconds(1)) >= milliseconds(200));
}

TEST_CASE("rfc6298 3: what was sent twice gives no sample, and the backed-off RTO stays until there is one") {
  Script s;
  const auto srtt = s.info().srtt;
  s.write("x");
  s.forget();
  s.wait_for_segment(seconds(1));
  s.forget();
  s.wait(milliseconds(100));
  s.peer_ack(1);
  CHECK(s.info().srtt == srtt);
  CHECK(s.info().tx_queued == 0);
}

TEST_CASE("rfc7323 4: timestamps give a sample of what was sent twice") {
  Setup setup;
  setup.timestamps = true;
  Script s(setup);
  s.write("x");
  s.forget();
  s.wait_for_segment(seconds(1));
  s.forget();  // notes our timestamp, which the peer echoes
  s.wait(milliseconds(90));
  s.peer_ack(1);
  CHECK(s.info().srtt > milliseconds(15));
}

TEST_CASE("rfc6298 5.3: an ACK of part of the data restarts the timer") {
  Script s;
  s.write(pattern(2000));
  s.forget();
  s.wait(milliseconds(150));
  s.peer_ack(1000);
  s.wait(milliseconds(150));
  CHECK(s.sent_nothing());
  s.wait_for_segment(seconds(2));
  CHECK(s.sent().seq == 1000);
}

TEST_CASE("rfc9293 3.8.1: a partial ACK of a segment cuts what is sent again") {
  Script s;
  s.write(pattern(1000));
  s.forget();
  s.peer_ack(300);
  s.wait_for_segment(seconds(2));
  const Out o = s.sent();
  CHECK(o.seq == 300);
  CHECK(o.data == pattern(700, 300));
}

TEST_CASE("rfc5681 3.1: slow start doubles the window each round trip") {
  Script s;
  std::uint32_t acked = 0;
  for (std::uint32_t expected : {10000U, 20000U, 40000U}) {
    CHECK(s.info().cwnd == expected);
    s.write(pattern(100000));
    s.forget();
    const auto flight = s.info().flight;
    CHECK(flight > expected - 1000);
    CHECK(flight <= expected);
    // Every second segment.
    for (const auto end = acked + flight; acked < end;) s.peer_ack(acked = std::min(acked + 2000, end));
  }
}

TEST_CASE("rfc5681 3.1: above ssthresh the window grows by a segment each round trip") {
  Script s(reno());
  fill(s);
  for (int i = 0; i < 3; ++i) s.peer_ack(0);
  std::uint32_t acked = 12000;  // limited transmit has added two segments
  s.peer_ack(acked);
  REQUIRE(s.info().phase != Phase::recovery);
  const std::uint32_t cwnd = s.info().cwnd + 1000;
  for (; s.info().cwnd < cwnd; s.write(pattern(1000))) s.peer_ack(acked += 1000);
  REQUIRE(s.info().ssthresh == 5000);
  for (int round = 1; round <= 3; ++round) {
    for (const auto end = acked + s.info().cwnd; acked < end;) {
      s.peer_ack(acked += 1000);
      s.write(pattern(1000));
    }
    CHECK(s.info().cwnd == cwnd + 1000U * static_cast<std::uint32_t>(round));
  }
}

TEST_CASE("rfc7661: a window that is not used does not grow") {
  Script s;
  for (std::uint32_t i = 1; i <= 50; ++i) {
    s.write(pattern(100));
    s.forget();
    s.peer_ack(100 * i);
  }
  CHECK(s.info().cwnd == 10000);
}

TEST_CASE("rfc7661: an application that has nothing to send for a moment does not stop slow start, as Linux") {
  Script s;
  s.write(pattern(10000));  // all that the window allows
  s.peer_ack(1000);
  s.write(pattern(1000));  // and half of what it allows then
  for (std::uint32_t i = 2; i <= 10; ++i) s.peer_ack(1000 * i);
  CHECK(s.info().cwnd == 20000);
}

TEST_CASE("rfc5681 3.2: the third duplicate ACK, and not the second, sends the lost segment again") {
  Script s(reno());
  fill(s);
  s.peer_ack(0);
  s.peer_ack(0);
  auto all = data_of(s.all_sent());
  for (const auto& d : all) CHECK(d.first >= 10000);
  CHECK(s.info().phase != Phase::recovery);
  s.peer_ack(0);
  all = data_of(s.all_sent());
  REQUIRE(!all.empty());
  CHECK(all[0] == std::pair<std::uint32_t, std::size_t>{0, 1000});
  CHECK(s.info().phase == Phase::recovery);
  CHECK(s.info().ssthresh == 5000);
  CHECK(s.count(Counter::fast_retransmits) == 1);
  CHECK(s.count(Counter::rto_fired) == 0);
}

TEST_CASE("rfc3042: each of the first two duplicate ACKs lets one new segment go") {
  Script s;
  fill(s);
  s.peer_ack(0);
  CHECK(data_of(s.all_sent()) == Data{{10000, 1000}});
  s.peer_ack(0);
  CHECK(data_of(s.all_sent()) == Data{{11000, 1000}});
  CHECK(s.info().cwnd == 10000);  // "the congestion window is not changed"
}

TEST_CASE("rfc5681 2: an ACK with data, or with another window, is not a duplicate") {
  Script s;
  fill(s);
  for (std::uint32_t i = 0; i < 5; ++i) s.peer({.seq = i, .ack = 0, .data = "d"});
  for (std::uint32_t i = 0; i < 5; ++i) s.peer({.seq = 5, .ack = 0, .window = 60000 - i});
  CHECK(s.count(Counter::duplicate_acks_received) == 0);
  CHECK(s.count(Counter::fast_retransmits) == 0);
}

TEST_CASE("rfc6582 3.2: a partial ACK sends the next hole, a full one ends recovery with cwnd at ssthresh") {
  Script s(reno());
  fill(s);
  for (int i = 0; i < 5; ++i) s.peer_ack(0);  // segments 0 and 3 were lost
  s.forget();
  REQUIRE(s.info().phase == Phase::recovery);
  const std::uint32_t highest = static_cast<std::uint32_t>(s.info().bytes_acked) + 10000 + 2000;
  s.peer_ack(3000);
  auto all = data_of(s.all_sent());
  REQUIRE(!all.empty());
  CHECK(all[0] == std::pair<std::uint32_t, std::size_t>{3000, 1000});
  CHECK(s.info().phase == Phase::recovery);
  s.peer_ack(highest);
  CHECK(s.info().phase != Phase::recovery);
  CHECK(s.info().cwnd <= 6000);
  CHECK(s.count(Counter::fast_retransmits) == 1);
  CHECK(s.count(Counter::retransmitted_segments) == 2);
}

TEST_CASE("rfc6582 3.2: more duplicate ACKs in recovery let new segments go, one each, once half have left") {
  Script s(reno());
  fill(s);
  for (int i = 0; i < 3; ++i) s.peer_ack(0);
  s.forget();
  std::size_t sent = 0;
  for (int i = 0; i < 8; ++i) {
    s.peer_ack(0);
    sent += data_of(s.all_sent()).size();
  }
  CHECK(sent >= 3);
  CHECK(sent <= 5);
}

TEST_CASE("rfc5681 3.1: a timeout leaves one segment, and what was in flight goes again in slow start") {
  Script s(reno());
  s.peer_ack(0);
  s.write(pattern(10000));
  s.forget();
  s.wait_for_segment(seconds(2));
  CHECK(data_of(s.all_sent()) == Data{{0, 1000}});
  CHECK(s.info().cwnd == 1000);
  CHECK(s.info().ssthresh == 5000);
  s.peer_ack(1000);
  CHECK(data_of(s.all_sent()) == Data{{1000, 1000}, {2000, 1000}});
  // The rest had arrived: nothing else is sent twice.
  s.peer_ack(10000);
  for (const auto& d : data_of(s.all_sent())) CHECK(d.first >= 10000);
}

TEST_CASE("rfc5681 3.1: a timeout sends the data again also when a FIN was behind it") {
  Script s;
  s.write(pattern(3000));
  s.shutdown();
  s.forget();
  s.wait_for_segment(seconds(2));
  CHECK(data_of(s.all_sent()) == Data{{0, 1000}});
  s.peer_ack(1000);
  const auto all = s.all_sent();
  CHECK(data_of(all) == Data{{1000, 1000}, {2000, 1000}});
  CHECK(all.back().fin());
}

TEST_CASE("rfc6582 4: duplicate ACKs of what a timeout sent again start no fast retransmit") {
  Script s;
  fill(s);
  s.wait_for_segment(seconds(2));
  s.forget();
  s.peer_ack(1000);
  for (int i = 0; i < 6; ++i) s.peer_ack(1000);
  CHECK(s.count(Counter::fast_retransmits) == 0);
}

TEST_CASE("rfc5681 3.1: a second timeout for the same data does not lower ssthresh again") {
  Script s(reno());
  fill(s);
  s.wait_for_segment(seconds(2));
  s.forget();
  s.wait_for_segment(seconds(2));
  CHECK(s.info().ssthresh == 5000);
}

TEST_CASE("rfc9293 3.8.3: after tcp_retries2 timeouts the connection has timed out") {
  Setup setup;
  setup.options.tcp.retries2 = 4;
  Script s(setup);
  s.write("x");
  s.wait(seconds(20));
  CHECK(s.count(Counter::rto_fired) == 4);
  CHECK(s.info().state == State::closed);
  CHECK(s.read_result().error() == Errc::timed_out);
  CHECK(s.count(Counter::connections_timed_out) == 1);
}

TEST_CASE("rfc5482: TCP_USER_TIMEOUT gives up in its own time") {
  Setup setup;
  setup.socket.user_timeout = seconds(3);
  Script s(setup);
  s.write("x");
  s.wait(milliseconds(2900));
  CHECK(s.info().state == State::established);
  s.wait(milliseconds(300));
  CHECK(s.info().state == State::closed);
  CHECK(s.worker->take_error(*s.c) == Errc::timed_out);
}

TEST_CASE("rfc9293 3.8.4: keep-alive asks after the idle time, an answer settles it, silence ends it") {
  Setup setup;
  setup.socket.keepalive = true;
  setup.socket.keepalive_time = seconds(10);
  setup.socket.keepalive_intvl = seconds(1);
  setup.socket.keepalive_probes = 3;
  Script s(setup);
  s.wait(milliseconds(9900));
  CHECK(s.sent_nothing());
  s.wait(milliseconds(200));
  const Out probe = s.sent();
  CHECK(probe.seq == 0xffffffffU);  // SND.NXT - 1
  s.peer_ack(0);
  s.wait(milliseconds(9900));
  CHECK(s.sent_nothing());
  s.wait(milliseconds(2200));
  CHECK(s.all_sent().size() == 3);
  CHECK(s.info().state == State::established);
  s.wait(milliseconds(1000));
  CHECK(s.sent().rst());
  CHECK(s.info().state == State::closed);
  CHECK(s.worker->take_error(*s.c) == Errc::timed_out);
}

TEST_CASE("A lost FIN is sent again, with the data if that was lost too") {
  Script s;
  s.write("end");
  s.shutdown();
  s.forget();
  s.wait_for_segment(seconds(2));
  Out o = s.sent();
  CHECK(o.data == "end");
  CHECK(o.fin());
  s.peer_ack(3);
  s.forget();
  s.wait_for_segment(seconds(5));
  o = s.sent();
  CHECK(o.data.empty());
  CHECK(o.fin());
  CHECK(o.seq == 3);
  s.peer_ack(4);
  CHECK(s.info().state == State::fin_wait_2);
}

TEST_CASE("What the device still reads is sent again from a copy") {
  Script s;
  s.write(pattern(500));
  s.forget();
  s.port.still_reading = true;
  s.wait_for_segment(seconds(2));
  CHECK(s.sent().data == pattern(500));
  s.port.still_reading = false;
}

}  // namespace mtcp::test

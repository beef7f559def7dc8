// RACK-TLP (RFC 8985): what counts as lost, when, and the probe at the end of a flight.
#include <algorithm>

#include "tests/tcp/flight.hh"

namespace mtcp::test {

TEST_CASE("rfc8985 6.2: one sacked segment gives those before it a quarter of the RTT") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 2000}});
  CHECK(data_of(s) == Data{{10000, 1000}});
  s.wait(milliseconds(1));
  CHECK(data_of(s).empty());
  s.wait(milliseconds(4));
  CHECK(data_of(s) == Data{{0, 1000}});
  CHECK(s.count(Counter::rto_fired) == 0);
}

TEST_CASE("rfc8985 6.2: the window for reordering opens with what comes late, and nothing is sent twice") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 2000}});
  s.wait(milliseconds(1));
  ack(s, 2000);  // it was only late
  s.forget();
  s.wait(milliseconds(9));
  const auto base = 2000U;
  ack(s, base, {{base + 1000, base + 6000}});  // more than three, and yet
  for (const auto& d : data_of(s)) CHECK(d.first >= 10000);
  CHECK(s.info().phase == Phase::disorder);
  s.wait(milliseconds(5));
  CHECK(s.count(Counter::retransmitted_segments) == 1);
}

TEST_CASE("rfc8985 6.2 step 1: min_RTT is the least of the last minutes, not of the connection") {
  Script s(with_sack());
  s.c->recovery.min_rtt = s.c->recovery.former_min_rtt = Duration::max();  // the handshake took no time
  std::uint32_t acked = 0;
  const auto round_trip = [&](Duration rtt) {
    s.write(pattern(1000));
    s.wait(rtt);
    ack(s, acked += 1000);
    return s.info().min_rtt;
  };
  const Duration first = round_trip(milliseconds(10));
  CHECK(first <= milliseconds(11));
  for (int i = 0; i < 2; ++i) {
    s.now += seconds(100);
    CHECK(round_trip(milliseconds(40)) == first);
  }
  s.now += seconds(200);
  CHECK(round_trip(milliseconds(40)) >= milliseconds(40));  // the path is longer by now
}

TEST_CASE("rfc8985 6.2 step 2: what was sent again and is acknowledged sooner than any round trip says nothing of what was sent before") {
  Script s(with_sack());
  s.c->recovery.min_rtt = s.c->recovery.former_min_rtt = Duration::max();
  fill(s);
  ack(s, 0, {{1000, 5000}});
  REQUIRE(data_of(s).front().first == 0);
  s.wait(milliseconds(2));
  ack(s, 5000);  // the original, which was late
  s.wait(milliseconds(1));
  for (const auto& d : data_of(s)) CHECK(d.first >= 10000);
  CHECK(s.info().lost == 0);
}

TEST_CASE("rfc8985 6.2 step 3: what one ACK tells of, in whatever order, has not come late") {
  const auto repaired_at_once = [](Script& s, std::uint32_t hole) {
    const Data sent = data_of(s);
    CHECK(std::count(sent.begin(), sent.end(), std::pair<std::uint32_t, std::size_t>{hole, 1000}) == 1);
    CHECK(!s.c->recovery.reordering_seen);
    CHECK(s.c->recovery.duplicate_threshold == 3);
  };
  SECTION("a delayed ACK that what comes behind a hole sets free") {
    Script s(with_sack());
    fill(s);
    ack(s, 1000, {{2000, 3000}});
    s.forget();
    ack(s, 1000, {{2000, 5000}});
    repaired_at_once(s, 1000);
  }
  SECTION("blocks whose ACKs were lost, the newest first") {
    Script s(with_sack());
    fill(s);
    ack(s, 0, {{3000, 4000}, {1000, 2000}});
    s.forget();
    ack(s, 0, {{3000, 5000}, {1000, 2000}});
    repaired_at_once(s, 0);
  }
}

TEST_CASE("rfc8985 6.2 step 4: a D-SACK widens the window for reordering, to no more than the smoothed RTT") {
  // How long a segment that is left out is waited for, after so many needless retransmissions.
  const auto wait_after = [](int needless) {
    Script s(with_sack());
    s.c->recovery.min_rtt = s.c->recovery.former_min_rtt = Duration::max();  // the handshake took no time
    fill(s);
    ack(s, 0, {{1000, 2000}});
    s.wait(milliseconds(1));
    ack(s, 2000);  // late: the path reorders
    std::uint32_t una = 0, end = 0;
    const auto note_sent = [&] {
      for (const auto& [seq, length] : data_of(s)) end = std::max(end, static_cast<std::uint32_t>(seq + length));
    };
    // All that is on its way, so that what is then has been sent at one time.
    const auto answer_all = [&](Blocks twice = {}) {
      note_sent();
      s.wait(milliseconds(10));
      una = end;
      ack(s, end, std::move(twice));
      s.write(pattern(20'000));
      note_sent();
      REQUIRE(end >= una + 3000);
      s.wait(milliseconds(10));
    };
    answer_all();
    for (int i = 0; i < needless; ++i) {
      ack(s, una, {{una + 1000, end}});
      s.wait(milliseconds(30));  // given up for lost, and sent again
      answer_all({{una, una + 1000}});  // for nothing
    }
    REQUIRE(s.count(Counter::dsacks_received) == static_cast<std::uint64_t>(needless));
    const auto before = s.count(Counter::retransmitted_segments);
    ack(s, una, {{una + 1000, end}});
    Duration waited{};
    while (s.count(Counter::retransmitted_segments) == before && waited < seconds(1)) s.wait(milliseconds(1)), waited += milliseconds(1);
    return waited;
  };
  const Duration first = wait_after(0), second = wait_after(1);
  CHECK(first <= milliseconds(5));  // a quarter of 10 ms, and two for the timer
  CHECK(second >= first + milliseconds(2));
  CHECK(wait_after(2) >= second);
}

TEST_CASE("rfc8985 6.2: a retransmission that is lost is found by what was sent after it") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 5000}});
  REQUIRE(data_of(s).front().first == 0);
  s.wait(milliseconds(5));
  ack(s, 0, {{1000, 10000}});
  const Data fresh = data_of(s);  // sent 5 ms after the retransmission
  REQUIRE(!fresh.empty());
  CHECK(fresh.front().first == 10000);
  s.wait(milliseconds(10));
  ack(s, 0, {{1000, 11000}});
  s.wait(milliseconds(4));
  CHECK(data_of(s).front() == std::pair<std::uint32_t, std::size_t>{0, 1000});
  CHECK(s.count(Counter::rto_fired) == 0);
}

TEST_CASE("rfc8985 6.3: a timeout marks the first segment and what RACK calls late, not what was sent just before it") {
  Script s(with_sack("reno", 20));
  s.peer_ack(0, 79);  // of 128 bytes: ten segments
  s.write(pattern(200000));
  REQUIRE(data_of(s).size() == 10);
  s.wait(milliseconds(30));
  REQUIRE(s.count(Counter::tail_probes_sent) == 1);
  s.peer_ack(1000, 71);  // no more than before
  s.wait(s.info().rto - milliseconds(10));
  REQUIRE(s.count(Counter::rto_fired) == 0);
  s.forget();
  s.peer_ack(1000, 110);
  REQUIRE(data_of(s).size() == 5);
  s.wait(milliseconds(15));
  REQUIRE(s.count(Counter::rto_fired) == 1);
  CHECK(s.info().lost == 9000);
}

TEST_CASE("rfc8985 7.2: the last segment of an unanswered flight goes again after two round trips") {
  Script s(with_sack());
  s.write(pattern(3000));
  s.forget();
  const Duration after = s.wait_for_segment(seconds(1));
  CHECK(after >= milliseconds(20));
  CHECK(after <= milliseconds(25));
  CHECK(data_of(s) == Data{{2000, 1000}});
  CHECK(s.count(Counter::tail_probes_sent) == 1);
  CHECK(s.count(Counter::rto_fired) == 0);
  // Section 7.3: one probe only; then the timeout.
  CHECK(s.wait_for_segment(seconds(1)) >= milliseconds(180));
  CHECK(s.count(Counter::rto_fired) == 1);
}

TEST_CASE("rfc8985 7.3: a probe is new data where there is some") {
  Script s(with_sack());
  fill(s);
  s.wait(milliseconds(20));
  CHECK(data_of(s) == Data{{10000, 1000}});
  CHECK(s.count(Counter::retransmitted_segments) == 0);
}

TEST_CASE("rfc8985 7.2: a lone segment is probed only when its ACK can't be a delayed one") {
  Script s(with_sack());
  s.write(pattern(1000));
  s.forget();
  CHECK(s.wait_for_segment(seconds(1)) >= milliseconds(200));
}

TEST_CASE("rfc8985 7.4: what the probe repaired is a loss, unless the peer says that it came twice") {
  for (const bool twice : {false, true}) {
    Script s(with_sack());
    s.write(pattern(3000));
    s.wait(milliseconds(25));
    s.forget();
    REQUIRE(s.count(Counter::tail_probes_sent) == 1);
    ack(s, 3000, twice ? Blocks{{2000, 3000}} : Blocks{});
    s.write(pattern(1000));
    s.wait(milliseconds(10));
    ack(s, 4000);
    CHECK(s.info().cwnd == (twice ? 10000U : 5000U));
  }
}

}  // namespace mtcp::test

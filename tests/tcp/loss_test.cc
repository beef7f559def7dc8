// Loss detection, recovery and undo with SACK: which segments leave at which ACK, and what becomes of the window.
#include <cmath>

#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

using Blocks = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
using Data = std::vector<std::pair<std::uint32_t, std::size_t>>;

// The segments that carry data since the last call, as (seq, length).
Data data_of(Script& s) {
  Data v;
  for (const Out& o : s.all_sent())
    if (!o.data.empty()) v.emplace_back(o.seq, o.data.size());
  return v;
}

// Segments of 1,000 bytes over 10 ms.
Setup with_sack(const char* congestion = "reno", std::uint32_t window = 10) {
  Setup setup;
  setup.sack = true;
  setup.options.tcp.congestion_control = congestion;
  setup.options.tcp.initial_window = window;
  return setup;
}

void ack(Script& s, std::uint32_t ack, Blocks sack = {}) { s.peer({.seq = s.peer_seq, .ack = ack, .sack = std::move(sack)}); }

// So many segments are on their way since a round trip, and there is more to send.
void fill(Script& s, std::size_t segments = 10) {
  s.peer_ack(0);
  s.write(pattern(200000));
  REQUIRE(data_of(s).size() == segments);
  s.wait(milliseconds(10));
}

}  // namespace

TEST_CASE("rfc6675 5: what SACK blocks leave out goes again, and nothing else") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 2000}});
  ack(s, 0, {{1000, 3000}});
  CHECK(data_of(s) == Data{{10000, 1000}, {11000, 1000}});  // RFC 3042: limited transmit
  ack(s, 0, {{1000, 4000}});
  CHECK(data_of(s) == Data{{0, 1000}});
  CHECK(s.info().phase == Phase::recovery);
  CHECK(s.info().ssthresh == 5000);
  ack(s, 0, {{5000, 12000}, {1000, 4000}});
  CHECK(data_of(s).front() == std::pair<std::uint32_t, std::size_t>{4000, 1000});
  CHECK(s.count(Counter::retransmitted_segments) == 2);
  CHECK(s.count(Counter::fast_retransmits) == 1);
}

TEST_CASE("rfc6675 4: a segment counts as sacked only when all of it is, and blocks of nothing that was sent do not count") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1500, 1900}});
  ack(s, 0, {{5000, 5000}});
  ack(s, 0, {{6000, 2000}});
  ack(s, 0, {{11000, 300000}});
  ack(s, 0, {{0U - 5000U, 300000}});
  CHECK(s.info().sacked == 0);
  CHECK(s.info().phase == Phase::open);
  ack(s, 0, {{1500, 3500}});
  CHECK(s.info().sacked == 1000);
}

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

TEST_CASE("rfc9937: the window shrinks in proportion to what arrives, and half of it is sent") {
  Script s(with_sack("reno", 20));
  fill(s, 20);
  std::size_t sent = 0;
  for (std::uint32_t i = 1; i < 20; ++i) {
    ack(s, 0, {{1000, 1000 * (i + 1)}});
    sent += data_of(s).size();
  }
  // Two by limited transmit, then half of what is delivered; the fast retransmit is among them.
  CHECK(s.info().ssthresh == 10000);
  CHECK(sent >= 10);
  CHECK(sent <= 12);
  CHECK(s.info().flight <= 10000);
  ack(s, 20000);
  CHECK(s.info().phase == Phase::recovery);  // until what limited transmit sent is acknowledged
  ack(s, 22000);
  CHECK(s.info().phase == Phase::open);
  CHECK(s.info().cwnd >= 10000);
  CHECK(s.info().cwnd <= 11000);
}

TEST_CASE("rfc9937: after heavy loss the flight is built up again, by at most a segment more than arrives") {
  Script s(with_sack("reno", 20));
  fill(s, 20);
  ack(s, 0, {{16000, 20000}});  // sixteen lost
  std::size_t sent = data_of(s).size();
  CHECK(sent >= 1);
  CHECK(sent <= 5);
  std::uint32_t next = 0;
  for (int i = 0; i < 6; ++i) {
    s.wait(milliseconds(2));
    next += 1000;
    ack(s, next, {{16000, 20000}});
    sent = data_of(s).size();
    CHECK(sent <= 2);
  }
  CHECK(s.count(Counter::rto_fired) == 0);
}

TEST_CASE("rfc5682 2.1: a timeout after which an original arrives was needless: nothing more goes again, the window is back") {
  Script s(with_sack());
  fill(s);
  ack(s, 0);
  s.wait(milliseconds(400));
  REQUIRE(s.count(Counter::rto_fired) == 1);
  s.forget();
  ack(s, 2000);  // step 1 and 2: new data instead of the next retransmission
  const Data question = data_of(s);
  REQUIRE(!question.empty());
  CHECK(question.front().first >= 10000);
  ack(s, 4000);  // step 3b
  CHECK(s.count(Counter::spurious_timeouts) == 1);
  CHECK(s.info().cwnd >= 10000);
  CHECK(s.info().phase == Phase::open);
  for (const auto& d : data_of(s)) CHECK(d.first >= 10000);
}

TEST_CASE("rfc5682 2.1: duplicate ACKs for the new data show that the timeout was right") {
  Script s(with_sack());
  fill(s);
  s.wait(milliseconds(400));
  REQUIRE(s.count(Counter::rto_fired) == 1);
  s.forget();
  ack(s, 1000);
  const Data question = data_of(s);
  REQUIRE(!question.empty());
  const std::uint32_t first = question.front().first;
  CHECK(first >= 10000);
  ack(s, 1000, {{first, first + 1000}});
  CHECK(data_of(s).front() == std::pair<std::uint32_t, std::size_t>{1000, 1000});
  CHECK(s.count(Counter::spurious_timeouts) == 0);
  CHECK(s.info().phase == Phase::loss);
}

TEST_CASE("rfc5682 2.1: without new data the timeout is taken as right") {
  Script s(with_sack());
  s.peer_ack(0);
  s.write(pattern(10000));
  s.wait(milliseconds(400));
  REQUIRE(s.count(Counter::rto_fired) == 1);
  s.forget();
  ack(s, 1000);
  CHECK(data_of(s).front() == std::pair<std::uint32_t, std::size_t>{1000, 1000});
}

TEST_CASE("rfc4015: an ACK whose timestamp is older than the retransmission undoes the reduction") {
  Setup setup = with_sack();
  setup.timestamps = true;
  Script s(setup);
  fill(s);
  const std::uint32_t mss = s.info().mss, before = s.info().cwnd;
  const std::uint32_t original = s.last_ts;
  ack(s, 0, {{mss, 5 * mss}});
  REQUIRE(s.info().phase == Phase::recovery);
  s.wait(milliseconds(2));
  s.forget();
  s.last_ts = original;
  ack(s, 5 * mss);
  CHECK(s.count(Counter::reductions_undone) == 1);
  CHECK(s.info().cwnd >= before);
  CHECK(s.info().phase != Phase::recovery);
}

TEST_CASE("rfc4015 3.3: after a needless timeout the RTO is longer than the delay that caused it") {
  Setup setup = with_sack();
  setup.timestamps = GENERATE(false, true);
  Script s(setup);
  fill(s);
  const std::uint32_t mss = s.info().mss, original = s.last_ts;
  ack(s, 0);
  const Duration before = s.info().rto;
  REQUIRE(before < milliseconds(300));
  s.wait(milliseconds(400));
  REQUIRE(s.count(Counter::rto_fired) == 1);
  s.last_ts = original;  // all was only late
  ack(s, 2 * mss);
  ack(s, 4 * mss);
  CHECK(s.count(Counter::spurious_timeouts) == 1);
  CHECK(s.info().backoff == 0);
  CHECK(s.info().rto > milliseconds(410));
  s.forget();
  s.wait(milliseconds(410));  // as late again: only a tail probe, which waits for twice the smoothed round trip, may go
  CHECK(s.count(Counter::rto_fired) == 1);
}

TEST_CASE("rfc2883, rfc3708: when all that was sent again came twice, the reduction is undone") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 5000}});
  REQUIRE(data_of(s).front().first == 0);
  s.wait(milliseconds(3));
  ack(s, 5000);
  CHECK(s.info().cwnd < 10000);
  ack(s, 5000, {{0, 1000}});
  CHECK(s.count(Counter::dsacks_received) == 1);
  CHECK(s.count(Counter::reductions_undone) == 1);
  CHECK(s.info().cwnd >= 10000);
}

TEST_CASE("rfc2018 8: a receiver that drops what it has sacked gets it again") {
  Script s(with_sack());
  s.peer_ack(0);
  s.write(pattern(10000));
  s.wait(milliseconds(10));
  ack(s, 0, {{1000, 10000}});
  ack(s, 1000);  // 1000 to 10000 is gone
  s.forget();
  s.wait(milliseconds(50));
  CHECK(data_of(s).front() == std::pair<std::uint32_t, std::size_t>{1000, 1000});
  CHECK(s.count(Counter::sacks_reneged) == 1);
  std::uint32_t acked = 1000;
  for (int i = 0; i < 20 && acked < 10000; ++i) {
    acked += 2000;
    ack(s, std::min(acked, 10000U));
  }
  CHECK(s.info().tx_queued == 0);
}

TEST_CASE("rfc9438 4.2: after a loss the window follows the cubic curve") {
  Script s(with_sack("cubic", 100));
  fill(s, 100);
  ack(s, 0, {{1000, 100000}});
  REQUIRE(s.info().ssthresh == 70000);  // section 4.6: beta = 0.7
  ack(s, s.info().flight != 0 ? 100000U : 0U);
  s.forget();
  std::uint32_t acked = 100000;
  const auto run = [&](Duration d) {
    for (const Time end = s.now + d; s.now < end;) {
      s.write(pattern(100000));
      s.forget();
      s.wait(milliseconds(10));
      acked += s.info().flight;
      ack(s, acked);
    }
  };
  run(milliseconds(1));
  const Time start = s.now;
  const double w_max = 100, k = std::cbrt((w_max - 70) / 0.4);
  for (const int at : {1, 2, 4, 5}) {
    run(seconds(at) - (s.now - start));
    const double t = static_cast<double>((s.now - start).count()) * 1e-9 + 0.01;
    const double cubic = w_max + 0.4 * (t - k) * (t - k) * (t - k);
    const double reno = 70 + 0.529 * (t / 0.01);  // section 4.3: at 10 ms Reno is faster
    INFO("after " << t << " s");
    CHECK(s.info().cwnd / 1000.0 > std::max(cubic, std::min(reno, 100.0)) * 0.95);
  }
}

TEST_CASE("rfc6675: however a peer names its islands, each is found, and everything arrives") {
  Script s(with_sack("cubic", 1000));
  s.peer_ack(0);
  s.write(pattern(400000));
  s.forget();
  s.wait(milliseconds(10));
  for (std::uint32_t i = 1; i < 399; i += 2) ack(s, 0, {{i * 1000, (i + 1) * 1000}});
  CHECK(s.info().sacked == 199000);
  for (std::uint32_t i = 397; i > 3; i -= 2)
    ack(s, 0, {{i * 1000, (i + 1) * 1000}, {(398 - i) * 1000, (399 - i) * 1000}, {1000, 399000}});
  CHECK(s.info().sacked == 398000);
  ack(s, 400000);
  s.forget();
  CHECK(s.info().tx_queued == 0);
  CHECK(s.info().sacked == 0);
  CHECK(s.info().flight == 0);
}

}  // namespace mtcp::test

// Loss detection, recovery and undo with SACK: which segments leave at which ACK, and what becomes of the window.
#include "tests/tcp/flight.hh"

namespace mtcp::test {

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

TEST_CASE("rfc6675 5: what is found lost before the recovery point is acknowledged belongs to the same episode") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 5000}});
  REQUIRE(s.info().phase == Phase::recovery);
  const std::uint32_t ssthresh = s.info().ssthresh;
  s.wait(milliseconds(10));
  s.forget();
  ack(s, 5000, {{6000, 10000}});
  CHECK(data_of(s).front() == std::pair<std::uint32_t, std::size_t>{5000, 1000});
  CHECK(s.count(Counter::fast_retransmits) == 1);
  CHECK(s.info().ssthresh == ssthresh);
  // And what is lost beyond it is another.
  const auto end = static_cast<std::uint32_t>(s.info().bytes_sent - s.info().bytes_resent);
  ack(s, end);
  REQUIRE(s.info().phase == Phase::open);
  s.wait(milliseconds(10));
  ack(s, end, {{end + 1000, end + 5000}});
  CHECK(s.count(Counter::fast_retransmits) == 2);
  CHECK(s.info().ssthresh < ssthresh);
}

TEST_CASE("rfc6675 5.1: after a timeout in recovery, SACK blocks of what was sent before it begin no other recovery") {
  Script s(with_sack());
  fill(s);
  ack(s, 0, {{1000, 5000}});
  s.wait(milliseconds(400));
  REQUIRE(s.count(Counter::rto_fired) == 1);
  REQUIRE(s.info().phase == Phase::loss);
  const std::uint32_t ssthresh = s.info().ssthresh;
  ack(s, 5000, {{6000, 10000}});
  CHECK(s.info().phase == Phase::loss);
  CHECK(s.count(Counter::fast_retransmits) == 1);
  CHECK(s.info().ssthresh == ssthresh);
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

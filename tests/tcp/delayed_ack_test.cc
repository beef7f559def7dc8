// When what arrives is acknowledged.
#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

// The first sixteen ACKs of a connection are not delayed: uses them up.
void use_up_quick_acks(Script& s) {
  for (int i = 0; i < 20; ++i) s.peer_data("q");
  s.wait(milliseconds(50));
  s.read();
  s.forget();
}

}  // namespace

TEST_CASE("The first data of a connection is acknowledged at once (quick ACKs)") {
  Script s;
  s.peer_data("x");
  CHECK(s.sent().ack == 1);
}

TEST_CASE("rfc9293 3.8.6.3: a lone segment is acknowledged after the delay, the second full one at once") {
  Script s;
  use_up_quick_acks(s);
  s.peer_data(pattern(1000));
  s.peer_data(pattern(1000));
  s.read();
  s.forget();
  s.peer_data(pattern(1000));
  CHECK(s.sent_nothing());
  const Duration waited = s.wait_for_segment(seconds(1));
  CHECK(waited >= milliseconds(39));
  CHECK(waited <= milliseconds(41));
  s.forget();
  s.peer_data(pattern(1000));
  CHECK(s.sent_nothing());
  s.peer_data(pattern(1000));
  CHECK(s.all_sent().size() == 1);
  CHECK(s.count(Counter::delayed_acks_sent) >= 1);
}

TEST_CASE("Reading all of a short segment acknowledges it with the next flush, not after the delay") {
  Script s;
  use_up_quick_acks(s);
  s.peer_data(pattern(1000));
  s.peer_data(pattern(1000));  // the peer's segments are known now
  s.read();
  s.forget();
  s.peer_data("short");
  CHECK(s.sent_nothing());
  s.read(3);
  CHECK(s.sent_nothing());
  s.read();
  CHECK(s.sent().ack == s.peer_seq);
  CHECK(s.sent_nothing());
}

TEST_CASE("A reader that answers what it reads has its ACKs carried, but for a second short segment") {
  Script s;
  use_up_quick_acks(s);
  s.peer_data("ask");
  REQUIRE(s.read_result());
  s.write("answer");
  s.forget();
  s.peer_data("ask");
  s.read();
  CHECK(s.sent_nothing());
  s.peer_data("more");
  s.read();
  CHECK(s.sent().ack == s.peer_seq);
}

TEST_CASE("TCP_QUICKACK acknowledges at once") {
  Script s;
  use_up_quick_acks(s);
  s.peer_data("x");
  CHECK(s.sent_nothing());
  SocketOptions o;
  o.quickack = true;
  s.options(o);
  CHECK(s.all_sent().size() == 1);
  s.peer_data("y");
  CHECK(s.all_sent().size() == 1);
}

TEST_CASE("An answer carries the ACK: no segment of its own") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "request"}, false);
  s.write("response");
  const auto all = s.all_sent();
  REQUIRE(all.size() == 1);
  CHECK(all[0].ack == 7);
}

TEST_CASE(
    "rfc5681 4.2: each segment out of order draws a duplicate ACK, the one that fills the gap a new one") {
  Script s;
  use_up_quick_acks(s);
  const std::uint32_t at = s.peer_seq;
  for (std::uint32_t i = 1; i <= 3; ++i) {
    s.peer({.seq = at + 100 * i, .ack = 0, .data = pattern(100, 100 * i)});
    CHECK(s.sent().ack == at);
    CHECK(s.sent_nothing());
  }
  s.peer({.seq = at, .ack = 0, .data = pattern(100)});
  CHECK(s.sent().ack == at + 400);
  CHECK(s.read() == pattern(400));
}

}  // namespace mtcp::test

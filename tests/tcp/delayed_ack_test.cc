// When what arrives is acknowledged.
#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

// The first sixteen ACKs of a connection are not delayed, nor are some after a pause: uses them up.
void use_up_quick_acks(Script& s) {
  for (int i = 0; i < 20; ++i) s.peer_data("q");
  s.wait(milliseconds(50));
  s.read();
  s.forget();
}

// How many ACKs eight segments draw before the stack has done with what is there.
std::size_t turn_of_eight(Script& s) {
  for (int i = 0; i < 8; ++i) {
    s.peer({.seq = s.peer_seq, .ack = 0, .data = pattern(1000)}, false);
    s.peer_seq += 1000;
  }
  const std::size_t n = s.all_sent().size();
  s.flush();
  s.forget();
  s.read();
  return n;
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

// A path of 300 ms: its RTT does not bound the delay to 40 ms, and its timeout is long.
Setup far() {
  Setup setup;
  setup.rtt = milliseconds(300);
  return setup;
}

TEST_CASE("rfc9293 3.8.6.3: each delay that nothing came in is followed by a longer one, 200 ms at most") {
  Script s(far());
  use_up_quick_acks(s);
  s.wait(milliseconds(300));
  s.peer_data("x");
  s.forget();
  s.wait(milliseconds(500));
  s.forget();
  Duration before{};
  for (const int most : {165, 205, 205, 205}) {
    s.peer_data("x");
    CHECK(s.sent_nothing());
    const Duration waited = s.wait_for_segment(seconds(1));
    CHECK(waited >= before);
    CHECK(waited >= milliseconds(40));
    CHECK(waited <= milliseconds(most));
    before = waited;
    s.read();
    s.wait(milliseconds(500));
    s.forget();
  }
  CHECK(before >= milliseconds(195));
}

TEST_CASE("delayed_ack bounds the delay") {
  Setup setup = far();
  setup.options.tcp.delayed_ack = milliseconds(10);
  Script s(setup);
  use_up_quick_acks(s);
  s.peer_data("x");
  CHECK(s.wait_for_segment(seconds(1)) <= milliseconds(11));
}

TEST_CASE("rfc5681 4.1: after a pause longer than its timeout the peer begins anew, and is acknowledged at once") {
  Script s;
  use_up_quick_acks(s);
  s.peer_data("x");
  CHECK(s.sent_nothing());
  s.wait(milliseconds(300));
  s.forget();
  s.peer_data("x");
  CHECK(s.sent().ack == s.peer_seq);
}

TEST_CASE("rfc5681 4.2: who sends what is known has missed an ACK, and gets the next ones at once") {
  Script s;
  use_up_quick_acks(s);
  s.peer({.seq = 0, .ack = 0, .data = "q"});
  CHECK(s.sent().ack == s.peer_seq);
  s.peer_data("x");
  CHECK(s.sent().ack == s.peer_seq);
}

TEST_CASE("rfc5681 4.2: where data has been lost, ACKs may be: every second segment of a turn has its own") {
  Setup setup;
  setup.sack = true;
  Script s(setup);
  use_up_quick_acks(s);
  (void)turn_of_eight(s);
  CHECK(turn_of_eight(s) == 1);  // as at each start
  s.peer({.seq = s.peer_seq + 1000, .ack = 0, .data = pattern(1000)});  // the one before it is lost
  s.forget();
  s.peer({.seq = s.peer_seq, .ack = 0, .data = pattern(1000)}, false);
  CHECK(s.all_sent().size() == 1);  // the gap is filled
  s.peer_seq += 2000;
  CHECK(turn_of_eight(s) == 4);
}

// The peer's window grows with what is acknowledged, so nothing waits for a delay; and ACKs are lost with data.
TEST_CASE("rfc5681 4.2: while the window is far from used each segment has its ACK at once, where data has been lost one of its own") {
  Setup setup;
  setup.sack = true;
  setup.socket.rcvbuf = 1 << 20;
  Script s(setup);
  use_up_quick_acks(s);
  for (int i = 0; i < 20; ++i) {
    s.peer_data(pattern(1000));
    CHECK(s.sent().ack == s.peer_seq);
    s.read();
  }
  s.peer({.seq = s.peer_seq + 1000, .ack = 0, .data = pattern(1000)});  // the one before it is lost
  s.peer({.seq = s.peer_seq, .ack = 0, .data = pattern(1000)});
  s.peer_seq += 2000;
  s.forget();
  CHECK(turn_of_eight(s) == 8);
  while (2 * s.info().bytes_received + 65536 < 1 << 19) (void)turn_of_eight(s);
  CHECK(turn_of_eight(s) == 4);  // the window could be full by now
  s.wait(milliseconds(50));
  s.forget();
  s.peer_data(pattern(1000));
  CHECK(s.sent_nothing());
}

TEST_CASE("rfc5681 4.2: at the start of a connection no more than eight segments of a turn hang on one ACK, which may be lost") {
  Setup setup;
  setup.socket.rcvbuf = 1 << 20;
  Script s(setup);
  s.peer_data(pattern(1000));
  s.read();
  s.forget();
  for (int i = 0; i < 20; ++i) {
    s.peer({.seq = s.peer_seq, .ack = 0, .data = pattern(1000)}, false);
    s.peer_seq += 1000;
  }
  s.flush();
  const auto acks = s.all_sent();
  REQUIRE(acks.size() == 3);
  CHECK(acks[0].ack == 9000);
  CHECK(acks[1].ack == 17000);
  CHECK(acks[2].ack == s.peer_seq);
}

TEST_CASE("rfc5681 4.2: what comes in one turn has one ACK, but never more than 64 KB have") {
  Setup setup;
  setup.socket.rcvbuf = 1 << 20;
  Script s(setup);
  for (int i = 0; i < 92; ++i) {  // the start is over
    s.peer_data(pattern(1448));
    s.read();
  }
  s.forget();
  for (int i = 0; i < 200; ++i) {
    const std::uint32_t at = s.peer_seq;
    s.peer_seq += 1448;
    s.peer({.seq = at, .ack = 0, .data = pattern(1448)}, false);
  }
  s.flush();
  const auto acks = s.all_sent();
  CHECK(acks.size() == 200 * 1448 / 65536 + 1);
  CHECK(acks.back().ack == s.peer_seq);
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

TEST_CASE("rfc1122 4.2.3.2: reading all of a full segment with PSH acknowledges it, too: its sender may wait for that") {
  for (const bool push : {true, false}) {
    Script s;
    use_up_quick_acks(s);
    s.peer_data(pattern(1000));
    s.peer_data(pattern(1000));  // the peer's segments are known now
    s.read();
    s.forget();
    s.peer_data(pattern(1000), static_cast<std::uint8_t>(push ? kAck | kPsh : kAck));
    CHECK(s.sent_nothing());
    s.read();
    CHECK(s.all_sent().size() == (push ? 1 : 0));
  }
}

TEST_CASE("A reader that answers full segments with PSH has its ACKs carried, however many there are") {
  Script s;
  use_up_quick_acks(s);
  s.peer_data(pattern(1000));
  s.peer_data(pattern(1000));
  s.read();
  s.wait(milliseconds(50));
  s.write("answer");
  s.peer_data(pattern(1000), kAck | kPsh);
  s.read();
  s.write("answer");
  s.forget();
  s.peer_data(pattern(1000), kAck | kPsh);
  s.read();
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

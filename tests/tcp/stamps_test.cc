// Times of what is sent (stack/tcp/sender/stamps.hh), on a virtual clock.
#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

constexpr std::uint8_t kAll = kStampQueued | kStampSent | kStampAcknowledged;

std::vector<StampReport> reports(Script& s) {
  std::vector<StampReport> all;
  for (StampReport r; s.worker->take_stamp(*s.c, r);) all.push_back(std::move(r));
  return all;
}

Setup small_window() {
  Setup setup;
  setup.sack = true;
  setup.options.tcp.initial_window = 2;
  return setup;
}

}  // namespace

TEST_CASE("stamps: a write is told of when its last byte leaves, and when that is acknowledged") {
  Script s(small_window());
  s.peer_ack(0);
  const Seq first = s.c->hot.snd_una;
  REQUIRE(s.worker->want_stamps(*s.c, kAll, false));
  s.write(pattern(3500));  // two segments leave
  CHECK(reports(s).empty());
  s.wait(milliseconds(7));
  const Time left = s.now;
  s.peer_ack(2000);
  auto got = reports(s);
  REQUIRE(got.size() == 2);
  CHECK(got[0].kind == kStampQueued);
  CHECK(got[1].kind == kStampSent);
  for (const auto& r : got) {
    CHECK(r.byte == first + 3499);
    CHECK(r.when == left);
    CHECK(r.frame.empty());
  }
  s.wait(milliseconds(5));
  s.peer_ack(3000);
  CHECK(reports(s).empty());
  CHECK((s.edges() & SocketBase::kStampEdge) != 0);
  s.peer_ack(3500);
  CHECK((s.edges() & SocketBase::kStampEdge) != 0);
  got = reports(s);
  REQUIRE(got.size() == 1);
  CHECK(got[0].kind == kStampAcknowledged);
  CHECK(got[0].when == s.now);
  CHECK(!s.worker->has_stamps(*s.c));
}

TEST_CASE("stamps: what goes again is told of again, and acknowledged once") {
  Script s(small_window());
  s.peer_ack(0);
  REQUIRE(s.worker->want_stamps(*s.c, kStampSent | kStampAcknowledged, false));
  s.write(pattern(1000));
  CHECK(reports(s).size() == 1);
  s.wait(milliseconds(1500));
  REQUIRE(s.count(Counter::retransmitted_segments) >= 1);
  const auto again = reports(s);
  CHECK(again.size() == s.count(Counter::retransmitted_segments));
  s.peer_ack(1000);
  const auto end = reports(s);
  REQUIRE(end.size() == 1);
  CHECK(end[0].kind == kStampAcknowledged);
}

TEST_CASE("stamps: of writes that wait together there is one, of the last") {
  Script s(small_window());
  s.peer_ack(0);
  const Seq first = s.c->hot.snd_una;
  REQUIRE(s.worker->want_stamps(*s.c, kStampSent, false));
  s.write("a");   // leaves
  s.write("bc");  // waits for the ACK (Nagle)
  s.write("d");
  CHECK(reports(s).size() == 1);
  s.peer_ack(1);
  const auto got = reports(s);
  REQUIRE(got.size() == 1);
  CHECK(got[0].byte == first + 3);
}

TEST_CASE("stamps: nobody takes them: they end with the receive buffer, and the connection goes on") {
  Script s(small_window());
  s.peer_ack(0);
  REQUIRE(s.worker->want_stamps(*s.c, kAll, true));
  std::uint32_t sent = 0;
  for (int i = 0; i < 500; ++i) {
    s.write(pattern(500));
    sent += 500;
    s.peer_ack(sent);
    s.forget();
  }
  const auto got = reports(s);
  CHECK(got.size() > 20);
  std::size_t memory = 0;
  for (const auto& r : got) memory += r.frame.size();
  CHECK(memory < s.c->rx.buffer);
  s.write("on");
  s.peer_ack(sent + 2);
  CHECK(reports(s).size() == 3);
  REQUIRE(s.worker->want_stamps(*s.c, 0, false));
  s.write("off");
  s.peer_ack(sent + 5);
  CHECK(reports(s).empty());
}

}  // namespace mtcp::test

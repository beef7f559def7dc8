// What our ACKs say about data out of order and about data that came twice.
#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

using Blocks = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

Setup with_sack(bool timestamps = false) {
  Setup s;
  s.sack = true;
  s.timestamps = timestamps;
  return s;
}

// The peer's data from `from` on, at its place in the stream.
In at(std::uint32_t from, std::uint32_t n) { return {.seq = from, .ack = 0, .data = pattern(n, from)}; }

}  // namespace

TEST_CASE("rfc2018 2: our SYN permits SACK, and it is in use if the peer's SYN permits it, too") {
  CHECK(Script(with_sack()).info().sack);
  Script without;
  CHECK(without.syn->options.sack_permitted);
  CHECK_FALSE(without.info().sack);
  without.peer(at(1000, 100));
  CHECK(without.sent().sack.empty());
  Setup off = with_sack();
  off.options.tcp.sack = false;
  Script s(off);
  CHECK_FALSE(s.syn->options.sack_permitted);
  CHECK_FALSE(s.info().sack);
}

TEST_CASE("rfc2018 4: the block of the newest segment comes first, the others as they were reported last") {
  Script s(with_sack());
  s.peer(at(1000, 100));
  CHECK(s.sent().sack == Blocks{{1000, 1100}});
  s.peer(at(3000, 100));
  CHECK(s.sent().sack == Blocks{{3000, 3100}, {1000, 1100}});
  s.peer(at(2000, 100));
  CHECK(s.sent().sack == Blocks{{2000, 2100}, {3000, 3100}, {1000, 1100}});
  s.peer(at(1100, 100));  // one that grows is the newest again
  CHECK(s.sent().sack == Blocks{{1000, 1200}, {2000, 2100}, {3000, 3100}});
  s.peer(at(4000, 100));
  s.forget();
  s.peer(at(5000, 100));  // of five the four newest
  CHECK(s.sent().sack == Blocks{{5000, 5100}, {4000, 4100}, {1000, 1200}, {2000, 2100}});
  s.peer(at(1200, 800));  // two become one
  CHECK(s.sent().sack == Blocks{{1000, 2100}, {5000, 5100}, {4000, 4100}});
}

TEST_CASE("rfc2018 3: three blocks fit beside timestamps") {
  Script s(with_sack(true));
  for (std::uint32_t i = 1; i <= 4; ++i) s.peer(at(1000 * i, 100));
  const Out o = s.last_sent();
  CHECK(o.sack == Blocks{{4000, 4100}, {3000, 3100}, {2000, 2100}});
  CHECK(o.options.has_timestamps);
}

TEST_CASE("rfc2018 4: what is acknowledged is not reported any more, what is still out of order is") {
  Script s(with_sack());
  s.peer(at(1000, 100));
  s.peer(at(2000, 100));
  s.forget();
  s.peer(at(0, 1000));
  const Out o = s.sent();
  CHECK(o.ack == 1100);
  CHECK(o.sack == Blocks{{2000, 2100}});
  s.peer(at(1100, 900));
  const Out last = s.sent();
  CHECK(last.ack == 2100);
  CHECK(last.sack.empty());
  CHECK(s.read() == pattern(2100));
}

TEST_CASE("rfc2018 4: data carries the blocks where they fit beside it") {
  Script s(with_sack());
  s.peer(at(1000, 100));
  s.forget();
  s.write("short");
  CHECK(s.sent().sack == Blocks{{1000, 1100}});
  s.write(pattern(1000));  // fills the segment
  CHECK(s.sent().sack.empty());
}

TEST_CASE("rfc2018 3: a FIN out of order is in its block, as it has a sequence number; acknowledged, it is not reported any more") {
  const auto fin = [](std::uint32_t from, std::uint32_t n) {
    In in = at(from, n);
    in.flags = kAck | kFin;
    return in;
  };
  const auto ends = [](Script& s, std::uint32_t fin_seq) {
    for (const Out& o : s.all_sent())
      if (o.ack == fin_seq + 1) CHECK(o.sack.empty());
    s.wait(milliseconds(100));
    s.write("x");
    const Out o = s.last_sent();
    CHECK(o.ack == fin_seq + 1);
    CHECK(o.sack.empty());
  };
  SECTION("on data") {
    Script s(with_sack());
    s.peer(fin(1000, 100));
    CHECK(s.sent().sack == Blocks{{1000, 1101}});
    s.peer(at(500, 500));
    CHECK(s.sent().sack == Blocks{{500, 1101}});
    s.peer(at(0, 500));
    ends(s, 1100);
  }
  SECTION("alone, and then what precedes it") {
    Script s(with_sack());
    s.peer(fin(1000, 0));
    CHECK(s.sent().sack == Blocks{{1000, 1001}});
    s.peer(at(900, 100));
    CHECK(s.sent().sack == Blocks{{900, 1001}});
    s.peer(at(0, 900));
    ends(s, 1000);
  }
  SECTION("alone, and nothing else out of order") {
    Script s(with_sack());
    s.peer(fin(3000, 0));
    CHECK(s.sent().sack == Blocks{{3000, 3001}});
    for (std::uint32_t from = 0; from < 3000; from += 1000) s.peer(at(from, 1000), false);
    s.flush();
    for (const Out& o : s.all_sent())
      for (const auto& b : o.sack) CHECK(b.first > o.ack);
    s.wait(milliseconds(100));
    s.write("x");
    CHECK(s.last_sent().sack.empty());
  }
}

TEST_CASE("rfc2883 4.1.1: a segment that is wholly known is reported, once, in front of the others") {
  Script s(with_sack());
  s.peer(at(0, 500));
  s.peer(at(1000, 100));
  s.peer(at(2000, 100));
  s.forget();
  s.peer(at(0, 500));
  CHECK(s.sent().sack == Blocks{{0, 500}, {2000, 2100}, {1000, 1100}});
  s.peer(at(3000, 100));
  CHECK(s.sent().sack == Blocks{{3000, 3100}, {2000, 2100}, {1000, 1100}});
}

TEST_CASE("rfc2883 4.1: of a segment out of order that is known in part, that part; its block follows") {
  Script s(with_sack());
  s.peer(at(1000, 100));
  s.forget();
  s.peer(at(1000, 100));  // section 4.2.2: a duplicate above the cumulative ACK
  CHECK(s.sent().sack == Blocks{{1000, 1100}, {1000, 1100}});
  s.peer(at(1050, 100));  // at its end
  CHECK(s.sent().sack == Blocks{{1050, 1100}, {1000, 1150}});
  s.peer(at(900, 200));  // at its start
  CHECK(s.sent().sack == Blocks{{1000, 1100}, {900, 1150}});
  s.peer(at(800, 500));  // around it
  CHECK(s.sent().sack == Blocks{{900, 1150}, {800, 1300}});
  s.peer(at(0, 800));
  CHECK(s.read() == pattern(1300));
}

TEST_CASE("rfc2883 4.1: of a segment that reaches beyond RCV.NXT, the part before it") {
  Script s(with_sack());
  s.peer(at(0, 500));
  s.forget();
  s.peer(at(200, 400));
  const Out o = s.sent();
  CHECK(o.ack == 600);
  CHECK(o.sack == Blocks{{200, 500}});
  CHECK(s.read() == pattern(600));
}

TEST_CASE("rfc2883: a duplicate left of the window is reported, too; with dsack = false none is") {
  for (const bool dsack : {true, false}) {
    Setup setup = with_sack();
    setup.options.tcp.dsack = dsack;
    Script s(setup);
    for (std::uint32_t i = 0; i < 10; ++i) s.peer(at(1000 * i, 1000));
    s.wait(milliseconds(50));
    s.forget();
    s.peer(at(2000, 500));
    const Out o = s.sent();
    CHECK(o.ack == 10000);
    CHECK(o.sack == (dsack ? Blocks{{2000, 2500}} : Blocks{}));
  }
}

TEST_CASE("rfc2883 4: a FIN that comes twice is in the duplicate's block, as it has a sequence number") {
  const auto fin = [](std::uint32_t from, std::uint32_t n) {
    In in = at(from, n);
    in.flags = kAck | kFin;
    return in;
  };
  Script s(with_sack());
  SECTION("after it was acknowledged, with the data before it") {
    s.peer(fin(0, 500));
    s.forget();
    s.peer(fin(0, 500));
    const Out o = s.sent();
    CHECK(o.ack == 501);
    CHECK(o.sack == Blocks{{0, 501}});
  }
  SECTION("after it was acknowledged, alone") {
    s.peer(fin(0, 500));
    s.forget();
    s.peer(fin(500, 0));
    CHECK(s.sent().sack == Blocks{{500, 501}});
  }
  SECTION("after it was acknowledged, the data without it") {
    s.peer(fin(0, 500));
    s.forget();
    s.peer(at(100, 400));
    CHECK(s.sent().sack == Blocks{{100, 500}});
  }
  SECTION("out of order, with data") {
    s.peer(fin(1000, 100));
    s.forget();
    s.peer(fin(1000, 100));
    CHECK(s.sent().sack == Blocks{{1000, 1101}, {1000, 1101}});
    s.peer(fin(1050, 50));
    CHECK(s.sent().sack == Blocks{{1050, 1101}, {1000, 1101}});
  }
  SECTION("out of order, alone") {
    s.peer(fin(1000, 0));
    s.forget();
    s.peer(fin(1000, 0));
    CHECK(s.sent().sack == Blocks{{1000, 1001}, {1000, 1001}});
  }
  SECTION("out of order, first alone and then with the data before it, which is new") {
    s.peer(fin(1000, 0));
    s.forget();
    s.peer(fin(900, 100));
    CHECK(s.sent().sack == Blocks{{1000, 1001}, {900, 1001}});
  }
}

TEST_CASE("rfc2883 4: nothing beyond what is acknowledged is reported as a duplicate, though it comes with a second FIN") {
  Script s(with_sack());
  In in = at(0, 500);
  in.flags = kAck | kFin;
  s.peer(in);
  s.forget();
  in = at(400, 101);  // up to the place behind the first one
  in.flags = kAck | kFin;
  s.peer(in);
  for (const Out& o : s.all_sent())
    for (const auto& b : o.sack) CHECK(b.second <= 501);
}

}  // namespace mtcp::test

// What is held back, and what lets it go: Nagle, TCP_NODELAY, TCP_CORK, MSG_MORE; and where PSH is.
#include "tests/tcp/script.hh"

namespace mtcp::test {

TEST_CASE("rfc9293 3.7.4: Nagle holds a small segment while another small one is not acknowledged") {
  Script s;
  s.write("one");
  CHECK(s.sent().data == "one");
  s.write("two");
  s.write("three");
  CHECK(s.sent_nothing());
  s.peer_ack(3);
  CHECK(s.sent().data == "twothree");
  CHECK(s.sent_nothing());
}

TEST_CASE("rfc9293 3.7.4: Nagle as Minshall has it lets a small segment follow full ones") {
  Script s;
  s.write(pattern(2500));
  const auto all = s.all_sent();
  REQUIRE(all.size() == 3);
  CHECK(all[2].data.size() == 500);
  CHECK((all[2].flags & kPsh) != 0);
}

TEST_CASE("rfc9293 3.9.1.2: PSH is where the last write ends, not where one of its segment did (as Linux)") {
  Setup setup;
  setup.socket.cork = true;
  Script s(setup);
  s.write("0123456789");
  s.write(pattern(1000));
  CHECK(s.sent().flags == kAck);
  CHECK(s.sent_nothing());
  s.options({});
  const Out rest = s.sent();
  CHECK(rest.data.size() == 10);
  CHECK(rest.flags == (kAck | kPsh));
}

TEST_CASE("rfc9293 3.9.1.2: segments that leave together end with PSH, whatever holds back what follows (as Linux)") {
  Script s;
  std::size_t before = 0;
  SECTION("the peer's window") {
    s.peer_ack(0, 20);  // 2560 bytes
    s.write(pattern(5000));
  }
  SECTION("Nagle's algorithm") {
    before = 1;
    s.write("small");
    s.write(pattern(2500));
  }
  SECTION("a cork") {
    before = 0;
    s.write(pattern(2500), true);
  }
  const auto all = s.all_sent();
  REQUIRE(all.size() == before + 2);
  CHECK((all[before].flags & kPsh) == 0);
  CHECK((all[before + 1].flags & kPsh) != 0);
}

TEST_CASE("TCP_NODELAY sends every write at once") {
  Setup setup;
  setup.socket.nodelay = true;
  Script s(setup);
  for (int i = 0; i < 5; ++i) s.write("x");
  CHECK(s.all_sent().size() == 5);
}

TEST_CASE("Setting TCP_NODELAY releases what Nagle held") {
  Script s;
  s.write("one");
  s.write("two");
  s.forget();
  SocketOptions o;
  o.nodelay = true;
  s.options(o);
  CHECK(s.sent().data == "two");
}

TEST_CASE("TCP_CORK sends full segments only, and the rest when it is taken out") {
  Setup setup;
  setup.socket.cork = true;
  Script s(setup);
  s.write(pattern(400));
  s.write(pattern(700, 400));
  const auto all = s.all_sent();
  REQUIRE(all.size() == 1);
  CHECK(all[0].data == pattern(1000));
  s.options({});
  CHECK(s.sent().data == pattern(100, 1000));
}

TEST_CASE("TCP_CORK holds a remainder no longer than 200 ms") {
  Setup setup;
  setup.socket.cork = true;
  Script s(setup);
  s.write("held");
  CHECK(s.sent_nothing());
  const Duration waited = s.wait_for_segment(seconds(2));
  CHECK(waited >= milliseconds(200));
  CHECK(waited <= milliseconds(202));
  CHECK(s.sent().data == "held");
}

TEST_CASE("rfc9293 3.9.1.2: what a timer sends because nothing has followed has PSH (as Linux)") {
  Setup setup;
  setup.peer_wscale = -1;
  Script s(setup);
  SECTION("after MSG_MORE") {
    s.write("held", true);
    REQUIRE(s.sent_nothing());
  }
  SECTION("what fits into a small window") {
    s.peer_ack(0, 0);
    s.write("held and more");
    s.peer_ack(0, 4);
    REQUIRE(s.sent_nothing());
  }
  s.wait_for_segment(seconds(2));
  const Out out = s.sent();
  CHECK(out.data == "held");
  CHECK(out.flags == (kAck | kPsh));
}

TEST_CASE("MSG_MORE holds a remainder until a write without it") {
  Script s;
  s.write("head", true);
  CHECK(s.sent_nothing());
  s.write("body");
  CHECK(s.sent().data == "headbody");
}

TEST_CASE("Setting TCP_NODELAY releases what a cork or MSG_MORE held, as Linux") {
  Setup setup;
  SocketOptions o;
  o.cork = setup.socket.cork = GENERATE(true, false);
  Script s(setup);
  s.write("held", !o.cork);
  CHECK(s.sent_nothing());
  o.nodelay = true;
  s.options(o);
  CHECK(s.sent().data == "held");
}

TEST_CASE("An ACK releases what MSG_MORE held, as Linux, but not what a cork holds") {
  Setup setup;
  const bool cork = setup.socket.cork = GENERATE(true, false);
  setup.socket.nodelay = true;
  Script s(setup);
  s.write(pattern(2050), true);
  CHECK(payload(s.all_sent()) == 2000);
  s.peer_ack(1000);
  if (cork)
    CHECK(s.sent_nothing());
  else
    CHECK(s.sent().data == pattern(50, 2000));
}

}  // namespace mtcp::test

// Urgent data (RFC 9293 section 3.8.5, RFC 6093), with Linux's reading of the pointer: one past the urgent byte.
#include "tests/tcp/script.hh"

namespace mtcp::test {
namespace {

constexpr std::uint8_t kUrgent = kAck | kUrg;

// What MSG_OOB gets: the byte, or the name of the error.
std::string urgent(Script& s, bool peek = false) {
  std::byte byte{};
  const auto r = s.worker->receive_urgent(*s.c, &byte, peek);
  if (!r) return name(r.error());
  return *r == 0 ? "end" : std::string(1, static_cast<char>(byte));
}

std::string peek(Script& s) {
  char buffer[64];
  const iovec v{buffer, sizeof buffer};
  const auto r = s.worker->receive(*s.c, {&v, 1}, {.peek = true}, s.now);
  return r ? std::string(buffer, *r) : name(r.error());
}

bool readable(Script& s) { return s.worker->readiness(*s.c).readable; }
bool has_urgent(Script& s) { return s.worker->readiness(*s.c).urgent; }
bool at_mark(Script& s) { return s.worker->at_mark(*s.c); }
std::size_t available(Script& s) { return s.worker->readable_bytes(*s.c); }

Setup in_line() {
  Setup setup;
  setup.socket.oob_inline = true;
  return setup;
}

// --- receiving

TEST_CASE("rfc6093 3.1: the pointer is one past the urgent byte, which is read apart from the others") {
  Script s;
  CHECK(urgent(s) == name(Errc::invalid));
  s.peer({.seq = 0, .ack = 0, .data = "abc!def", .flags = kUrgent, .urgent = 4});
  CHECK((s.edges() & (SocketBase::kUrgentEdge | SocketBase::kReadEdge)) == (SocketBase::kUrgentEdge | SocketBase::kReadEdge));
  CHECK(s.count(Counter::urgent_received) == 1);
  CHECK(has_urgent(s));
  CHECK(available(s) == 3);
  CHECK(urgent(s, true) == "!");
  CHECK(urgent(s) == "!");
  CHECK(urgent(s) == name(Errc::invalid));
  CHECK(!has_urgent(s));
  CHECK(!at_mark(s));
  CHECK(s.read() == "abc");
  CHECK(at_mark(s));
  CHECK(s.read() == "def");
  CHECK(!at_mark(s));
  CHECK(s.worker->info(*s.c).rx_queued == 0);
}

TEST_CASE("rfc9293 3.8.5: a read that passes the mark leaves the urgent byte out, also if nobody has read it") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "abc!def", .flags = kUrgent, .urgent = 4});
  CHECK(s.read(2) == "ab");
  CHECK(peek(s) == "c");
  CHECK(s.read(2) == "c");
  CHECK(has_urgent(s));
  CHECK(peek(s) == "def");
  CHECK(s.read(2) == "de");
  CHECK(!has_urgent(s));
  CHECK(urgent(s) == name(Errc::invalid));
  CHECK(s.read() == "f");
}

TEST_CASE("rfc9293 3.8.5: an urgent byte that is alone makes nothing readable") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "!", .flags = kUrgent, .urgent = 1});
  CHECK(!readable(s));
  CHECK(has_urgent(s));
  CHECK(at_mark(s));
  CHECK(peek(s) == name(Errc::would_block));
  CHECK(has_urgent(s));
  CHECK(s.read_result().error() == Errc::would_block);  // and has passed it
  CHECK(!has_urgent(s));
  s.peer({.seq = 1, .ack = 0, .data = "x"});
  CHECK(s.read() == "x");
}

TEST_CASE("rfc9293 3.8.5: the end of the stream behind an urgent byte") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "a!", .flags = kUrgent | kFin, .urgent = 2});
  CHECK(s.read() == "a");
  CHECK(readable(s));
  CHECK(peek(s).empty());
  CHECK(urgent(s) == "!");
  CHECK(*s.read_result() == 0);
}

TEST_CASE("SO_OOBINLINE: the urgent byte stays, and reads still end at the mark") {
  Script s(in_line());
  s.peer({.seq = 0, .ack = 0, .data = "abc!def", .flags = kUrgent, .urgent = 4});
  CHECK(has_urgent(s));
  CHECK(available(s) == 7);
  CHECK(urgent(s) == name(Errc::invalid));
  CHECK(s.read() == "abc");
  CHECK(at_mark(s));
  CHECK(readable(s));
  CHECK(peek(s) == "!def");
  CHECK(s.read(1) == "!");
  CHECK(!at_mark(s));
  CHECK(!has_urgent(s));
  CHECK(s.read() == "def");
}

TEST_CASE("rfc9293 3.10.7.4: the pointer comes before the byte") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "", .flags = kUrgent, .urgent = 3});
  CHECK(s.sent_nothing());
  CHECK((s.edges() & SocketBase::kUrgentEdge) != 0);
  CHECK(urgent(s) == name(Errc::would_block));
  CHECK(!has_urgent(s));
  SECTION("which comes with the pointer again: that is no news") {
    s.peer({.seq = 0, .ack = 0, .data = "ab!", .flags = kUrgent, .urgent = 3});
    CHECK((s.edges() & SocketBase::kUrgentEdge) == 0);
  }
  SECTION("which comes without URG") { s.peer({.seq = 0, .ack = 0, .data = "ab!"}); }
  SECTION("in pieces") {
    s.peer({.seq = 0, .ack = 0, .data = "a", .flags = kUrgent, .urgent = 3});
    CHECK(!has_urgent(s));
    CHECK(urgent(s) == name(Errc::would_block));
    s.peer({.seq = 1, .ack = 0, .data = "b!"});
  }
  CHECK(has_urgent(s));
  CHECK(s.read() == "ab");
  CHECK(at_mark(s));
  CHECK(urgent(s) == "!");
  CHECK(s.read_result().error() == Errc::would_block);
}

TEST_CASE("rfc9293 3.10.7.4: the stream ends before the urgent byte") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "", .flags = kUrgent, .urgent = 3});
  s.peer({.seq = 0, .ack = 0, .data = "a", .flags = kAck | kFin});
  CHECK(urgent(s) == "end");
}

TEST_CASE("rfc9293 3.8.5: urgent data out of order can be read before what precedes it") {
  Script s;
  s.peer({.seq = 3, .ack = 0, .data = "d!f", .flags = kUrgent, .urgent = 2});
  CHECK((s.edges() & (SocketBase::kUrgentEdge | SocketBase::kReadEdge)) == (SocketBase::kUrgentEdge | SocketBase::kReadEdge));
  CHECK(has_urgent(s));
  CHECK(!readable(s));
  CHECK(urgent(s, true) == "!");
  s.peer({.seq = 0, .ack = 0, .data = "abc"});
  CHECK(s.read() == "abcd");
  CHECK(at_mark(s));
  CHECK(s.read() == "f");
}

TEST_CASE("rfc9293 3.10.7.4: a pointer without data, out of order or old, draws no ACK") {
  Script s;
  s.peer_data("ab");
  s.wait(milliseconds(100));
  s.forget();
  s.peer({.seq = 2, .ack = 0, .data = "", .flags = kUrgent, .urgent = 1});
  s.peer({.seq = 5, .ack = 0, .data = "", .flags = kUrgent, .urgent = 1});
  CHECK(s.sent_nothing());
}

TEST_CASE("rfc9293 3.10.7.4: a pointer to what has been received is ignored") {
  Script s;
  s.peer_data("abcd");
  s.peer({.seq = 0, .ack = 0, .data = "abcdef", .flags = kUrgent, .urgent = 3});
  CHECK((s.edges() & SocketBase::kUrgentEdge) == 0);
  CHECK(urgent(s) == name(Errc::invalid));
  CHECK(s.read() == "abcdef");
  s.peer({.seq = 4, .ack = 0, .data = "efg!", .flags = kUrgent, .urgent = 4});  // in part
  CHECK(urgent(s) == "!");
  CHECK(s.read() == "g");
}

TEST_CASE("rfc9293 3.10.7.4: a later urgent byte takes the place of the one before") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "a1b", .flags = kUrgent, .urgent = 2});
  s.edges();
  SECTION("which is read in line then") {
    s.peer({.seq = 3, .ack = 0, .data = "c2d", .flags = kUrgent, .urgent = 2});
    CHECK(urgent(s) == "2");
    CHECK(s.read() == "a1bc");
    CHECK(s.read() == "d");
  }
  SECTION("but where it would be the next to be read, it is left out") {
    CHECK(s.read() == "a");
    s.peer({.seq = 3, .ack = 0, .data = "c2d", .flags = kUrgent, .urgent = 2});
    CHECK(s.read() == "bc");
    CHECK(urgent(s) == "2");
    CHECK(s.read() == "d");
  }
  CHECK((s.edges() & SocketBase::kUrgentEdge) != 0);
}

TEST_CASE("rfc5961 5.2: an urgent pointer beside an ACK that cannot be is not looked at") {
  Script s;
  s.peer({.seq = 0, .ack = 5000, .data = "abc!", .flags = kUrgent, .urgent = 4});
  CHECK((s.edges() & SocketBase::kUrgentEdge) == 0);
  CHECK(urgent(s) == name(Errc::invalid));
}

TEST_CASE("rfc9293 3.8.5: a pointer of 0 is to the segment's first byte") {
  Script s;
  s.peer({.seq = 0, .ack = 0, .data = "!ab", .flags = kUrgent, .urgent = 0});
  CHECK(urgent(s) == "!");
  CHECK(s.read() == "ab");
}

// --- sending

TEST_CASE("rfc6093 3.1: urgent data carries URG and a pointer to one past it") {
  Script s;
  CHECK(s.write_urgent("abc!") == 4);
  Out out = s.sent();
  CHECK(out.flags == (kAck | kPsh | kUrg));
  CHECK(out.urgent == 4);
  CHECK(out.data == "abc!");
  SECTION("what is sent again has it still") {
    s.wait_for_segment(seconds(2));
    out = s.sent();
    CHECK(out.data == "abc!");
    CHECK(out.flags == (kAck | kPsh | kUrg));
    CHECK(out.urgent == 4);
  }
  SECTION("what follows has none") {
    s.peer_ack(4);
    s.write("next");
    CHECK(s.sent().flags == (kAck | kPsh));
  }
}

TEST_CASE("rfc9293 3.8.5: all that precedes urgent data and has not been sent announces it") {
  Script s;
  s.peer_ack(0, 10);  // 1280 bytes
  CHECK(s.write(pattern(3000)) == 3000);
  for (const Out& o : s.all_sent()) CHECK(!o.urgent);
  CHECK(s.write_urgent("!") == 1);
  CHECK(s.sent_nothing());
  s.peer_ack(1000, 65535);
  std::uint32_t at = 1000;
  for (const Out& o : s.all_sent()) {
    CHECK((o.flags & kUrg) != 0);
    CHECK(o.seq == at);
    CHECK(o.seq + o.urgent == 3001);
    at += static_cast<std::uint32_t>(o.data.size());
  }
  CHECK(at == 3001);
}

TEST_CASE("rfc9293 3.8.5: a closed window keeps no urgent pointer back") {
  Script s;
  s.peer_ack(0, 0);
  CHECK(s.write_urgent("ab!") == 3);
  CHECK(s.sent_nothing());
  s.wait_for_segment(seconds(2));
  const auto probes = s.all_sent();
  REQUIRE(probes.size() == 2);  // as Linux: the second one must be answered
  CHECK(probes[0].seq == 0);
  CHECK(probes[0].flags == (kAck | kUrg));
  CHECK(probes[0].urgent == 3);
  CHECK(probes[0].data.empty());
  CHECK(probes[1].flags == kAck);
}

TEST_CASE("rfc9293 3.8.5: a closed window and no packets to spare keep no urgent pointer back") {
  Script s;
  s.peer_ack(0, 0);
  // All of the pool, and what the stack gives back to it when it sees that.
  std::vector<Packet*> taken(s.pool.capacity());
  std::size_t n = 0;
  for (int i = 0; i < 3; ++i) {
    n += s.pool.alloc(&taken[n], taken.size() - n);
    s.wait(milliseconds(1));
  }
  CHECK(s.write_urgent("ab!") == 3);
  s.wait_for_segment(seconds(2));
  s.pool.free(taken.data(), n);
  const auto probes = s.all_sent();
  REQUIRE(probes.size() == 2);
  CHECK(probes[0].flags == (kAck | kUrg));
  CHECK(probes[0].urgent == 3);
  CHECK(probes[1].flags == kAck);
  CHECK(s.count(Counter::no_packets) == 0);
}

TEST_CASE("rfc9293 3.8.5: neither Nagle's algorithm nor a cork holds urgent data back") {
  Script s;
  SECTION("Nagle") {
    s.write("a");
    s.write("b");
    CHECK(s.all_sent().size() == 1);
    s.write_urgent("!");
    const Out out = s.sent();
    CHECK(out.data == "b!");
    CHECK(out.urgent == 2);
    s.write("c");  // as long as it is urgent
    CHECK(s.sent().data == "c");
  }
  SECTION("cork") {
    SocketOptions corked;
    corked.cork = true;
    s.options(corked);
    s.write("a");
    CHECK(s.sent_nothing());
    s.write_urgent("!");
    CHECK(s.sent().data == "a!");
  }
  SECTION("MSG_MORE") {
    s.write_urgent("!", true);
    CHECK(s.sent().data == "!");
  }
}

TEST_CASE("rfc9293 3.8.5: an urgent byte that is too far away for the pointer") {
  Setup setup;
  setup.options.tcp.initial_window = 200;
  Script s(setup);
  s.peer_ack(0, 1);  // 128 bytes
  s.forget();
  CHECK(s.write(pattern(80000)) == 80000);
  CHECK(s.write_urgent("!") == 1);
  s.forget();
  s.peer_ack(0, 2000);
  // As Linux: told as far as the field goes, until what has been sent goes beyond that.
  for (const Out& o : s.all_sent()) {
    CHECK((o.flags & kUrg) != 0);
    CHECK(o.urgent == std::min(80001 - o.seq, 65535U));
  }
}

TEST_CASE("rfc9293 3.8.5: a write of nothing is not urgent") {
  Script s;
  CHECK(s.write_urgent("") == 0);
  s.write("a");
  CHECK((s.sent().flags & kUrg) == 0);
}

}  // namespace
}  // namespace mtcp::test

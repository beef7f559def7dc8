// What leaves, and when: windows, probes, FIN, the send buffer. What is held back on purpose: held_test.cc.
#include "tests/tcp/script.hh"

namespace mtcp::test {

TEST_CASE("rfc9293 3.10.4: a FIN goes with the last data if that has not left yet") {
  Setup setup;
  setup.socket.cork = true;
  Script s(setup);
  s.write("last");
  s.shutdown();
  const Out o = s.sent();
  CHECK(o.data == "last");
  CHECK(o.fin());
  CHECK(s.sent_nothing());
}

TEST_CASE("rfc6928: the first flight is ten segments") {
  Script s;
  s.write(pattern(20000));
  CHECK(payload(s.all_sent()) == 10000);
  CHECK(s.info().cwnd == 10000);
}

TEST_CASE("rfc5681 3.1: lost SYNs cost the initial window, but for the first, as in Linux") {
  for (const int lost : {1, 2}) {
    Setup setup;
    setup.lost_syns = lost;
    Script s(setup);
    s.write(pattern(5000));
    CAPTURE(lost);
    CHECK(payload(s.all_sent()) == (lost == 1 ? 5000 : 1000));
  }
}

TEST_CASE(
    "rfc9293 3.8.6.2.1: a window that does not take a full segment is left alone while data is in flight") {
  Setup setup;
  setup.peer_wscale = -1;
  setup.peer_window = 2500;
  Script s(setup);
  s.write(pattern(5000));
  CHECK(payload(s.all_sent()) == 2000);
  s.peer_ack(1000, 1900);  // right edge: 2900
  CHECK(s.sent_nothing());
  s.peer_ack(2000, 2500);
  CHECK(payload(s.all_sent()) == 2000);
}

TEST_CASE("rfc9293 3.8.6.2.1: a peer with a tiny window gets segments of half of it") {
  Setup setup;
  setup.peer_wscale = -1;
  setup.peer_window = 600;
  Script s(setup);
  s.write(pattern(900));
  const auto all = s.all_sent();
  REQUIRE(all.size() == 2);
  CHECK(all[0].data.size() == 300);
}

TEST_CASE("rfc9293 3.8.6.2.1: what is cut for a small window leaves no short segments between full ones") {
  Setup setup;
  setup.peer_wscale = -1;
  setup.peer_window = 1600;
  Script s(setup);  // an MSS of 1000
  const std::string all = pattern(5100);
  s.write(all.substr(0, 1500));
  std::string got;
  std::vector<std::size_t> sizes;
  const auto collect = [&] {
    for (const Out& out : s.all_sent()) {
      got += out.data;
      sizes.push_back(out.data.size());
    }
  };
  collect();
  CHECK(sizes == std::vector<std::size_t>{800, 700});
  s.write(all.substr(1500, 3000));
  s.write(all.substr(4500));
  for (int i = 0; i < 8 && got.size() < all.size(); ++i) {
    s.peer_ack(static_cast<std::uint32_t>(got.size()), 1600);
    collect();
  }
  CHECK(got == all);
  CHECK(sizes == std::vector<std::size_t>{800, 700, 800, 800, 800, 800, 400});
}

TEST_CASE("rfc9293 3.8.6.2.1: what is written while a connection starts with no window leaves in whole segments") {
  Setup setup;
  setup.peer_window = 0;  // a firewall that answers SYNs itself
  Script s(setup);
  s.write(pattern(3000));
  s.write(pattern(2000));
  CHECK(s.sent_nothing());
  s.peer_ack(0, 60000);
  std::vector<std::size_t> sizes;
  for (const Out& out : s.all_sent()) sizes.push_back(out.data.size());
  CHECK(sizes == std::vector<std::size_t>(5, 1000));
}

TEST_CASE("rfc9293 3.8.6.1: a closed window is probed, ever more slowly, for as long as it is confirmed") {
  Script s;
  s.write("x");
  s.forget();
  s.peer_ack(1, 0);
  s.write("waiting");
  CHECK(s.sent_nothing());
  Duration last{};
  for (int i = 0; i < 40; ++i) {
    const Duration waited = s.wait_for_segment(seconds(125));
    const Out probe = s.sent();
    CHECK(probe.seq == 0);  // SND.UNA - 1: out of the window, so it must be answered
    CHECK(probe.data.empty());
    CHECK(waited >= last);
    CHECK(waited <= seconds(121));
    last = waited;
    s.peer_ack(1, 0);
    REQUIRE(s.info().state == State::established);
  }
  s.peer_ack(1, 1000);
  CHECK(s.sent().data == "waiting");
  s.peer_ack(8);
  CHECK(s.info().backoff == 0);
}

TEST_CASE("rfc1122 4.2.2.17: probes without any answer end the connection") {
  Setup setup;
  setup.options.tcp.retries2 = 3;
  Script s(setup);
  s.peer_ack(0, 0);
  s.write("waiting");
  s.wait(seconds(30));
  CHECK(s.info().state == State::closed);
  CHECK(s.worker->take_error(*s.c) == Errc::timed_out);
  CHECK(s.count(Counter::window_probes_sent) == 3);
}

TEST_CASE("rfc9293 3.8.6.1: a FIN waits for a window, too") {
  Script s;
  s.peer_ack(0, 0);
  s.shutdown();
  CHECK(s.sent_nothing());
  s.wait_for_segment(seconds(2));
  CHECK(!s.sent().fin());
  s.peer_ack(0, 100);
  CHECK(s.sent().fin());
}

TEST_CASE("rfc9293 3.10.4: a FIN that comes later goes with the last data while that waits for the device") {
  Setup setup;
  setup.timestamps = GENERATE(false, true);
  Script s(setup);
  std::string data = GENERATE(std::string("odd"), std::string("even"), pattern(1500));
  const iovec v{data.data(), data.size()};
  REQUIRE(s.worker->send(*s.c, {&v, 1}, false, s.now));
  s.shutdown();
  const auto all = s.all_sent();  // whose checksums are looked at
  REQUIRE(all.size() == (data.size() + 999) / 1000);
  for (const Out& o : all) CHECK(o.fin() == (&o == &all.back()));
  const auto end = static_cast<std::uint32_t>(data.size());
  // The last one is lost: both come again.
  if (all.size() > 1) s.peer_ack(1000);
  s.wait_for_segment(seconds(3));
  CHECK(s.last_sent().fin());
  s.peer_ack(end + 1);
  CHECK(s.info().state == State::fin_wait_2);
  CHECK(s.info().tx_queued == 0);
}

TEST_CASE("rfc9293 3.8.6.2.1: what fits a small window goes when the override timer has run out") {
  Script s;
  s.peer_ack(0, 3);  // scaled by 7: 384 bytes
  s.write(pattern(1000));
  CHECK(s.sent_nothing());
  s.wait_for_segment(seconds(2));
  CHECK(s.sent().data == pattern(384));
}

TEST_CASE("rfc1191: a smaller path MTU cuts what is queued and sends it again") {
  Script s;
  s.write(pattern(3000));
  CHECK(payload(s.all_sent()) == 3000);
  s.icmp_fragmentation_needed(600, 0);
  const auto all = s.all_sent();
  REQUIRE(all.size() == 6);
  CHECK(all[0].data == pattern(560));
  CHECK(all[1].data == pattern(440, 560));
  CHECK(s.info().mss == 560);
  s.peer_ack(3000);
  s.write(pattern(1120));
  CHECK(s.sent().data.size() == 560);
}

TEST_CASE("rfc5927 7.2: a forged tiny MTU is not believed") {
  Script s;
  s.write(pattern(1000));
  s.forget();
  s.icmp_fragmentation_needed(68, 0);
  CHECK(s.info().mss >= 500);
}

TEST_CASE("rfc5681 4.1: after idling longer than an RTO the window restarts") {
  Setup setup;
  Script s(setup);
  std::uint32_t acked = 0;
  for (int round = 0; round < 4; ++round) {
    s.write(pattern(80000));
    s.forget();
    acked += s.info().flight;
    s.peer_ack(acked);
  }
  while (s.info().flight != 0) {
    s.forget();
    acked += s.info().flight;
    s.peer_ack(acked);
  }
  const auto before = s.info().cwnd;
  REQUIRE(before > 20000);
  s.forget();
  s.wait(seconds(10));
  s.write("x");
  CHECK(s.info().cwnd == 10000);
  CHECK(s.info().ssthresh >= before / 2);
}

TEST_CASE("A transmit queue that is full delays data, and loses none") {
  Script s;
  s.port.room = 0;
  s.write(pattern(9000));
  CHECK(s.sent_nothing());
  s.port.room = SIZE_MAX;
  s.wait(milliseconds(2));
  CHECK(payload(s.all_sent()) == 9000);
}

TEST_CASE("The send buffer is bounded, whatever the size of the writes") {
  Setup setup;
  setup.socket.sndbuf = 16384;
  setup.socket.nodelay = true;
  Script s(setup);
  const std::size_t before = s.pool.available();
  std::size_t taken = 0;
  while (s.write("x") == 1) ++taken;
  CHECK(taken >= 10);
  CHECK(before - s.pool.available() < 200);
  CHECK(!s.worker->readiness(*s.c).writable);
  CHECK(s.write_error("x") == Errc::would_block);
  CHECK((s.edges() & SocketBase::kWriteEdge) == 0);
  s.forget();
  s.peer_ack(static_cast<std::uint32_t>(taken));
  while (s.info().tx_queued != 0)
    s.peer_ack(static_cast<std::uint32_t>(s.info().bytes_acked) + s.info().flight);
  CHECK((s.edges() & SocketBase::kWriteEdge) != 0);
  CHECK(s.worker->readiness(*s.c).writable);
}

TEST_CASE("The send buffer grows with the congestion window") {
  Script s;
  std::size_t first = s.worker->writable_bytes(*s.c);
  std::uint32_t acked = 0;
  for (int i = 0; i < 5; ++i) {
    s.write(pattern(200000));
    s.forget();
    acked += s.info().flight;
    s.peer_ack(acked);
  }
  CHECK(s.info().tx_queued + s.worker->writable_bytes(*s.c) > 2 * first);
}

TEST_CASE("A peer with tiny segments does not use up the send buffer") {
  Setup setup;
  setup.peer_mss = static_cast<std::uint16_t>(GENERATE(48, 100, 250));
  CAPTURE(setup.peer_mss);
  Script s(setup);
  const std::string data = pattern(8000);
  REQUIRE(s.write(data.substr(0, 4000)) == 4000);
  CHECK(s.worker->readiness(*s.c).writable);
  REQUIRE(s.write(data.substr(4000)) == 4000);
  std::string came;
  std::size_t pushed = 0;
  while (came.size() < data.size()) {
    const auto all = s.all_sent();
    REQUIRE(!all.empty());
    for (const Out& out : all) {
      CHECK(out.data.size() <= setup.peer_mss);
      CHECK(out.seq == came.size());
      came += out.data;
      pushed += (out.flags & kPsh) != 0 ? 1 : 0;
    }
    s.peer_ack(static_cast<std::uint32_t>(came.size()));
  }
  CHECK(came == data);
  CHECK(pushed <= 2U + 8000U / setup.peer_mss / 4);
  CHECK(s.info().tx_queued == 0);
}

TEST_CASE("TCP_NOTSENT_LOWAT: writable only while little waits to be sent") {
  Setup setup;
  setup.socket.notsent_lowat = 1000;
  Script s(setup);
  s.write(pattern(12000));  // 10000 leave
  CHECK(!s.worker->readiness(*s.c).writable);
  s.edges();
  s.peer_ack(10000);
  CHECK(s.worker->readiness(*s.c).writable);
  CHECK((s.edges() & SocketBase::kWriteEdge) != 0);
}

namespace {

std::vector<std::string> segments(Script& s) {
  std::vector<std::string> all;
  for (const Out& o : s.all_sent())
    if (!o.data.empty()) all.push_back(o.data);
  return all;
}

}  // namespace

TEST_CASE("MSG_EOR: what is written later does not share a segment with the record") {
  Script s;
  s.write("record", true);
  s.worker->end_record(*s.c);
  CHECK(s.sent_nothing());
  s.write("later", true);
  CHECK(segments(s) == std::vector<std::string>{"record"});  // it is not the last any more
  s.write(" still");
  s.peer_ack(6);
  CHECK(segments(s) == std::vector<std::string>{"later still"});
}

TEST_CASE("MSG_EOR: a record that is cut into segments ends where its last one does") {
  Setup setup;
  setup.socket.nodelay = true;
  Script s(setup);
  s.write("x", true);
  s.write(pattern(299), true);
  s.worker->end_record(*s.c);
  s.c->hot.mss = 200;  // as after "fragmentation needed"
  s.write("later");
  const auto all = segments(s);
  REQUIRE(all.size() == 3);
  CHECK(all[1].size() == 100);
  CHECK(all[2] == "later");
}

TEST_CASE("reserve and commit send what was written straight into the packets") {
  Script s;
  s.write("start", true);
  std::array<iovec, 8> pieces{};
  const auto n = s.worker->reserve(*s.c, 2500, pieces, s.now);
  REQUIRE(n);
  REQUIRE(*n == 3);
  CHECK(pieces[0].iov_len == 995);
  const std::string text = pattern(1800);
  std::size_t done = 0;
  for (std::size_t i = 0; i < *n; ++i) {
    const std::size_t part = std::min(pieces[i].iov_len, text.size() - done);
    std::memcpy(pieces[i].iov_base, text.data() + done, part);
    done += part;
  }
  s.worker->commit(*s.c, 1800, false, s.now);
  s.flush();
  std::string got;
  for (const Out& o : s.all_sent()) got += o.data;
  CHECK(got == "start" + text);
  s.peer_ack(1805);
  CHECK(s.info().tx_queued == 0);
}

}  // namespace mtcp::test

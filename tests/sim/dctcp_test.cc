// DCTCP (RFC 8257).
#include "tests/sim/ecn_world.hh"

using namespace mtcp::sim;

namespace {

void dctcp(Options& o) { o.tcp.congestion_control = "dctcp"; }

struct World : EcnWorld {
  explicit World(bool with_ecn = true) : EcnWorld(dctcp, with_ecn ? kAsks : 0U, with_ecn ? kEct0 : std::uint8_t{0}) {}
  // Several segments in one turn, with these bits in the IP header; returns what they were answered with.
  std::deque<Seg> data(const std::vector<std::uint8_t>& bits) {
    for (const std::uint8_t tos : bits) {
      peer.send({.flags = kAck, .seq = snd, .ack = rcv, .data = std::string(1000, 'x'), .tos = tos});
      snd += 1000;
    }
    sim.run_for(milliseconds(250));
    return peer.hear_all();
  }
  // A window of `n` segments, which is acknowledged with ECE for the last `marked` of them.
  void window(std::uint32_t n, std::uint32_t marked) {
    write(std::size_t{n} * 1000);
    peer.forget();
    const auto ack = [&](std::uint32_t segments, std::uint8_t flags) {
      rcv += segments * 1000;
      if (segments != 0) peer.say({.flags = flags, .seq = snd, .ack = rcv});
    };
    ack(n - marked, kAck);
    ack(marked, kAck | kEce);
  }
  [[nodiscard]] ConnectionInfo info() const { return host.worker->info(*c); }
};

}  // namespace

TEST_CASE("rfc8257 3.5: the handshake is ECN-capable itself, on both sides", "[dctcp]") {
  World w;
  CHECK(w.answer.is(kSyn | kAck | kEce));
  CHECK(w.answer.tos == kEct0);
  CHECK(w.c->hot.ecn);
  Sim sim(25);
  Host& host = sim.add_host(dctcp);
  RawPeer peer{sim, host, 80, 0};
  REQUIRE(host.try_connect({peer.address, 80}) != nullptr);
  sim.run_for(milliseconds(2));
  const Seg syn = peer.hear();
  CHECK(syn.is(kSyn | kAsks));
  CHECK(syn.tos == kEct0);
}

TEST_CASE("rfc8257 3.2: each ACK's ECE says whether what it acknowledges was marked", "[dctcp]") {
  World w;
  (void)w.data({kEct0, kEct0, kEct0});
  const auto all = w.data({kEct0, kEct0, kCe, kCe, kEct0});
  std::uint32_t from = w.snd - 5000;
  for (const Seg& s : all) {
    INFO(s.ack - (w.snd - 5000));
    CHECK(s.tos == kEct0);
    const bool marked = s.ack > w.snd - 3000 && s.ack <= w.snd - 1000;
    CHECK(((s.flags & kEce) != 0) == marked);
    // None covers both kinds.
    CHECK_FALSE((from < w.snd - 3000 && s.ack > w.snd - 3000));
    CHECK_FALSE((from < w.snd - 1000 && s.ack > w.snd - 1000));
    from = s.ack;
  }
  CHECK(from == w.snd);
}

TEST_CASE("rfc8257 3.3: the window shrinks by half of the part that is marked", "[dctcp]") {
  World w;
  CHECK(w.info().dctcp_alpha == 1024);
  for (int i = 0; i < 100; ++i) w.window(4, 0);
  const std::uint32_t alpha = w.info().dctcp_alpha;
  CHECK(alpha < 20);
  const std::uint32_t before = w.info().cwnd;
  w.window(4, 1);
  CHECK(w.host.count(Counter::ecn_reductions) == 1);
  CHECK(w.info().ssthresh > before - before / 20);
  for (int i = 0; i < 100; ++i) w.window(1, 1);
  CHECK(w.info().dctcp_alpha > 1000);
}

TEST_CASE("rfc8257 3.4: to a loss it answers as any TCP", "[dctcp]") {
  World w;
  for (int i = 0; i < 100; ++i) w.window(4, 0);
  const std::uint32_t before = w.info().cwnd;
  w.write(1000);
  w.sim.run_for(seconds(3) - milliseconds(2));
  CHECK(w.info().phase == Phase::loss);
  CHECK(w.info().ssthresh <= before / 2 + 1000);
}

TEST_CASE("rfc8257 3.5: with a peer without ECN it is Reno", "[dctcp]") {
  World w(false);
  CHECK(w.answer.is(kSyn | kAck));
  CHECK_FALSE(w.info().dctcp_enabled);
  const auto all = w.data({0, 0, 0});
  for (const Seg& s : all) CHECK(s.tos == 0);
}

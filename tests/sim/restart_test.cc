// Lives of a program that follow each other at the same address: what the peers still have of the earlier one must not
// keep the next one out (RFC 6528, RFC 7323 5.4, RFC 6191).
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

struct Kind {
  bool timestamps, kept;
};
constexpr std::array<Kind, 4> kKinds{{{true, true}, {true, false}, {false, true}, {false, false}}};

// A server, and a client with so few ports that each of its lives needs all of them.
struct Lives {
  static constexpr int kPorts = 10;
  explicit Lives(bool timestamps, bool server_closes = true) {
    server.listen(80);
    server.on_accept = [server_closes](Socket& s) {
      s.close_when_sent = server_closes;
      s.close_on_eof = true;
    };
    client.options.tcp.timestamps = timestamps;
    client.restart(true);
  }
  // Opens on all ports; returns how many could. They are all there `within` that time.
  int open_all(Duration within) {
    std::vector<Socket*> opened;
    for (int i = 0; i < kPorts; ++i)
      if (Socket* s = client.try_connect({server.address, 80}); s != nullptr) opened.push_back(s);
    sim.run_for(within);
    return static_cast<int>(std::ranges::count_if(opened, [](const Socket* s) { return s->connected; }));
  }
  Sim sim{31};
  Host& server = sim.add_host();
  Host& client = sim.add_host([](Options& o) {
    o.tcp.ip_local_port_first = 40000;
    o.tcp.ip_local_port_last = 40000 + kPorts - 1;
  });
};

}  // namespace

TEST_CASE("rfc6191: fifty lives of a client open at once on the ports that the server has in TIME-WAIT", "[restart]") {
  for (const auto [timestamps, kept] : kKinds) {
    CAPTURE(timestamps, kept);
    Lives w(timestamps);
    for (int life = 0; life < 50; ++life) {
      CAPTURE(life);
      REQUIRE(w.open_all(milliseconds(20)) == Lives::kPorts);
      for (auto& s : w.client.sockets)
        if (s->connection != nullptr) s->close();
      w.sim.run_for(milliseconds(5));
      REQUIRE(w.server.worker->time_waits() == Lives::kPorts);
      w.client.restart(kept);
    }
    // With timestamps, or where sequence numbers go on, nobody needs a second attempt.
    if (timestamps || kept) CHECK(w.client.count(Counter::retransmitted_segments) == 0);
  }
}

TEST_CASE("rfc5961 4.2: a client that was killed opens at once where the server still has its connections", "[restart]") {
  for (const auto [timestamps, kept] : kKinds) {
    CAPTURE(timestamps, kept);
    Lives w(timestamps, false);
    for (int life = 0; life < 10; ++life) {
      CAPTURE(life);
      REQUIRE(w.open_all(milliseconds(20)) == Lives::kPorts);
      REQUIRE(w.server.worker->connections() == Lives::kPorts);
      w.client.restart(kept);
      w.sim.run_for(seconds(1));
    }
  }
}

TEST_CASE("rfc9293 3.5.1: a server that was killed answers at once, and its clients notice", "[restart]") {
  for (const auto [timestamps, kept] : kKinds) {
    CAPTURE(timestamps, kept);
    Lives w(timestamps, false);
    for (int life = 0; life < 10; ++life) {
      REQUIRE(w.open_all(milliseconds(20)) == Lives::kPorts);
      w.server.restart(kept);
      w.server.listen(80);
      for (auto& s : w.client.sockets)
        if (s->connection != nullptr) s->send(100);
      w.sim.run_for(milliseconds(20));
      for (auto& s : w.client.sockets) {
        CHECK(s->error == Errc::connection_reset);
        s->close();
      }
      w.client.sockets.clear();
    }
  }
}

TEST_CASE("rfc7323 5.4: timestamps and sequence numbers of a four-tuple grow from life to life", "[restart]") {
  for (const bool kept : {true, false}) {
    CAPTURE(kept);
    Lives w(true);
    std::map<std::uint16_t, std::pair<std::uint32_t, Seq>> last;
    w.sim.wire.tap = [&](const FrameInfo& f) {
      if (!is_syn(f) || f.retransmission) return;
      if (const auto earlier = last.find(f.key.local_port); earlier != last.end()) {
        CHECK(static_cast<std::int32_t>(f.ts_val - earlier->second.first) > 0);
        // And beyond what a half-open connection of the earlier life takes for its window.
        if (kept) CHECK(after(f.seq, earlier->second.second + 65535));
      }
      last.insert_or_assign(f.key.local_port, std::pair(f.ts_val, f.seq));
    };
    for (int life = 0; life < 20; ++life) {
      REQUIRE(w.open_all(milliseconds(20)) == Lives::kPorts);
      w.client.restart(kept);
    }
    CHECK(last.size() == Lives::kPorts);
  }
}

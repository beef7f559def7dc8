// Megabytes over wires of every kind, each byte compared, no packet lost to the pools.
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

struct Case {
  const char* name;
  WireOptions wire;
  std::uint64_t bytes = 500'000;
  std::uint64_t seeds = 8;
  bool timestamps = true;
  std::uint32_t rcvbuf = 0;
};

WireOptions wire(double loss, double reorder = 0, double duplicate = 0, double corrupt = 0) {
  WireOptions w;
  w.loss = loss;
  w.reorder = reorder;
  w.duplicate = duplicate;
  w.corrupt = corrupt;
  w.delay = milliseconds(5);
  return w;
}

WireOptions narrow(double bandwidth, std::size_t queue, double loss = 0) {
  WireOptions w = wire(loss);
  w.bandwidth = bandwidth;
  w.queue = queue;
  return w;
}

std::string describe(const Socket& s) {
  std::string text = "received " + std::to_string(s.received) + " of " + std::to_string(s.to_send) +
                     ", sent " + std::to_string(s.sent) + ", error " + name(s.error);
  if (s.connection == nullptr) return text + ", closed";
  const ConnectionInfo i = s.host.worker->info(*s.connection);
  return text + ", " + name(i.state) + " rx " + std::to_string(i.rx_queued) + " tx " +
         std::to_string(i.tx_queued) + " unsent " + std::to_string(i.tx_unsent) + " cwnd " +
         std::to_string(i.cwnd) + " wnd " + std::to_string(i.snd_wnd) + " rcv_wnd " +
         std::to_string(i.rcv_wnd) + " flight " + std::to_string(i.flight) + " backoff " +
         std::to_string(i.backoff) + " rto " + std::to_string(i.rto / milliseconds(1)) + " recovery " +
         std::to_string(static_cast<int>(i.phase));
}

std::string counters(const Host& h) {
  std::string text;
  for (std::size_t i = 0; i < static_cast<std::size_t>(Counter::count_); ++i)
    if (const auto n = h.count(static_cast<Counter>(i)); n != 0)
      text += std::string(" ") + Stats::info(static_cast<Counter>(i)).name + "=" + std::to_string(n);
  return text;
}

// Both sides send `bytes` and close; everything must arrive and all packets must come back.
void transfer_both_ways(const Case& k, std::uint64_t seed) {
  Sim sim(seed);
  INFO(k.name << " " << sim.label());
  const auto tune = [&k](Options& o) { o.tcp.timestamps = k.timestamps; };
  Host& server = sim.add_host(tune);
  Host& client = sim.add_host(tune);
  sim.wire.options = k.wire;
  const auto run = [&k](Socket& s) {
    s.shutdown_when_sent = true;
    s.close_on_eof = true;
    s.send(k.bytes);
  };
  server.on_accept = run;
  Worker::ListenOptions listen;
  listen.socket.rcvbuf = k.rcvbuf;
  server.listen(80, listen);
  SocketOptions options;
  options.rcvbuf = k.rcvbuf;
  Socket& c = client.connect(server, 80, options);
  run(c);
  const bool done = sim.run_until(
      [&] {
        return c.connection == nullptr && server.accepted.size() == 1 &&
               server.accepted[0]->connection == nullptr;
      },
      seconds(3600));
  INFO("client: " << describe(c) << counters(client));
  INFO("server: " << (server.accepted.empty() ? "nothing accepted" : describe(*server.accepted[0]))
                  << counters(server));
  REQUIRE(done);
  Socket& a = *server.accepted[0];
  CHECK(c.error == Errc::ok);
  CHECK(a.error == Errc::ok);
  CHECK(c.received == k.bytes);
  CHECK(a.received == k.bytes);
  CHECK(c.wrong == 0);
  CHECK(a.wrong == 0);
  // The last FINs and ACKs may be lost a few times more.
  REQUIRE(sim.run_until([&] { return client.worker->connections() + server.worker->connections() == 0; },
                        seconds(600)));
  sim.run_for(seconds(1));
  CHECK(client.leaked_packets() == 0);
  CHECK(server.leaked_packets() == 0);
}

}  // namespace

TEST_CASE("Whatever the wire does, every byte arrives once and in order, both ways", "[sim]") {
  const std::vector<Case> cases = {
      {"clean", wire(0), 3'000'000, 2},
      {"1% loss", wire(0.01), 2'000'000},
      {"5% loss", wire(0.05)},
      {"20% loss", wire(0.2), 100'000},
      {"reordering", wire(0, 0.1), 2'000'000},
      {"duplication", wire(0, 0, 0.2), 1'000'000},
      {"corruption", wire(0, 0, 0, 0.03), 500'000},
      {"everything", wire(0.03, 0.05, 0.05, 0.01), 300'000},
      {"everything without timestamps", wire(0.03, 0.05, 0.05, 0.01), 300'000, 8, false},
      {"tiny windows", wire(0), 100'000, 3, true, 2304},
      {"tiny windows and loss", wire(0.03), 50'000, 5, true, 2304},
      {"10 Mbit/s, short queue", narrow(1.25e6, 20), 2'000'000, 3},
      {"10 Mbit/s, long queue", narrow(1.25e6, 1000), 2'000'000, 3},
      {"narrow and lossy", narrow(1.25e6, 30, 0.01), 500'000},
  };
  for (const Case& k : cases) {
    SECTION(k.name) {
      for (std::uint64_t seed = 1; seed <= k.seeds; ++seed) transfer_both_ways(k, seed);
    }
  }
}

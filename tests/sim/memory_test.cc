// Packets are memory that all connections of a stack share (stack/tcp/memory.hh): who holds most pays first, and who
// holds nothing is served.
#include <catch2/catch.hpp>

#include "tests/sim/raw_peer.hh"

using namespace mtcp::sim;

namespace {

constexpr std::uint16_t kFirstPort = 1000;

// One machine with many connections to port 80 of the host, none of which it ever acknowledges anything on.
class Crowd {
 public:
  Crowd(Sim& sim, Host& host) : peer_(sim, host, kFirstPort, 80) {}

  void open(int n) {
    for (int i = 0; i < n; ++i) {
      const auto port = static_cast<std::uint16_t>(kFirstPort + next_.size());
      peer_.forget();
      peer_.say({.flags = kSyn, .seq = 1, .mss = 1460, .from_port = port});
      Seg answer;
      while (!peer_.silent() && !(answer.is(kSyn | kAck) && answer.to_port == port)) answer = peer_.hear();
      REQUIRE(answer.is(kSyn | kAck));
      next_.push_back(answer.seq + 1);
      peer_.send({.flags = kAck, .seq = 2, .ack = next_.back(), .from_port = port});
    }
    peer_.sim.run_for(milliseconds(2));
    peer_.forget();
  }
  // `data` at so many bytes behind what the host expects.
  void send(std::size_t connection, std::uint32_t offset, const std::string& data, bool fin = false) {
    peer_.send({.flags = static_cast<std::uint8_t>(fin ? kAck | kFin : kAck), .seq = 2 + offset, .ack = next_[connection], .data = data,
                .from_port = static_cast<std::uint16_t>(kFirstPort + connection)});
  }
  // Pieces with holes between them, a little more than is kept without a packet.
  void send_islands(std::size_t connection, std::uint32_t n, std::uint32_t size = 120) {
    for (std::uint32_t i = 0; i < n; ++i) send(connection, 1 + (size + 1) * i, std::string(size, 'x'));
    peer_.sim.run_for(milliseconds(1));
  }
  // The last ACK on this connection.
  std::uint32_t acknowledged(std::size_t connection) {
    std::uint32_t ack = 0;
    while (!peer_.silent()) {
      const Seg s = peer_.hear();
      if (s.to_port == kFirstPort + connection) ack = s.ack - 2;
    }
    return ack;
  }
  [[nodiscard]] std::size_t size() const { return next_.size(); }
  void forget() { peer_.forget(); }

 private:
  RawPeer peer_;
  std::vector<std::uint32_t> next_;  // the host's sequence number after its SYN
};

// Whether one more connection gets its bytes both ways while all others stand still.
void check_that_another_is_served(Sim& sim, Host& client, Host& server, std::uint64_t bytes = 100'000) {
  server.on_accept = [](Socket& s) { s.echo = true; };
  Socket& another = client.connect(server, 80);
  another.send(bytes);
  CHECK(sim.run_until([&] { return another.received == bytes; }, seconds(10)));
  CHECK(another.wrong == 0);
}

// More connections than a small pool has packets.
std::vector<Socket*> connect_many(Sim& sim, Host& client, Host& server) {
  constexpr std::size_t kConnections = 900;
  std::vector<Socket*> sockets;
  for (std::size_t i = 0; i < kConnections; ++i) sockets.push_back(&client.connect(server, 80));
  REQUIRE(sim.run_until([&] { return server.accepted.size() == kConnections; }, seconds(10)));
  return sockets;
}

void check_that_all_have(Sim& sim, const std::vector<Socket*>& sockets, std::uint64_t bytes) {
  CHECK(sim.run_until([&] { return std::ranges::all_of(sockets, [&](const Socket* s) { return s->received == bytes; }); }, seconds(10)));
}

}  // namespace

TEST_CASE("Data out of order of all connections goes before anybody's data in order is refused") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 2048);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  Crowd crowd(sim, server);
  crowd.open(61);
  // The last one has lost a single segment; the others hold all that they can.
  crowd.send(60, 5, "after a hole");
  for (std::size_t i = 0; i < 60; ++i) crowd.send_islands(i, 60);
  CHECK(server.count(Counter::out_of_order_pruned) > 0);
  check_that_another_is_served(sim, client, server, 1'000'000);
  CHECK(server.count(Counter::packets_low) == 0);
  CHECK(server.count(Counter::no_packets) == 0);
  CHECK(server.count(Counter::receive_buffer_full) == 0);
  CHECK(server.count(Counter::connections_sacrificed) == 0);
  CHECK(server.worker->connections() == 62);
  CHECK(server.worker->memory().used <= server.worker->memory().high);
  // Who held least has lost nothing.
  crowd.forget();
  crowd.send(60, 0, "12345");
  sim.run_for(milliseconds(5));
  CHECK(crowd.acknowledged(60) == 17);
}

TEST_CASE("Data out of order of connections that have fallen silent goes when others send in order") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 2048);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  constexpr std::size_t kSilent = 60, kOthers = 30, kEach = 20 * 1400;
  Crowd crowd(sim, server);
  crowd.open(kSilent + kOthers);
  for (std::size_t i = 0; i < kSilent; ++i) crowd.send_islands(i, 60);
  const std::uint64_t held = server.worker->memory().out_of_order;
  REQUIRE(server.worker->memory().level != std::string("low"));
  for (std::uint32_t offset = 0; offset < kEach; offset += 1400) {
    for (std::size_t i = kSilent; i < crowd.size(); ++i) crowd.send(i, offset, std::string(1400, 'x'));
    sim.run_for(milliseconds(1));
  }
  std::size_t there = 0;
  for (const Socket* s : server.accepted) there += server.worker->readable_bytes(*s->connection);
  CHECK(there == kOthers * kEach);
  CHECK(server.worker->memory().out_of_order < held);
  CHECK(server.count(Counter::packets_low) == 0);
  CHECK(server.count(Counter::no_packets) == 0);
  CHECK(server.count(Counter::connections_sacrificed) == 0);
}

TEST_CASE("Connections that are closed with data on the way are reset for the others' sake, the largest first") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 512);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  std::uint64_t size = 1000;
  server.on_accept = [&](Socket& s) {
    s.send(size);
    s.close_when_sent = true;
  };
  Crowd crowd(sim, server);
  crowd.open(10);
  CHECK(server.worker->memory().orphans == 10);
  size = 2900;
  crowd.open(300);
  CHECK(server.count(Counter::orphans_killed) > 0);
  CHECK(server.worker->memory().orphans >= 10);
  check_that_another_is_served(sim, client, server);
  CHECK(server.count(Counter::connections_sacrificed) == 0);
  std::size_t small = 0;
  server.worker->for_each(
      [](void* n, const ConnectionInfo& i) { *static_cast<std::size_t*>(n) += i.tx_queued == 1000 ? 1 : 0; }, &small);
  CHECK(small == 10);
}

TEST_CASE("A connection that the application has closed holds nothing that came out of order") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  server.listen(80);
  Crowd crowd(sim, server);
  crowd.open(1);
  crowd.send_islands(0, 20);
  CHECK(server.worker->memory().out_of_order > 0);
  server.accepted.front()->close();
  CHECK(server.worker->memory().out_of_order == 0);
  sim.run_for(milliseconds(1));
  CHECK(server.worker->memory().used == 0);
}

TEST_CASE("Where every packet is held by a living connection, those that hold most make way for who holds nothing") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 512);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.send(400'000); };
  Crowd crowd(sim, server);
  crowd.open(600);
  CHECK(server.count(Counter::connections_sacrificed) > 0);
  check_that_another_is_served(sim, client, server, 20'000);
  CHECK(server.worker->connections() > 200);
}

TEST_CASE("Where every packet holds what nobody reads, those that make way give it back, and their applications hear of it") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 512);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  Crowd crowd(sim, server);
  crowd.open(600);
  for (Socket* s : server.accepted) s->connection->user = nullptr;  // an application that hears of nothing, and closes nothing
  for (std::size_t i = 0; i < 600; ++i) {
    crowd.send(i, 0, std::string(1400, 'x'), i % 2 != 0);
    if (i % 16 == 15) sim.run_for(milliseconds(1));
  }
  sim.run_for(milliseconds(20));
  const std::uint64_t gone = server.count(Counter::connections_sacrificed);
  CHECK(gone > 0);
  CHECK(gone < 130);
  check_that_another_is_served(sim, client, server, 20'000);
  std::size_t told = 0;
  for (Socket* s : server.accepted) {
    if (s->connection == nullptr || s->connection->hot.state != State::closed) continue;
    std::array<std::byte, 8> bytes;
    const iovec v{bytes.data(), bytes.size()};
    const auto n = server.worker->receive(*s->connection, {&v, 1}, {}, server.clock());
    told += !n && n.error() == Errc::no_buffers ? 1 : 0;
  }
  CHECK(told == server.count(Counter::connections_sacrificed));
}

TEST_CASE("Many connections with a few bytes each share a small pool while the device takes nothing, and none is reset") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 65536);
  Host& client = sim.add_host({}, 512);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.echo = true; };
  const std::vector<Socket*> sockets = connect_many(sim, client, server);
  client.port.takes_nothing = true;
  for (Socket* s : sockets) s->send(64);
  sim.run_for(milliseconds(50));
  client.port.takes_nothing = false;
  check_that_all_have(sim, sockets, 64);
  CHECK(client.count(Counter::connections_sacrificed) == 0);
  CHECK(client.count(Counter::no_packets) == 0);
  CHECK(client.count(Counter::resets_sent) == 0);
}

TEST_CASE("Answers of connections that are closed already wait for the device, however long, in a small pool") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 512);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  const std::vector<Socket*> sockets = connect_many(sim, client, server);
  server.port.takes_nothing = true;
  for (Socket* s : server.accepted) {
    s->close_when_sent = true;
    s->send(64);
  }
  sim.run_for(milliseconds(50));
  server.port.takes_nothing = false;
  check_that_all_have(sim, sockets, 64);
  CHECK(server.count(Counter::orphans_killed) == 0);
  CHECK(server.count(Counter::no_packets) == 0);
}

TEST_CASE("Single bytes out of order hold no packets") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 1024);
  server.listen(80);
  Crowd crowd(sim, server);
  crowd.open(40);
  for (std::size_t i = 0; i < 40; ++i) crowd.send_islands(i, 40, 1);
  CHECK(server.count(Counter::out_of_order_pruned) == 0);
  CHECK(server.worker->memory().used == 0);
}

TEST_CASE("rfc2018 8: what has been given up is not reported any more") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host([](Options& o) { o.tcp.mem = {10'000, 20'000, 40'000}; });
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  RawPeer peer(sim, server, 900, 80);
  peer.say({.flags = kSyn, .seq = 1, .mss = 1460, .sack_permitted = true});
  const Seg a = peer.hear();
  REQUIRE(a.is(kSyn | kAck));
  peer.say({.flags = kAck, .seq = 2, .ack = a.seq + 1});
  peer.forget();
  peer.say({.flags = kAck, .seq = 12, .ack = a.seq + 1, .data = "0123456789"});
  CHECK(peer.hear().sack == std::vector<std::pair<std::uint32_t, std::uint32_t>>{{12, 22}});
  Crowd crowd(sim, server);
  crowd.open(40);
  for (std::size_t i = 0; i < 40; ++i) crowd.send(i, 0, std::string(1400, 'x'));
  sim.run_for(milliseconds(5));
  REQUIRE(server.worker->memory().level == std::string("high"));
  // It covers those, and there is no room for it either.
  peer.forget();
  peer.say({.flags = kAck, .seq = 7, .ack = a.seq + 1, .data = std::string(20, 'x')});
  CHECK(peer.hear().sack.empty());
  peer.say({.flags = kAck, .seq = 2, .ack = a.seq + 1, .data = std::string(25, 'x')});
  const Seg all = peer.hear();
  CHECK(all.ack == 27);
  CHECK(all.sack.empty());
}

TEST_CASE("When the attackers are gone there is no limit any more") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host({}, 1024);
  server.listen(80);
  Crowd crowd(sim, server);
  crowd.open(40);
  for (std::size_t i = 0; i < 40; ++i) crowd.send_islands(i, 40);
  CHECK(server.worker->memory().share != UINT32_MAX);
  CHECK(server.worker->memory().times_pressed == 1);
  for (Socket* s : server.accepted) s->abort();
  sim.run_for(milliseconds(10));
  CHECK(server.worker->memory().level == std::string("low"));
  CHECK(server.worker->memory().share == UINT32_MAX);
  CHECK(server.worker->memory().used == 0);
}

TEST_CASE("Under pressure a few bytes that nobody reads do not hold a whole packet") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host([](Options& o) { o.tcp.mem = {100'000, 150'000, 4'000'000}; });
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  Crowd crowd(sim, server);
  crowd.open(300);
  for (std::size_t i = 0; i < crowd.size(); ++i) crowd.send(i, 0, "one byte");
  sim.run_for(milliseconds(5));
  CHECK(server.worker->memory().level == std::string("pressure"));
  CHECK(server.worker->memory().used < 160'000);
  std::size_t there = 0;
  for (const Socket* s : server.accepted) there += server.worker->readable_bytes(*s->connection);
  CHECK(there == 300 * 8);
  for (Socket* s : server.accepted) s->abort();
  sim.run_for(milliseconds(5));
  CHECK(server.worker->memory().used == 0);
  CHECK(server.leaked_packets() == 0);
}

TEST_CASE("mem: the levels are as they are set, in bytes, and no higher than the packets allow") {
  Sim sim;
  INFO(sim.label());
  Host& set = sim.add_host([](Options& o) { o.tcp.mem = {100'000, 200'000, 300'000}; });
  CHECK(set.worker->memory().low <= 100'000);
  CHECK(set.worker->memory().pressure <= 200'000);
  CHECK(set.worker->memory().high <= 300'000);
  CHECK(set.worker->memory().high > 295'000);
  Host& too_much = sim.add_host([](Options& o) { o.tcp.mem = {1, 1U << 30, 1U << 30}; });
  Host& automatic = sim.add_host();
  CHECK(too_much.worker->memory().high == automatic.worker->memory().high);
  CHECK(automatic.worker->memory().high < automatic.pool.capacity() * automatic.pool.buffer_size());
  CHECK(automatic.worker->memory().low < automatic.worker->memory().pressure);
}

TEST_CASE("mem: with a budget of one packet connections that are closed go as well") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host([](Options& o) { o.tcp.mem = {1, 1, 1}; });
  server.listen(80);
  server.on_accept = [](Socket& s) {
    s.send(1000);
    s.close_when_sent = true;
  };
  Crowd crowd(sim, server);
  crowd.open(20);
  CHECK(server.worker->memory().high == server.pool.buffer_size());
  CHECK(server.count(Counter::orphans_killed) > 0);
  CHECK(server.leaked_packets() == 0);
}

TEST_CASE("mem: a budget below the pool is kept") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host([](Options& o) { o.tcp.mem = {400'000, 600'000, 800'000}; }, 65536);
  Host& client = sim.add_host({}, 65536);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.reading = false; };
  for (int i = 0; i < 50; ++i) client.connect(server, 80).send(200'000);
  std::uint64_t most = 0;
  sim.actors.push_back([&] { most = std::max(most, server.worker->memory().used); });
  sim.run_for(seconds(10));
  sim.actors.clear();
  CHECK(server.accepted.size() == 50);
  CHECK(most > 600'000);
  CHECK(most < 900'000);
  check_that_another_is_served(sim, client, server);
}

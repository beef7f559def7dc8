// What one stack asks of others on the same device, and tells them; in place of them a test's functions.
#include <catch2/catch.hpp>
#include <cstring>

#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"
#include "tests/sim/fake_kernel_share.hh"
#include "tests/sim/fake_steering.hh"
#include "tests/sim/raw_peer.hh"

using namespace mtcp::sim;

namespace {

struct World {
  FakeSteering others;
  Sim sim{11};
  Host& host = sim.add_host();
  RawPeer peer{sim, host, 4000, 80};
  int offered = 0;
  bool taken = true;

  World() {
    host.share_with(others);
    others.take_unknown = [this](Packet* p) {
      ++offered;
      check_whole(*p);
      if (taken) p->pool->free(&p, 1);
      return taken;
    };
  }
  // The frame as it came: from payload_offset to the end of the data.
  void check_whole(Packet& p) const {
    const std::byte* frame = p.buf + p.payload_offset;
    const auto size = static_cast<std::size_t>(p.end() - frame);
    Ipv4Header ip;
    REQUIRE(size >= kEthernetHeader + kIpv4Header + 20);
    CHECK(parse_ipv4({frame + kEthernetHeader, size - kEthernetHeader}, true, ip) == ParseError::none);
    CHECK(ip.total_length == size - kEthernetHeader);
    Segment s;
    HeapPool pool(1);
    Packet* copy = nullptr;
    REQUIRE(pool.alloc(&copy, 1) == 1);
    copy->len = static_cast<std::uint32_t>(size - kEthernetHeader - kIpv4Header);
    std::memcpy(copy->data, frame + kEthernetHeader + kIpv4Header, copy->len);
    CHECK(parse_tcp(copy, IpAddress::v4(ip.source), IpAddress::v4(ip.destination), true, s) == ParseError::none);
    pool.free(&copy, 1);
  }
};

constexpr std::uint8_t kSegments[] = {kSyn, kAck, kAck | kPsh, kFin | kAck, kRst, kRst | kAck, kSyn | kAck};

}  // namespace

TEST_CASE("a segment of a flow that is in no table is offered to the other stacks before it is refused", "[sharing]") {
  World w;
  const bool listening = GENERATE(false, true);
  if (listening) w.host.listen(80);
  for (const std::uint8_t flags : kSegments) {
    if (listening && flags == kSyn) continue;  // that one is for us
    CAPTURE(int{flags});
    for (const bool taken : {true, false}) {
      w.taken = taken;
      w.offered = 0;
      w.peer.forget();
      w.peer.say({.flags = flags, .seq = 5000, .ack = 7000, .data = (flags & kPsh) != 0 ? "data" : ""});
      CHECK(w.offered == 1);
      if (taken || (flags & kRst) != 0) {
        CHECK(w.peer.silent());
      } else {
        CHECK((w.peer.hear().flags & kRst) != 0);
      }
    }
  }
}

TEST_CASE("a listener takes a SYN itself; what fits only another stack's handshake is offered", "[sharing]") {
  World w;
  w.host.listen(80);
  w.peer.say({.flags = kSyn, .seq = 1000, .mss = 1460});
  const Seg answer = w.peer.hear();
  REQUIRE(answer.is(kSyn | kAck));
  CHECK(w.offered == 0);
  // The peer took another stack's answer: data far ahead, its reset, its FIN.
  w.peer.say({.flags = kAck, .seq = 1001, .ack = answer.seq + 500});
  w.peer.say({.flags = kAck, .seq = 900'000, .ack = answer.seq + 500, .data = "data"});
  w.peer.say({.flags = kRst, .seq = 900'004});
  CHECK(w.offered == 3);
  CHECK(w.peer.silent());
  w.taken = false;
  w.peer.say({.flags = kAck, .seq = 1001, .ack = answer.seq + 500});
  CHECK(w.peer.hear().is(kRst));
  // And ours is still there.
  w.peer.say({.flags = kAck, .seq = 1001, .ack = answer.seq + 1});
  CHECK(w.host.accepted.size() == 1);
  CHECK(w.offered == 4);
}

TEST_CASE("an ACK of something else than our SYN is offered before it is answered by a reset", "[sharing]") {
  World w;
  REQUIRE(w.host.try_connect({w.peer.address, 80}, {}, 5555) != nullptr);
  w.sim.run_for(milliseconds(2));
  REQUIRE(w.peer.hear().is(kSyn));
  const Seg odd{.flags = kAck, .seq = 1, .ack = 2, .from_port = 80, .to_port = 5555};
  w.peer.say(odd);
  CHECK(w.offered == 1);
  CHECK(w.peer.silent());
  w.taken = false;
  w.peer.say(odd);
  CHECK(w.peer.hear().is(kRst));
}

TEST_CASE("segments on the loopback wire are offered to nobody", "[sharing]") {
  World w;
  Socket& s = w.host.connect(w.host, 81);
  w.sim.run_for(milliseconds(2));
  CHECK(s.error == Errc::connection_refused);
  CHECK(w.offered == 0);
  CHECK(w.others.flows.empty());
}

TEST_CASE("the flows in hand are noted while they are in the table", "[sharing]") {
  FakeSteering server_others, client_others;
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.share_with(server_others);
  client.share_with(client_others);
  server.listen(80);
  const auto& noted = server_others.flows;
  Socket& a = client.connect(server, 80);
  Socket& b = client.connect(server, 80);
  REQUIRE(sim.run_until([&] { return server.accepted.size() == 2; }));
  CHECK(noted.size() == 2);
  CHECK(client_others.flows.size() == 2);
  CHECK(noted.at(server.accepted[0]->connection->index) == server.accepted[0]->key);
  a.close();
  server.accepted[0]->close();
  b.abort();
  sim.run_for(milliseconds(200));
  CHECK(client.worker->time_waits() == 1);
  CHECK(noted.size() == 0);
  CHECK(client_others.flows.empty());
}

TEST_CASE("the device is told when there are listeners and when there are none", "[sharing]") {
  FakeSteering told;
  Sim sim;
  Host& host = sim.add_host([](Options& o) { o.loopback = true; });
  host.share_with(told);
  CHECK_FALSE(told.serving);
  REQUIRE(host.worker->listen({IpAddress::v4(127, 0, 0, 1), 80}, {}));
  CHECK_FALSE(told.serving);  // no peer comes there by the device
  Listener& a = host.listen(81);
  Listener& b = host.listen(82);
  CHECK(told.serving);
  host.close(a);
  CHECK(told.serving);
  host.leave(b);
  CHECK_FALSE(told.serving);
  CHECK(told.calls == 2);
}

TEST_CASE("peers of a dead process are told by another stack of its address", "[sharing]") {
  FakeSteering server_others, client_others;
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.share_with(server_others);
  client.share_with(client_others);
  server.listen(80);
  server.on_accept = [](Socket& s) { s.send(100'000); };
  std::vector<Socket*> sockets;
  for (int i = 0; i < 200; ++i) {
    sockets.push_back(&client.connect(server, 80));
    sim.run_for(microseconds(100));
  }
  REQUIRE(sim.run_until([&] {
    return std::ranges::all_of(sockets, [](Socket* s) { return s->received == 100'000; });
  }));
  // Its successor: the same address, none of its memory. Some of the peers are in the middle of sending.
  for (std::size_t i = 0; i < sockets.size(); i += 3) sockets[i]->to_send = 5000;
  std::deque<FlowKey> flows;
  for (const auto& [index, key] : server_others.flows) flows.push_back(key);
  CHECK(flows.size() == 200);
  for (auto& s : server.sockets) s->connection = nullptr;
  server.listeners.clear();
  Secrets secrets{.key = {1, 2, 3, 4}};
  server.worker = std::make_unique<Worker>(server.options, Attachment(&server.port, &server_others), server.pool, server.stats, secrets, sim.now);
  server_others.orphans = flows;
  // Most of the first round is lost before the neighbour's address is known, then some of the resets.
  sim.wire.drop(is_rst, 10, 30);
  sim.run_for(seconds(4));
  CHECK(server.count(Counter::orphans_told) == 600);
  CHECK(server_others.orphans_told == 200);
  std::size_t reset = 0;
  for (Socket* s : sockets) reset += s->error == Errc::connection_reset ? 1U : 0U;
  CHECK(reset == 200);
  CHECK(client.worker->connections() == 0);
}

TEST_CASE("on an interface that is the kernel's as well a SYN for no listener is the kernel's to refuse, what belongs to no connection is not", "[sharing]") {
  FakeKernelShare kernel;
  Sim sim;
  Host& server = sim.add_host();
  server.share_with(kernel);
  RawPeer peer(sim, server, 4000, 80);
  peer.say({.flags = kSyn, .seq = 10});
  CHECK(peer.silent());
  CHECK(server.count(Counter::left_to_another) == 1);
  peer.say({.flags = kAck, .seq = 10, .ack = 999, .data = "x"});
  CHECK(peer.hear().is(kRst));
}

TEST_CASE("200,000 connections in a row to one address do not run out of the ports that hash to their own stack", "[sharing]") {
  FakeSteering server_others, client_others;
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.share_with(server_others);
  client.share_with(client_others);
  server.listen(80, {.backlog = 1000});
  server.on_accept = [](Socket& s) { s.close_on_eof = true; };
  const std::uint64_t stacks = GENERATE(2, 4, 64);
  std::uint64_t asked = 0, away = 0;
  const auto home = [stacks](const FlowKey& key) {
    return (key.local_port * 0x9e3779b97f4a7c15U >> 40) % stacks == 1;
  };
  client_others.home = [&](const FlowKey& key) { return ++asked, home(key); };
  CAPTURE(stacks);
  const std::uint64_t total = stacks == 2 ? 20'000 : 200'000;
  for (std::uint64_t opened = 0; opened < total;) {
    // A round of them: opened, closed by us, then forgotten by the test.
    for (int i = 0; i < 50; ++i, ++opened) {
      Socket* s = client.try_connect({server.address, 80});
      REQUIRE(s != nullptr);
      away += home(s->key) ? 0U : 1U;
      s->shutdown_when_sent = s->close_on_eof = true;
    }
    REQUIRE(sim.run_until([&] { return client.worker->connections() + server.worker->connections() == 0; }));
    for (const auto& s : client.sockets) REQUIRE(s->error == Errc::ok);
    // A port is used again after 2 ms, and one stack in 64 has 441 of them.
    if (stacks == 64) sim.run_for(milliseconds(1));
    for (Host* h : {&client, &server}) {
      h->sockets.clear();
      h->accepted.clear();
    }
  }
  CHECK(away == 0);
  CHECK(client.count(Counter::port_exhausted) == 0);
  CHECK(client.count(Counter::retransmitted_segments) == 0);
  // Few fruitless questions for each, also when all ports that hash to it have been used.
  CHECK(asked < total * 200);
}

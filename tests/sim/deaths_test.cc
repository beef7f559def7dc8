// Processes that are killed: what the others do for the peers, and what must not be lost with the dead.
#include "stack/wire/checksum.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;
using World = SharedWorld;

namespace {

// "Fragmentation needed" about a segment of the host's, from a router whose frames come as the client's.
void send_too_big(World& w, const FlowKey& ours, Seq seq, std::uint16_t mtu) {
  std::array<std::byte, 8 + kIpv4Header + 8> icmp{};
  icmp[0] = std::byte{3};
  icmp[1] = std::byte{4};
  store_be(icmp.data() + 6, mtu);
  Ipv4Header quoted;
  quoted.source = ours.local.as_v4();
  quoted.destination = ours.remote.as_v4();
  quoted.total_length = 1500;
  quoted.protocol = kProtocolTcp;
  write_ipv4(icmp.data() + 8, quoted);
  store_be(icmp.data() + 28, ours.local_port);
  store_be(icmp.data() + 30, ours.remote_port);
  store_be(icmp.data() + 32, seq.value());
  store_checksum(icmp.data() + 2, partial_sum(icmp.data(), icmp.size()));
  Wire::Frame frame(kEthernetHeader + kIpv4Header + icmp.size());
  write_ethernet(frame.data(), {w.device.mac(), {{2, 0, 0, 0, 0, 0}}, kEtherIpv4});
  Ipv4Header ip;
  ip.source = w.client.address.as_v4();
  ip.destination = ours.local.as_v4();
  ip.total_length = static_cast<std::uint16_t>(kIpv4Header + icmp.size());
  ip.protocol = kProtocolIcmp;
  write_ipv4(frame.data() + kEthernetHeader, ip);
  std::copy(icmp.begin(), icmp.end(), frame.begin() + kEthernetHeader + kIpv4Header);
  w.sim.wire.send(0, frame);
}

}  // namespace

TEST_CASE("who was to tell a dead stack's peers dies, too: the next one tells them", "[deaths]") {
  World w(3);
  INFO(w.sim.label());
  Host& first = w.process();
  Host& second = w.process();
  const bool exits = GENERATE(false, true);
  CAPTURE(exits);
  const auto doomed = w.connect_to(first, 100, 1000);
  w.sim.run_for(milliseconds(100));
  CHECK(first.accepted.size() == 100);
  bool silent = true;  // nothing that the stacks say arrives
  w.sim.wire.drop_if = [&](const FrameInfo& f) { return silent && f.from != 0; };
  first.kill();
  w.sim.run_for(milliseconds(1500));
  CHECK(second.count(Counter::orphans_told) == 200);  // twice
  exits ? second.exit() : second.kill();
  silent = false;
  Host& third = w.process();
  w.sim.run_for(seconds(4));
  for (Socket* s : doomed) CHECK(s->error == Errc::connection_reset);
  // Three times, and then nobody has to any more.
  CHECK(third.count(Counter::orphans_told) == 300);
  for (std::uint32_t i = 0; i < 3; ++i) CHECK(w.device.control().slot(i).untold_end == 0);
}

TEST_CASE("all stacks die at once: the next one tells all their peers", "[deaths]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process();
  std::vector<Socket*> sockets;
  for (int i = 0; i < 200; ++i) {
    sockets.push_back(&w.connect(1000));
    w.sim.run_for(microseconds(20));  // few packets may wait for ARP
  }
  w.sim.run_for(milliseconds(100));
  a.kill();
  b.kill();
  w.sim.run_for(seconds(1));
  Host& next = w.process();
  w.sim.run_for(seconds(1));
  for (Socket* s : sockets) CHECK(s->error == Errc::connection_reset);
  CHECK(next.worker->connections() == 0);
}

TEST_CASE("SYNs that come in while nobody has noticed a death are answered, not only when they are sent again", "[deaths]") {
  World w(4);
  INFO(w.sim.label());
  std::vector<Host*> hosts;
  for (int i = 0; i < 4; ++i) hosts.push_back(&w.process());
  for (int round = 0; round < 3; ++round) {
    hosts[static_cast<std::size_t>(round)]->kill();
    const Time killed = w.sim.now;
    std::vector<Socket*> sockets;
    for (int i = 0; i < 150; ++i) {
      sockets.push_back(&w.connect(500));
      w.sim.run_for(microseconds(100));
    }
    w.sim.run_for(milliseconds(100) - (w.sim.now - killed));
    for (Socket* s : sockets) CHECK(World::good(*s, 500));
  }
  CHECK(w.client.count(Counter::rto_fired) == 0);
}

TEST_CASE("a connection that was on its way to a stack when that was killed is another's", "[deaths]") {
  World w;
  INFO(w.sim.label());
  Host& old = w.process();
  Host& doomed = w.process();
  old.accepting = false;
  const auto sockets = w.connect_to(old, 5, 3000);
  w.sim.run_for(milliseconds(50));
  REQUIRE(old.worker->connections() == 5);
  old.leave(*old.listeners.front());
  w.sim.step(w.sim.now + microseconds(1));  // it asks for them
  doomed.stalled_until = w.sim.now + seconds(1);
  w.sim.run_for(microseconds(10));
  REQUIRE(old.worker->connections() == 0);
  doomed.kill();
  Host& next = w.process();
  w.sim.run_for(milliseconds(100));
  for (Socket* s : sockets) CHECK(World::good(*s, 3000));
  CHECK(next.accepted.size() == 5);
}

TEST_CASE("rfc1191: a path's MTU reaches the stack that has the connection, whoever owns the flow now", "[deaths]") {
  World w(2);
  INFO(w.sim.label());
  Host& old = w.process();
  std::vector<Socket*> sockets;
  for (int i = 0; i < 20; ++i) sockets.push_back(&w.connect(10));
  w.sim.run_for(milliseconds(100));
  REQUIRE(old.accepted.size() == 20);
  Host& a = w.process();
  Host& b = w.process();
  old.leave(*old.listeners.front());
  w.sim.run_for(milliseconds(50));
  w.sim.wire.drop_if = [](const FrameInfo& f) { return f.from == 0 && f.tcp; };
  for (Socket* s : old.accepted) {
    s->echo = false;
    s->send(3000);
    send_too_big(w, s->key, s->connection->hot.snd_una, 1200);
  }
  w.sim.run_for(milliseconds(20));
  CHECK(old.count(Counter::icmp_errors_received) == 20);
  for (Socket* s : old.accepted) CHECK(old.worker->info(*s->connection).path_mtu == 1200);
  CHECK(a.count(Counter::forwarded_unknown) + b.count(Counter::forwarded_unknown) > 0);  // what did not come on a queue of its own
  // About a flow that nobody has: it ends.
  FlowKey nobody = old.accepted.front()->key;
  nobody.remote_port = 1;
  send_too_big(w, nobody, Seq(1), 1200);
  w.sim.run_for(milliseconds(20));
  for (Host* h : {&old, &a, &b}) CHECK(h->steering->pool().available() > h->steering->pool().capacity() - 1000);
}

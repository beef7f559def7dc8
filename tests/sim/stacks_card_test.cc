// Stacks on a card that spreads by a table: it follows steering's, so that hardly a frame has to be passed on.
#include <algorithm>
#include <catch2/catch.hpp>

#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/tcp_header.hh"
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;

namespace {

class World {
 public:
  World(std::uint32_t queues, std::uint32_t slots) : device(sim.add_device(queues, slots)) {
    device.become_card();
    sim.run_for(milliseconds(1));
  }
  Host& join() {
    Host& h = add_echo_server(sim, device);
    living.push_back(&h);
    return h;
  }
  void join(std::size_t n) {
    while (n-- > 0) join();
  }
  void leave(Host& h) {
    std::erase(living, &h);
    h.leave(*h.listeners.front());
    sim.run_for(milliseconds(50));  // what it had half open
    h.exit();
  }
  void kill(Host& h) {
    std::erase(living, &h);
    h.kill();
  }
  [[nodiscard]] std::uint64_t passed_on() const {
    std::uint64_t sum = 0;
    for (Host* h : living) sum += h->steering->traffic().sent;
    return sum;
  }
  // Frames that were passed on per connection, once the card had time to be told.
  double cost() {
    settle();
    const std::uint64_t before = passed_on();
    std::vector<Socket*> sockets;
    for (int i = 0; i < kConnections; ++i) {
      sockets.push_back(client.try_connect({Sim::kShared, 80}));
      REQUIRE(sockets.back() != nullptr);
      sockets.back()->to_send = 500;
      sockets.back()->shutdown_when_sent = sockets.back()->close_on_eof = true;
      sim.run_for(microseconds(100));
    }
    sim.run_for(milliseconds(500));
    for (Socket* s : sockets) REQUIRE((s->error == Errc::ok && s->received == 500 && s->eof));
    return static_cast<double>(passed_on() - before) / kConnections;
  }
  // But for one ARP reply, which is for everybody.
  bool nothing_passed_on() { return cost() * kConnections <= static_cast<double>(living.size() - 1); }
  // Two rounds: the queues, then the table. And everybody's address, because everybody gets what tells one.
  void settle() {
    sim.run_for(milliseconds(100));
    std::vector<Socket*> warm{client.try_connect({Sim::kShared, 9})};
    for (Host* h : living) warm.push_back(h->try_connect({client.address, 9}));
    sim.run_for(milliseconds(200));
    for (Socket* s : warm) REQUIRE((s != nullptr && s->error == Errc::connection_refused));
    REQUIRE(std::ranges::none_of(living, [](Host* h) { return h->worker->connections() > 0; }));
  }

  // An ACK of a flow that there is not, from the client's address.
  void send_stray(std::uint16_t from_port) {
    Wire::Frame frame(kEthernetHeader + kIpv4Header + kTcpHeader);
    write_ethernet(frame.data(), {device.mac(), client.port.mac(), kEtherIpv4});
    write_ipv4(frame.data() + kEthernetHeader, {.source = client.address.as_v4(),
                                               .destination = Sim::kShared.as_v4(),
                                               .total_length = kIpv4Header + kTcpHeader,
                                               .protocol = kProtocolTcp});
    std::byte* tcp = frame.data() + kEthernetHeader + kIpv4Header;
    write_tcp_plain(tcp, from_port, 80, Seq(from_port), Seq(7U * from_port), kAck, 1000, false, 0, 0);
    store_checksum(tcp + kTcpChecksumOffset,
                   sum_of_pseudo_header(client.address, Sim::kShared, true, kProtocolTcp, kTcpHeader) + partial_sum(tcp, kTcpHeader));
    sim.wire.send(0, std::move(frame));  // the client is on the first port
  }
  [[nodiscard]] std::uint64_t count(Counter counter) const {
    std::uint64_t sum = 0;
    for (Host* h : living) sum += h->count(counter);
    return sum;
  }

  static constexpr int kConnections = 200;
  Sim sim;
  Host& client = sim.add_host();
  SimSharedDevice& device;
  std::vector<Host*> living;
};

}  // namespace

TEST_CASE("a card that follows the table: after joins, leaves, deaths and reloads nothing is passed on again", "[card]") {
  World w(4, 16);
  INFO(w.sim.label());
  w.join();
  CHECK(w.nothing_passed_on());
  w.join(3);
  CHECK(w.nothing_passed_on());
  w.leave(*w.living[0]);  // the one that told the card
  CHECK(w.nothing_passed_on());
  w.kill(*w.living[0]);  // and its successor
  CHECK(w.nothing_passed_on());
  w.kill(*w.living[1]);
  CHECK(w.nothing_passed_on());
  w.join(3);
  CHECK(w.nothing_passed_on());
  const auto old = w.living;
  w.join(4);
  for (Host* h : old) w.leave(*h);
  CHECK(w.nothing_passed_on());
  // A stack that serves nothing gets nothing.
  w.living[1]->leave(*w.living[1]->listeners.front());
  CHECK(w.nothing_passed_on());
}

TEST_CASE("a card that does not follow costs what it did, and is asked once", "[card]") {
  World w(4, 16);
  INFO(w.sim.label());
  w.join(4);
  w.settle();
  const std::uint64_t told = w.device.times_redirected();
  CHECK(told > 0);
  w.sim.run_for(seconds(2));
  CHECK(w.device.times_redirected() == told);  // nothing has changed
  w.device.become_card(false);
  w.join(1);
  CHECK(w.cost() > 0.5);
  CHECK(w.device.times_redirected() == told);
}

TEST_CASE("rfc9293 3.10.7.2: of a flood of ACKs that are nobody's each draws one reset from its home, and no other stack is asked", "[card]") {
  constexpr std::uint16_t kFirst = 20'000, kStrays = 4000;
  World w(4, 16);
  INFO(w.sim.label());
  w.join(4);
  w.settle();
  const bool follows = GENERATE(true, false);
  w.device.become_card(follows);
  const std::uint64_t resets = w.count(Counter::resets_sent), passed_on = w.passed_on();
  for (std::uint16_t port = kFirst; port < kFirst + kStrays; ++port) {
    w.send_stray(port);
    w.sim.run_for(microseconds(25));
  }
  w.sim.run_for(milliseconds(100));
  CHECK(w.count(Counter::resets_sent) - resets == kStrays);
  CHECK(w.count(Counter::forwarded_unknown) == 0);
  CHECK(w.client.count(Counter::segments_received) >= kStrays);
  if (follows)  // but for an ARP reply, which is for everybody
    CHECK(w.passed_on() - passed_on <= w.living.size() - 1);
  else  // once, by who got it
    CHECK(w.passed_on() - passed_on <= kStrays);
}

TEST_CASE("more stacks than queues: only what is for stacks without a queue is passed on, and all are served", "[card]") {
  World w(4, 64);
  INFO(w.sim.label());
  w.join(12);
  const double cost = w.cost();
  CHECK(cost > 0.5);
  CHECK(std::ranges::count_if(w.living, [](Host* h) { return !h->accepted.empty(); }) == 12);
}

TEST_CASE("64 stacks with a queue each, then half of them reloaded: nothing is passed on", "[card]") {
  World w(64, 64);
  INFO(w.sim.label());
  w.join(32);
  CHECK(w.nothing_passed_on());
  const auto old = w.living;
  w.join(32);
  for (Host* h : old) w.leave(*h);
  CHECK(w.living.size() == 32);
  CHECK(w.nothing_passed_on());
  w.join(32);
  CHECK(w.nothing_passed_on());
}

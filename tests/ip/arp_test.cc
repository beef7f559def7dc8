#include <random>

#include "tests/ip/bench.hh"

using namespace mtcp::stack;

namespace {

// The peer has been found, and what was sent on the way is forgotten.
void resolve(Bench& b) {
  b.send(kPeer);
  (void)b.input(arp_reply());
  REQUIRE(b.flush().size() == 2);  // the request and the segment
}

}  // namespace

TEST_CASE(
    "rfc826: the first packet to a neighbour draws a broadcast request, and leaves when the answer comes") {
  Bench b;
  b.send(kPeer);
  auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kBroadcastMac);
  const ArpPacket request = parsed_arp(sent[0]);
  CHECK(request.operation == kArpRequest);
  CHECK(request.sender == kUs);
  CHECK(request.sender_mac == kOurMac);
  CHECK(request.target == kPeer);

  CHECK(b.input(arp_reply()) == Network::Input::consumed);
  sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  CHECK(parsed_ethernet(sent[0]).source == kOurMac);
  CHECK(parsed_ethernet(sent[0]).type == kEtherIpv4);

  b.send(kPeer);
  CHECK(b.flush().size() == 1);  // no further request
}

TEST_CASE("Packets that wait for an answer leave in their order") {
  Bench b;
  for (int i = 0; i < 5; ++i) {
    Packet* p = b.segment_to_send();
    store_be(p->data + 4, std::uint32_t(i));
    b.send(kPeer, p);
  }
  (void)b.flush();
  (void)b.input(arp_reply());
  const auto sent = b.flush();
  REQUIRE(sent.size() == 5);
  for (std::uint32_t i = 0; i < 5; ++i) CHECK(load_be<std::uint32_t>(&sent[i][14 + 20 + 4]) == i);
}

TEST_CASE("A packet that its sender keeps waits as a copy") {
  Bench b;
  Packet* p = b.segment_to_send(100, kKeep);
  b.send(kPeer, p);
  (void)b.flush();
  p->flags = 0;
  std::memset(p->buf, 0xee, p->capacity);
  b.cache->free(p);
  (void)b.input(arp_reply());
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].back() == static_cast<std::byte>(99 * 7));
}

TEST_CASE("A neighbour that does not answer three requests a second apart has failed, and TCP is told") {
  Bench b;
  b.send(kPeer);
  b.send(kPeer);
  CHECK(b.flush().size() == 1);
  CHECK(b.network->run_timers(b.now) == b.now + seconds(1));
  for (int i = 0; i < 2; ++i) {
    b.pass(milliseconds(999));
    CHECK(b.flush().empty());
    b.pass(milliseconds(1));
    CHECK(b.flush().size() == 1);
  }
  IpAddress failed;
  CHECK_FALSE(b.network->next_unreachable(failed));
  b.pass(seconds(1));
  CHECK(b.flush().empty());
  CHECK(b.count(Counter::neighbour_failed) == 2);
  REQUIRE(b.network->next_unreachable(failed));
  CHECK(failed == IpAddress::v4(kPeer));
  CHECK_FALSE(b.network->next_unreachable(failed));
  CHECK(b.network->run_timers(b.now) == kNever);

  b.send(kPeer);  // and is asked again when it is wanted again
  CHECK(b.flush().size() == 1);
}

TEST_CASE("Of few packets no more than an eighth wait for neighbours, however many there are") {
  Bench b({.packets = 512});
  for (std::uint32_t i = 3; i < 243; ++i) b.send((kUs & ~0xffU) + i);
  (void)b.flush();
  CHECK(b.count(Counter::neighbour_queue_full) == 240 - 64);
}

TEST_CASE("No more packets wait for one neighbour than the limit; the oldest goes first") {
  Bench b;
  for (int i = 0; i < 250; ++i) {
    Packet* p = b.segment_to_send();
    store_be(p->data + 4, std::uint32_t(i));
    b.send(kPeer, p);
  }
  (void)b.flush();
  CHECK(b.count(Counter::neighbour_queue_full) == 149);
  (void)b.input(arp_reply());
  const auto sent = b.flush();
  REQUIRE(sent.size() == 101);
  CHECK(load_be<std::uint32_t>(&sent[0][14 + 20 + 4]) == 149);
}

TEST_CASE("However many neighbours are asked for, waiting packets and requests stay bounded") {
  BenchSetup setup;
  setup.options.interface.addresses = {{IpAddress::v4(kUs), 96 + 8}};
  Bench b(setup);
  for (std::uint32_t i = 0; i < 5000; ++i) {
    b.send(0x0a100000 + i);
    REQUIRE(b.pool.capacity() - b.pool.available() < 2600);
    if (i % 100 == 0) (void)b.flush();
  }
  CHECK(b.count(Counter::arp_requests_sent) <= 1000);
  CHECK(b.count(Counter::arp_rate_limited) == 4000);
}

TEST_CASE("A flood of unknown neighbours does not push out those that are known") {
  BenchSetup setup;
  setup.options.interface.addresses = {{IpAddress::v4(kUs), 96 + 8}};
  Bench b(setup);
  resolve(b);
  for (std::uint32_t i = 0; i < 20000; ++i) b.send(0x0a100000 + i);
  (void)b.flush();
  b.send(kPeer);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
}

TEST_CASE("rfc826: a request for our address is answered, and teaches us who asks") {
  Bench b;
  (void)b.input(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}, kBroadcastMac));
  auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  const ArpPacket reply = parsed_arp(sent[0]);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  CHECK(reply.operation == kArpReply);
  CHECK(reply.sender_mac == kOurMac);
  CHECK(reply.sender == kUs);
  CHECK(reply.target == kPeer);
  CHECK(reply.target_mac == kPeerMac);

  b.send(kPeer);  // at once, but what we have not asked for ourselves is confirmed directly
  sent = b.flush();
  REQUIRE(sent.size() == 2);
  CHECK(parsed_ethernet(sent[0]).type == kEtherArp);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  CHECK(parsed_ethernet(sent[1]).type == kEtherIpv4);
}

TEST_CASE("rfc826: requests for others and unasked replies make no entry") {
  Bench b;
  (void)b.input(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kPeer + 5}, kBroadcastMac));
  (void)b.input(arp_reply());
  (void)b.input(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kPeer}, kBroadcastMac));
  CHECK(b.flush().empty());
  b.send(kPeer);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kBroadcastMac);
}

TEST_CASE("A request from outside our networks is answered but not learnt") {
  Bench b;
  (void)b.input(arp_frame({kArpRequest, kPeerMac, kFar, {}, kUs}, kBroadcastMac));
  CHECK(b.flush().size() == 1);
  CHECK(b.count(Counter::arp_replies_sent) == 1);
}

TEST_CASE("rfc5227: a probe for our address is answered and teaches nothing") {
  Bench b;
  (void)b.input(arp_frame({kArpRequest, kOtherMac, 0, {}, kUs}, kBroadcastMac));
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_arp(sent[0]).operation == kArpReply);
}

TEST_CASE("rfc5227: our addresses are announced on demand, and again two seconds later") {
  BenchSetup setup;
  setup.options.interface.addresses.push_back({IpAddress::v4(0x0a0a0002), 96 + 16});
  Bench b(setup);
  b.network->announce(b.now);
  auto sent = b.flush();
  REQUIRE(sent.size() == 2);
  CHECK(parsed_arp(sent[1]).sender == 0x0a0a0002);
  CHECK(parsed_arp(sent[1]).target == 0x0a0a0002);
  CHECK(parsed_arp(sent[1]).operation == kArpRequest);
  CHECK(b.network->run_timers(b.now) == b.now + seconds(2));
  b.pass(seconds(2));
  CHECK(b.flush().size() == 2);
  b.pass(seconds(60));
  CHECK(b.flush().empty());
  CHECK(b.network->run_timers(b.now) == kNever);
}

TEST_CASE(
    "rfc5227: our address in use elsewhere is defended, at most once in ten seconds, and changes no entry") {
  Bench b;
  for (int i = 0; i < 50; ++i) (void)b.input(arp_frame({kArpReply, kOtherMac, kUs, {}, kUs}, kBroadcastMac));
  CHECK(b.flush().size() == 1);
  CHECK(b.count(Counter::address_conflict) == 50);
  b.now += seconds(10);
  (void)b.input(arp_frame({kArpReply, kOtherMac, kUs, {}, kUs}, kBroadcastMac));
  CHECK(b.flush().size() == 1);
}

TEST_CASE(
    "rfc1122: after half a minute a neighbour in use is confirmed by unicast, then by broadcast, in use "
    "meanwhile") {
  Bench b;
  resolve(b);
  b.pass(milliseconds(29999));
  b.send(kPeer);
  CHECK(b.flush().size() == 1);
  b.pass(milliseconds(1));
  CHECK(b.flush().empty());  // not used, not asked
  b.send(kPeer);
  auto sent = b.flush();
  REQUIRE(sent.size() == 2);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  std::vector<MacAddress> asked;
  for (int i = 0; i < 5; ++i) {
    b.pass(seconds(1));
    b.send(kPeer);
    sent = b.flush();
    REQUIRE(sent.size() == 2);
    asked.push_back(parsed_ethernet(sent[0]).destination);
    CHECK(parsed_ethernet(sent[1]).destination == kPeerMac);
  }
  CHECK(asked == std::vector<MacAddress>{kPeerMac, kPeerMac, kBroadcastMac, kBroadcastMac, kBroadcastMac});
  (void)b.input(arp_reply(kPeer, kOtherMac));  // it has a new card
  b.send(kPeer);
  sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kOtherMac);
  CHECK(b.network->run_timers(b.now + seconds(20)) == kNever);
}

TEST_CASE("An unsolicited reply cannot take over a neighbour just confirmed; later it can, to be confirmed") {
  Bench b;
  resolve(b);
  (void)b.input(arp_reply(kPeer, kOtherMac));
  b.send(kPeer);
  auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  b.now += seconds(1);
  (void)b.input(arp_reply(kPeer, kOtherMac));  // as after a fail-over
  b.send(kPeer);
  sent = b.flush();
  REQUIRE(sent.size() == 2);
  CHECK(parsed_ethernet(sent[0]).type == kEtherArp);
  CHECK(parsed_ethernet(sent[1]).destination == kOtherMac);
}

TEST_CASE("rfc1122 2.3.2.1: advice that a neighbour does not answer asks all at once; a new MAC address is told once") {
  Bench b;
  resolve(b);
  const auto path = b.network->path(IpAddress::v4(kPeer), IpAddress::any_v4());
  IpAddress moved;
  b.network->suspect(**path, IpAddress::v4(kPeer), b.now);
  CHECK(b.flush().empty());  // it has just answered
  b.now += seconds(1);
  b.network->suspect(**path, IpAddress::v4(kPeer), b.now);
  auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).type == kEtherArp);
  CHECK(parsed_ethernet(sent[0]).destination == kBroadcastMac);
  b.network->suspect(**path, IpAddress::v4(kPeer), b.now);
  CHECK(b.flush().empty());  // asked already
  b.pass(seconds(10));
  CHECK(b.flush().empty());
  b.send(kPeer);
  CHECK(b.flush().size() == 1);  // nobody has answered: it is where it was
  CHECK_FALSE(b.network->next_moved(moved));
  (void)b.input(arp_reply(kPeer, kOtherMac));
  b.send(kPeer);
  sent = b.flush();
  REQUIRE(sent.size() == 2);  // to be confirmed
  CHECK(parsed_ethernet(sent[1]).destination == kOtherMac);
  REQUIRE(b.network->next_moved(moved));
  CHECK(moved == IpAddress::v4(kPeer));
  CHECK_FALSE(b.network->next_moved(moved));
}

TEST_CASE("A storm of requests is answered up to the limit, and keeps no packet") {
  Bench b;
  const std::size_t before = b.pool.available();
  for (int i = 0; i < 20000; ++i)
    (void)b.input(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}, kBroadcastMac));
  CHECK(b.flush().size() == 1000);
  CHECK(b.count(Counter::arp_rate_limited) == 19000);
  CHECK(b.pool.available() + 256 >= before);
}

TEST_CASE("A storm of requests with invented senders does not push out the gateway or a neighbour in use") {
  BenchSetup setup;
  setup.options.interface.addresses = {{IpAddress::v4(kUs), 96 + 8}};
  Bench b(setup);
  resolve(b);
  b.send(kFar);
  (void)b.input(arp_reply(kGateway, kOtherMac));
  (void)b.flush();
  for (std::uint32_t i = 0; i < 900; ++i) {
    (void)b.input(arp_frame({kArpRequest, kPeerMac, 0x0a200000 + i, {}, kUs}, kBroadcastMac));
    if (i % 100 == 0) b.send(kPeer);
  }
  for (std::uint32_t i = 0; i < 20000; ++i) {
    (void)b.input(arp_frame({kArpRequest, kPeerMac, 0x0a300000 + i, {}, kUs}, kBroadcastMac));
    if (i % 100 == 0) b.send(kPeer);
  }
  (void)b.flush();
  b.send(kPeer);
  b.send(kFar);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 2);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  CHECK(parsed_ethernet(sent[1]).destination == kOtherMac);
}

TEST_CASE("Malformed ARP is dropped and counted, at every length and for every wrong field") {
  Bench b;
  const Bytes good = arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}, kBroadcastMac);
  for (std::size_t n = 0; n < good.size(); ++n)
    (void)b.input(Bytes(good.begin(), good.begin() + static_cast<long>(n)));
  CHECK(b.count(Counter::rx_short) == good.size());
  for (std::size_t at = 14; at < 22; ++at) {
    Bytes bad = good;
    bad[at] ^= std::byte{0x40};
    (void)b.input(bad);
  }
  CHECK(b.count(Counter::rx_bad_arp) == 8);
  (void)b.input(arp_frame({kArpRequest, {{1, 0, 0, 0, 0, 1}}, kPeer, {}, kUs}, kBroadcastMac));
  CHECK(b.count(Counter::rx_bad_arp) == 9);
  for (const std::uint32_t source : {0x7f000001U, 0xe0000001U, 0xffffffffU, 0x0a0900ffU})
    (void)b.input(arp_frame({kArpRequest, kPeerMac, source, {}, kUs}, kBroadcastMac));
  CHECK(b.count(Counter::rx_bad_source) == 4);
  CHECK(b.flush().empty());
}

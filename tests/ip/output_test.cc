#include "tests/ip/bench.hh"

using namespace mtcp::stack;
using Input = Network::Input;

namespace {

void know(Bench& b, std::uint32_t neighbour) {
  b.send(neighbour);
  (void)b.input(arp_reply(neighbour));
  (void)b.flush();
}

void check_segment(const Bytes& frame, std::size_t payload) {
  Ipv4Header ip;
  const auto datagram = std::span(frame).subspan(kEthernetHeader);
  REQUIRE(parse_ipv4(datagram, true, ip) == ParseError::none);
  CHECK(ip.source == kUs);
  CHECK(ip.destination == kPeer);
  CHECK(ip.total_length == datagram.size());
  CHECK(ip.ttl == 64);
  CHECK_FALSE(ip.fragment);
  CHECK((load_be<std::uint16_t>(&datagram[6]) & 0x4000) != 0);
  const auto segment = datagram.subspan(kIpv4Header);
  CHECK(segment.size() == kTcpHeader + payload);
  CHECK(sum_is_good(sum_of_pseudo_header(IpAddress::v4(kUs), IpAddress::v4(kPeer), true, 6, segment.size()) +
                    partial_sum(segment.data(), segment.size())));
}

}  // namespace

TEST_CASE(
    "A segment leaves with right IP header and checksums, whether or not its payload was summed before") {
  Bench b;
  know(b, kPeer);
  for (const std::size_t n : {0U, 1U, 2U, 63U, 64U, 1447U, 1460U}) {
    for (const bool summed : {false, true}) {
      Packet* p = b.segment_to_send(n);
      if (summed) {
        p->payload_sum = partial_sum(p->buf + p->payload_offset, n);
        p->flags |= kPayloadSum;
      }
      b.send(kPeer, p);
      const auto sent = b.flush();
      REQUIRE(sent.size() == 1);
      check_segment(sent[0], n);
    }
  }
}

TEST_CASE("A device that computes checksums is given the sum of the pseudo-header") {
  BenchSetup setup;
  setup.offload = true;
  Bench b(setup);
  know(b, kPeer);
  b.send(kPeer, b.segment_to_send(100));
  auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK((b.port.flags.back() & kTxL4Offload) != 0);
  std::byte* segment = &sent[0][kEthernetHeader + kIpv4Header];
  // What the device does: sum over the segment as it is, complement, put in place.
  store_checksum(segment + kTcpChecksumOffset, partial_sum(segment, kTcpHeader + 100));
  check_segment(sent[0], 100);
}

TEST_CASE("What is far away goes to the gateway's MAC with its own IP address") {
  Bench b;
  b.send(kFar);
  auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_arp(sent[0]).target == kGateway);
  (void)b.input(arp_reply(kGateway, kOtherMac));
  sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kOtherMac);
  CHECK(load_be<std::uint32_t>(&sent[0][kEthernetHeader + 16]) == kFar);
}

TEST_CASE("TOS and TTL are what the packet says, and 0 and 64 when it says nothing") {
  Bench b;
  know(b, kPeer);
  Packet* p = b.segment_to_send(10);
  p->tos = 0xb8;
  p->ttl = 7;
  b.send(kPeer, p);
  b.send(kPeer);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 2);
  Ipv4Header ip;
  REQUIRE(parse_ipv4(std::span(sent[0]).subspan(kEthernetHeader), true, ip) == ParseError::none);
  CHECK(ip.tos == 0xb8);
  CHECK(ip.ttl == 7);
  REQUIRE(parse_ipv4(std::span(sent[1]).subspan(kEthernetHeader), true, ip) == ParseError::none);
  CHECK(ip.tos == 0);
  CHECK(ip.ttl == 64);
}

TEST_CASE("A packet that its sender keeps is his again after it was sent, and can be sent once more") {
  Bench b;
  know(b, kPeer);
  Packet* p = b.segment_to_send(10, kKeep);
  for (int i = 0; i < 2; ++i) {
    p->data = p->buf + p->payload_offset - kTcpHeader;
    p->len = kTcpHeader + 10;
    b.send(kPeer, p);
    const auto sent = b.flush();
    REQUIRE(sent.size() == 1);
    check_segment(sent[0], 10);
  }
  p->flags = 0;
  b.cache->free(p);
}

TEST_CASE(
    "When the transmit queue is full packets are dropped and counted; kept ones stay with their sender") {
  BenchSetup setup;
  setup.tx_bound = 4;
  Bench b(setup);
  know(b, kPeer);
  for (int i = 0; i < 4; ++i) b.send(kPeer);
  b.send(kPeer);
  Packet* kept = b.segment_to_send(5, kKeep);
  b.send(kPeer, kept);
  CHECK(b.count(Counter::tx_queue_full) == 2);
  CHECK(kept->payload_len == 5);
  kept->flags = 0;
  b.cache->free(kept);
  CHECK(b.flush().size() == 4);
}

TEST_CASE("The loopback wire hands a segment to its receiver without a device, over IPv4 and IPv6") {
  BenchSetup setup;
  setup.device = false;
  Bench b(setup);
  IpAddress one;
  one.bytes[15] = 1;
  for (const IpAddress& address : {IpAddress::v4(kUs), IpAddress::v4(127, 0, 0, 1), one}) {
    const auto path = b.network->path(address, address.is_v4() ? IpAddress::any_v4() : IpAddress::any_v6());
    REQUIRE(path);
    REQUIRE((*path)->local);
    Packet* p = b.segment_to_send(50);
    b.network->output_tcp(p, (*path)->source, address, **path, TxPriority::data, b.now);
    Packet* q = b.network->next_loopback();
    REQUIRE(q == p);  // not copied
    REQUIRE(b.network->input_ip(q, b.segment, b.error, b.now, true) == Input::segment);
    CHECK(b.segment.key.local == address);
    CHECK(b.segment.key.local_port == 40000);
    CHECK(b.segment.len == 50);
    CHECK(b.segment.packet->data[49] == static_cast<std::byte>(49 * 7));
    b.cache->free(b.segment.packet);
    CHECK(b.network->next_loopback() == nullptr);
  }
  CHECK(b.count(Counter::loopback_packets) == 3);
}

TEST_CASE("A kept packet goes over the loopback wire as a copy") {
  Bench b;
  Packet* p = b.segment_to_send(50, kKeep);
  b.send(kUs, p);
  Packet* q = b.network->next_loopback();
  REQUIRE(q != nullptr);
  REQUIRE(q != p);
  std::memset(p->buf, 0, p->capacity);
  REQUIRE(b.network->input_ip(q, b.segment, b.error, b.now, true) == Input::segment);
  CHECK(b.segment.packet->data[49] == static_cast<std::byte>(49 * 7));
  b.cache->free(b.segment.packet);
  p->flags = 0;
  b.cache->free(p);
}

TEST_CASE("The loopback wire is bounded") {
  Bench b;
  for (int i = 0; i < 1500; ++i) b.send(kUs);
  CHECK(b.count(Counter::loopback_full) == 1500 - 1024);
  CHECK(b.count(Counter::loopback_packets) == 1024);
}

TEST_CASE("An echo request to ourselves is answered over the loopback wire") {
  Bench b;
  Packet* p = b.packet(ipv4(icmp(kIcmpEchoRequest, 0, Bytes(8)), kProtocolIcmp, kUs, kUs));
  REQUIRE(b.network->input_ip(p, b.segment, b.error, b.now, true) == Input::consumed);
  Packet* reply = b.network->next_loopback();
  REQUIRE(reply != nullptr);
  CHECK(b.network->input_ip(reply, b.segment, b.error, b.now, true) == Input::consumed);
  CHECK(b.count(Counter::icmp_echo_replies) == 1);
  CHECK(b.count(Counter::icmp_ignored) == 1);
}

TEST_CASE("Malformed packets on the loopback wire are dropped as well") {
  Bench b;
  Bytes six(60, std::byte{0});
  six[0] = std::byte{0x60};
  const auto feed = [&](const Bytes& bytes) {
    return b.network->input_ip(b.packet(bytes), b.segment, b.error, b.now, true);
  };
  CHECK(feed({}) == Input::consumed);
  for (std::size_t n = 1; n < 40; ++n)
    CHECK(feed(Bytes(six.begin(), six.begin() + static_cast<long>(n))) == Input::consumed);
  CHECK(b.count(Counter::rx_short) == 40);
  store_be(&six[4], std::uint16_t{21});
  CHECK(feed(six) == Input::consumed);
  CHECK(b.count(Counter::rx_short) == 41);
  store_be(&six[4], std::uint16_t{20});
  CHECK(feed(six) == Input::consumed);  // from :: to ::, which is not ours
  CHECK(b.count(Counter::rx_not_ours) == 1);
}

TEST_CASE("a device whose MTU changes: its paths follow, those in use included, but never beyond the configuration") {
  Bench b;
  const Path* path = *b.network->path(IpAddress::v4(kPeer), IpAddress::any_v4());
  const Path* local = *b.network->path(IpAddress::v4(kUs), IpAddress::any_v4());
  const std::uint32_t before = path->mtu, local_before = local->mtu;
  std::uint32_t mtu = 0;
  CHECK_FALSE(b.network->follow_mtu(mtu));
  b.port.mtu_now = 1000;
  REQUIRE(b.network->follow_mtu(mtu));
  CHECK(mtu == 1000);
  CHECK(path->mtu == 1000);
  CHECK(local->mtu == local_before);
  CHECK_FALSE(b.network->follow_mtu(mtu));
  b.port.mtu_now = 9000;
  REQUIRE(b.network->follow_mtu(mtu));
  CHECK(mtu == before);
  CHECK(path->mtu == before);
}

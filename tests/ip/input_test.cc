#include <random>

#include "tests/ip/bench.hh"

using namespace mtcp::stack;
using Input = Network::Input;

TEST_CASE("A segment for us is handed up with its payload, without padding") {
  Bench b;
  Bytes frame = tcp_frame(3);
  frame.resize(60);
  REQUIRE(b.input(frame) == Input::segment);
  CHECK(b.segment.key.local == IpAddress::v4(kUs));
  CHECK(b.segment.key.remote == IpAddress::v4(kPeer));
  CHECK(b.segment.key.local_port == 80);
  CHECK(b.payload == Bytes(3, std::byte{0x42}));
  CHECK(b.count(Counter::rx_packets) == 1);
  CHECK(b.count(Counter::rx_bytes) == 60);
}

TEST_CASE("A frame cut short at any length is dropped and counted once") {
  Bench b;
  const Bytes whole = tcp_frame(20);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    INFO("length " << n);
    REQUIRE(b.input(Bytes(whole.begin(), whole.begin() + static_cast<long>(n))) == Input::consumed);
    REQUIRE(b.count(Counter::rx_short) == n + 1);
  }
}

TEST_CASE("A datagram that says it is shorter than its headers is dropped") {
  Bench b;
  for (std::uint16_t n = 0; n < 40; ++n) {
    Bytes frame = tcp_frame();
    store_be(&frame[16], n);
    fix_ipv4_checksum(frame);
    REQUIRE(b.input(frame) == Input::consumed);
  }
  CHECK(b.count(Counter::rx_bad_ip_header) == 20);
  CHECK(b.count(Counter::rx_short) == 20);
}

TEST_CASE("Frames for other hosts and for groups are dropped; of broadcasts only ARP is taken") {
  Bench b;
  const Bytes body = ipv4(tcp());
  CHECK(b.input(ethernet(kEtherIpv4, body, kOtherMac)) == Input::consumed);
  CHECK(b.input(ethernet(kEtherIpv4, body, kBroadcastMac)) == Input::consumed);
  CHECK(b.input(ethernet(kEtherIpv4, body, {{1, 0, 0x5e, 0, 0, 1}})) == Input::consumed);
  CHECK(b.input(ethernet(kEtherArp, Bytes(28), {{1, 0, 0x5e, 0, 0, 1}})) == Input::consumed);
  CHECK(b.count(Counter::rx_not_ours) == 4);
}

TEST_CASE("Protocols that we do not speak are dropped: VLAN tags, IPX, UDP") {
  Bench b;
  CHECK(b.input(ethernet(0x8100, ipv4(tcp()))) == Input::consumed);
  CHECK(b.input(ethernet(0x8137, Bytes(60))) == Input::consumed);
  CHECK(b.input(ethernet(kEtherIpv4, ipv4(tcp(), 17))) == Input::consumed);
  CHECK(b.count(Counter::rx_unknown_protocol) == 3);
}

TEST_CASE("rfc791: wrong version, header length and checksum are dropped") {
  Bench b;
  Bytes frame = tcp_frame();
  frame[14] = std::byte{0x65};
  fix_ipv4_checksum(frame);
  CHECK(b.input(frame) == Input::consumed);
  frame[14] = std::byte{0x44};
  fix_ipv4_checksum(frame);
  CHECK(b.input(frame) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_ip_header) == 2);
  frame = tcp_frame();
  frame[22] ^= std::byte{1};  // TTL
  CHECK(b.input(frame) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_ip_checksum) == 1);
}

TEST_CASE("rfc791: options are stepped over") {
  Bench b;
  Bytes frame = tcp_frame(5);
  frame.insert(frame.begin() + 34, 8, std::byte{1});
  frame[14] = std::byte{0x47};
  store_be(&frame[16], static_cast<std::uint16_t>(frame.size() - 14));
  fix_ipv4_checksum(frame);
  REQUIRE(b.input(frame) == Input::segment);
  CHECK(b.segment.len == 5);
}

TEST_CASE("Fragments are dropped, the first one as well") {
  Bench b;
  for (const std::uint16_t bits : {0x2000, 0x0001, 0x3fff}) {
    Bytes frame = tcp_frame();
    store_be(&frame[20], bits);
    fix_ipv4_checksum(frame);
    CHECK(b.input(frame) == Input::consumed);
  }
  CHECK(b.count(Counter::rx_fragment) == 3);
}

TEST_CASE("rfc1122: sources and destinations that cannot be are dropped") {
  Bench b;
  for (const std::uint32_t source : {0U, 0x7f000001U, 0xe0000001U, 0xffffffffU, 0x0a0900ffU, kUs})
    CHECK(b.input(tcp_frame(0, source)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_source) == 6);
  for (const std::uint32_t to : {kPeer, 0x7f000001U, 0xffffffffU, 0x0a0900ffU, 0xe0000001U})
    CHECK(b.input(tcp_frame(0, kPeer + 4, to)) == Input::consumed);
  CHECK(b.count(Counter::rx_not_ours) == 5);
}

TEST_CASE("rfc9293: a wrong TCP checksum is dropped, unless the device has verified it") {
  Bench b;
  Bytes frame = tcp_frame(10);
  frame.back() ^= std::byte{0x10};
  CHECK(b.input(frame) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_tcp_checksum) == 1);
  CHECK(b.input(frame, kRxL4Good) == Input::segment);
}

TEST_CASE("rfc3168: the ECN bits of the IP header are handed up") {
  Bench b;
  Bytes frame = tcp_frame();
  frame[15] = std::byte{0xb9 | 3};
  fix_ipv4_checksum(frame);
  REQUIRE(b.input(frame) == Input::segment);
  CHECK(b.segment.ecn == 3);
}

TEST_CASE("Random frames and valid frames with flipped bits are survived, and nothing leaks") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  Bench b;
  const std::vector<Bytes> good = {
      tcp_frame(40), arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}, kBroadcastMac), arp_reply(),
      ethernet(kEtherIpv4, ipv4(icmp(kIcmpEchoRequest, 0, Bytes(30)), kProtocolIcmp)),
      ethernet(kEtherIpv4,
               ipv4(icmp(kIcmpUnreachable, 4, ipv4(tcp(8), kProtocolTcp, kUs, kPeer), 1400), kProtocolIcmp))};
  for (int i = 0; i < 30000; ++i) {
    Bytes frame;
    if (i % 3 == 0) {
      frame.resize(random() % 120);
      for (auto& x : frame) x = static_cast<std::byte>(random());
    } else {
      frame = good[random() % good.size()];
      for (unsigned flips = random() % 6; flips > 0; --flips)
        frame[random() % frame.size()] ^= static_cast<std::byte>(1U << random() % 8);
      frame.resize(random() % 4 == 0 ? random() % (frame.size() + 1) : frame.size());
      if (frame.size() >= 34 && random() % 2 == 0) fix_ipv4_checksum(frame);
    }
    (void)b.input(frame, random() % 2 == 0 ? std::uint16_t{kRxL4Good} : std::uint16_t{0});
    if (i % 64 == 0) (void)b.flush(), b.pass(milliseconds(100));
  }
  CHECK(b.count(Counter::rx_packets) == 30000);
}

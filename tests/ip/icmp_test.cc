#include "tests/ip/bench.hh"

using namespace mtcp::stack;
using Input = Network::Input;

namespace {

Bytes icmp_frame(const Bytes& message, std::uint32_t source = kPeer) {
  return ethernet(kEtherIpv4, ipv4(message, kProtocolIcmp, source));
}

// What a router quotes of a segment that we have sent.
Bytes quoted(std::size_t behind_ip_header = 8) {
  Bytes q = ipv4(tcp(0, kUs, kFar), kProtocolTcp, kUs, kFar);
  q.resize(kIpv4Header + behind_ip_header);
  return q;
}

void know_peer(Bench& b) {
  (void)b.input(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}, kBroadcastMac));
  b.send(kPeer);
  (void)b.input(arp_reply());
  (void)b.flush();
}

}  // namespace

TEST_CASE("rfc792: an echo request is answered with the same data") {
  Bench b;
  know_peer(b);
  Bytes data(56, std::byte{0x33});
  CHECK(b.input(icmp_frame(icmp(kIcmpEchoRequest, 0, data, 77))) == Input::consumed);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  Ipv4Header ip;
  const auto datagram = std::span(sent[0]).subspan(kEthernetHeader);
  REQUIRE(parse_ipv4(datagram, true, ip) == ParseError::none);
  CHECK(ip.source == kUs);
  CHECK(ip.destination == kPeer);
  CHECK(ip.protocol == kProtocolIcmp);
  IcmpHeader h;
  const auto message = datagram.subspan(kIpv4Header);
  REQUIRE(parse_icmp(message, true, h) == ParseError::none);
  CHECK(h.type == kIcmpEchoReply);
  CHECK(h.mtu == 77);  // where an echo has its sequence number
  CHECK(Bytes(message.begin() + kIcmpHeader, message.end()) == data);
}

TEST_CASE("Echo requests over the limit are dropped and counted") {
  Bench b;
  know_peer(b);
  for (int i = 0; i < 3000; ++i) (void)b.input(icmp_frame(icmp(kIcmpEchoRequest, 0, {})));
  CHECK(b.count(Counter::icmp_echo_replies) == 1000);
  CHECK(b.count(Counter::icmp_rate_limited) == 2000);
  b.now += milliseconds(10);
  (void)b.flush();
  for (int i = 0; i < 100; ++i) (void)b.input(icmp_frame(icmp(kIcmpEchoRequest, 0, {})));
  CHECK(b.count(Counter::icmp_echo_replies) == 1010);
}

TEST_CASE("rfc1191: fragmentation needed names the connection, the sequence number and the MTU") {
  Bench b;
  REQUIRE(b.input(icmp_frame(icmp(kIcmpUnreachable, kIcmpFragmentationNeeded, quoted(), 1400))) ==
          Input::icmp_error);
  CHECK(b.error.key.local == IpAddress::v4(kUs));
  CHECK(b.error.key.remote == IpAddress::v4(kFar));
  CHECK(b.error.key.local_port == 40000);
  CHECK(b.error.key.remote_port == 80);
  CHECK(b.error.seq == Seq(100));
  CHECK(b.error.type == kIcmpUnreachable);
  CHECK(b.error.code == kIcmpFragmentationNeeded);
  CHECK(b.error.mtu == 1400);
}

TEST_CASE("rfc792: unreachable, time exceeded and parameter problem are handed up without an MTU") {
  Bench b;
  for (const std::uint8_t type : {kIcmpUnreachable, kIcmpTimeExceeded, kIcmpParameterProblem}) {
    REQUIRE(b.input(icmp_frame(icmp(type, 0, quoted(), 1400))) == Input::icmp_error);
    CHECK(b.error.type == type);
    CHECK(b.error.mtu == 0);
  }
}

TEST_CASE("rfc792: that fragments were not put together in time says nothing of the path") {
  Bench b;
  CHECK(b.input(icmp_frame(icmp(kIcmpTimeExceeded, kIcmpReassemblyTime, quoted()))) == Input::consumed);
  CHECK(b.count(Counter::icmp_ignored) == 1);
}

TEST_CASE("rfc1812 5.2.7.1: a destination that is unreachable by an unknown code is no error") {
  Bench b;
  CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 15, quoted()))) == Input::icmp_error);
  CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 16, quoted()))) == Input::consumed);
  CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 255, quoted()))) == Input::consumed);
  CHECK(b.count(Counter::icmp_ignored) == 2);
}

TEST_CASE("An ICMP error that quotes too little, or nothing of ours, is dropped at every length") {
  Bench b;
  for (std::size_t n = 0; n < kIpv4Header + 8; ++n) {
    Bytes q = quoted();
    q.resize(n);
    CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 1, q))) == Input::consumed);
  }
  CHECK(b.count(Counter::rx_bad_icmp) == kIpv4Header + 8);
  CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 1, ipv4(tcp(), kProtocolTcp, kPeer, kFar)))) ==
        Input::consumed);
  CHECK(b.count(Counter::rx_bad_icmp) == kIpv4Header + 9);
  CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 1, ipv4(tcp(), 17, kUs, kFar)))) == Input::consumed);
  CHECK(b.count(Counter::icmp_ignored) == 1);
}

TEST_CASE("A quoted header whose length runs past the quotation is dropped") {
  Bench b;
  for (unsigned words = 0; words < 16; ++words) {
    Bytes q = quoted();
    q[0] = static_cast<std::byte>(0x40 | words);
    const auto expected = words == 5 ? Input::icmp_error : Input::consumed;
    CHECK(b.input(icmp_frame(icmp(kIcmpUnreachable, 1, q))) == expected);
  }
}

TEST_CASE("ICMP with a wrong checksum or shorter than its header is dropped") {
  Bench b;
  Bytes bad = icmp(kIcmpEchoRequest, 0, Bytes(10));
  bad[9] ^= std::byte{1};
  CHECK(b.input(icmp_frame(bad)) == Input::consumed);
  for (std::size_t n = 0; n < kIcmpHeader; ++n) CHECK(b.input(icmp_frame(Bytes(n))) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_icmp) == 9);
  CHECK(b.flush().empty());
}

TEST_CASE("Redirects, source quench and other types change nothing") {
  Bench b;
  for (const std::uint8_t type : {0, 4, 5, 9, 10, 13, 17, 255}) {
    CHECK(b.input(icmp_frame(icmp(type, 0, quoted()))) == Input::consumed);
  }
  CHECK(b.count(Counter::icmp_ignored) == 8);
  CHECK(b.flush().empty());
}

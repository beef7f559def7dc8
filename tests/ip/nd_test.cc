// Neighbour discovery for addresses of the stack's own.
#include "stack/ip/resolver.hh"
#include "stack/wire/icmpv6.hh"
#include "tests/ip/bench.hh"

using namespace mtcp::stack;
using Input = Network::Input;

namespace {

IpAddress v6(std::uint8_t last, std::uint8_t first = 0xfd) {
  IpAddress a;
  a.bytes[0] = first;
  a.bytes[15] = last;
  if (first == 0xfe) a.bytes[1] = 0x80;
  return a;
}

const IpAddress kUs6 = v6(2), kPeer6 = v6(1), kRouter = v6(9, 0xfe), kAny6;
constexpr MacAddress kOurGroup{{0x33, 0x33, 0xff, 0, 0, 2}}, kAllNodesMac{{0x33, 0x33, 0, 0, 0, 1}};
constexpr IpAddress kOurGroupAddress{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2}},
    kAllNodes{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

BenchSetup with_v6() {
  BenchSetup setup;
  setup.options.interface.addresses.push_back({kUs6, 64});
  setup.options.interface.gateways.push_back(kRouter);
  return setup;
}

struct Discovery {
  std::uint8_t type = kNeighbourSolicitation;
  std::uint32_t flags = 0;
  IpAddress target = kUs6, source = kPeer6, destination = kOurGroupAddress;
  bool has_mac = true;
  MacAddress mac = kPeerMac, to = kOurGroup;
  std::uint8_t hop_limit = 255, code = 0, option_length = 1;
};

Bytes frame_of(const Discovery& d) {
  Bytes message(24 + (d.has_mac ? 8 : 0));
  message[0] = std::byte{d.type};
  message[1] = std::byte{d.code};
  store_be(&message[4], d.flags);
  std::memcpy(&message[8], d.target.bytes.data(), 16);
  if (d.has_mac) {
    message[24] = std::byte{static_cast<std::uint8_t>(d.type == kNeighbourSolicitation ? 1 : 2)};
    message[25] = std::byte{d.option_length};
    std::memcpy(&message[26], d.mac.bytes.data(), 6);
  }
  fill_in_checksum(message, 2, kProtocolIcmpv6, d.source, d.destination);
  return ethernet(kEtherIpv6, ipv6_packet(message, kProtocolIcmpv6, d.source, d.destination, d.hop_limit), d.to);
}

// The answer of `target` to our question.
Bytes advertisement(const IpAddress& target = kPeer6, const MacAddress& mac = kPeerMac, std::uint32_t flags = 3U << 29,
                    bool has_mac = true) {
  return frame_of({.type = kNeighbourAdvertisement,
                   .flags = flags,
                   .target = target,
                   .source = target,
                   .destination = kUs6,
                   .has_mac = has_mac,
                   .mac = mac,
                   .to = kOurMac});
}

Discovery parsed(const Bytes& frame) {
  const auto e = parsed_ethernet(frame);
  CHECK(e.type == kEtherIpv6);
  const auto packet = std::span(frame).subspan(kEthernetHeader);
  Ipv6Header ip;
  Icmpv6Header icmp;
  REQUIRE(parse_ipv6(packet, ip) == ParseError::none);
  REQUIRE(ip.next_header == kProtocolIcmpv6);
  const auto message = packet.subspan(kIpv6Header);
  REQUIRE(parse_icmpv6(message, ip, icmp) == ParseError::none);
  REQUIRE(message.size() == 32);
  Discovery d{.type = icmp.type, .flags = load_be<std::uint32_t>(&message[4]), .source = ip.source, .destination = ip.destination, .to = e.destination, .hop_limit = ip.hop_limit};
  std::memcpy(d.target.bytes.data(), &message[8], 16);
  std::memcpy(d.mac.bytes.data(), &message[26], 6);
  return d;
}

void send_to(Bench& b, const IpAddress& to) {
  const auto path = b.network->path(to, kAny6);
  REQUIRE(path);
  CHECK((*path)->source == kUs6);
  b.network->output_tcp(b.segment_to_send(), kUs6, to, **path, TxPriority::data, b.now);
}

}  // namespace

TEST_CASE("rfc4861: a neighbour is asked in its group, and what waited goes out with the answer") {
  Bench b(with_v6());
  send_to(b, kPeer6);
  const auto asked = b.flush();
  REQUIRE(asked.size() == 1);
  const Discovery d = parsed(asked[0]);
  CHECK(d.type == kNeighbourSolicitation);
  CHECK(d.target == kPeer6);
  CHECK(d.source == kUs6);
  CHECK(d.destination.bytes[0] == 0xff);
  CHECK(d.to == MacAddress{{0x33, 0x33, 0xff, 0, 0, 1}});
  CHECK(d.mac == kOurMac);
  CHECK(d.hop_limit == 255);
  CHECK(b.input(advertisement()) == Input::consumed);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
}

TEST_CASE("rfc4861: what is on no network goes to the gateway, which may be link-local") {
  Bench b(with_v6());
  send_to(b, v6(7, 0x20));
  CHECK(parsed(b.flush().at(0)).target == kRouter);
  (void)b.input(advertisement(kRouter));
  CHECK(b.flush().size() == 1);
}

TEST_CASE("rfc4861: our addresses are answered for, and the one who asks is known from then on") {
  Bench b(with_v6());
  CHECK(b.input(frame_of({})) == Input::consumed);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  const Discovery d = parsed(sent[0]);
  CHECK(d.type == kNeighbourAdvertisement);
  CHECK(d.flags >> 29 == 3);  // solicited, override
  CHECK(d.target == kUs6);
  CHECK(d.destination == kPeer6);
  CHECK(d.to == kPeerMac);
  send_to(b, kPeer6);
  CHECK(b.flush().size() == 2);  // the segment, and a question whether it is still there
}

TEST_CASE("rfc4862: who asks whether our address is taken hears so, with all others") {
  Bench b(with_v6());
  CHECK(b.input(frame_of({.source = kAny6, .has_mac = false})) == Input::consumed);
  const Discovery d = parsed(b.flush().at(0));
  CHECK(d.destination == kAllNodes);
  CHECK(d.to == kAllNodesMac);
  CHECK(d.flags >> 29 == 1);
}

TEST_CASE("rfc4861: what comes from beyond the link, or contradicts itself, is not believed") {
  Bench b(with_v6());
  Discovery far, code, short_option, group, ours, other;
  far.hop_limit = 254;
  code.code = 1;
  short_option.option_length = 0;
  group.target = kOurGroupAddress;
  other.target = v6(77);
  for (const Discovery& d : {far, code, short_option, group, other}) CHECK(b.input(frame_of(d)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_icmp) == 4);
  ours.source = kUs6;
  CHECK(b.input(frame_of(ours)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_source) == 1);
  Bytes cut = frame_of({});
  for (std::size_t n = kEthernetHeader; n < cut.size(); ++n)
    CHECK(b.input(Bytes(cut.begin(), cut.begin() + static_cast<std::ptrdiff_t>(n))) == Input::consumed);
  CHECK(b.flush().empty());
}

TEST_CASE("rfc4861: an answer without its MAC address confirms what is known; one that does not override changes nothing") {
  Bench b(with_v6());
  send_to(b, kPeer6);
  (void)b.input(advertisement());
  (void)b.flush();
  b.now += Resolver::kReachableTime;
  send_to(b, kPeer6);
  auto sent = b.flush();
  REQUIRE(sent.size() == 2);
  CHECK(parsed(sent[0]).to == kPeerMac);  // asked directly
  CHECK(b.input(advertisement(kPeer6, kPeerMac, 1U << 30, false)) == Input::consumed);
  send_to(b, kPeer6);
  CHECK(b.flush().size() == 1);
  b.now += seconds(2);
  (void)b.input(advertisement(kPeer6, kOtherMac, 0));
  send_to(b, kPeer6);
  sent = b.flush();
  CHECK(parsed_ethernet(sent.back()).destination == kPeerMac);
  (void)b.input(advertisement(kPeer6, kOtherMac, 1U << 29));
  send_to(b, kPeer6);
  bool moved = false;
  for (const Bytes& f : b.flush()) moved = moved || parsed_ethernet(f).destination == kOtherMac;
  CHECK(moved);
}

TEST_CASE("rfc4861: an address that another host says is its own is counted; a silent neighbour fails") {
  Bench b(with_v6());
  (void)b.input(advertisement(kUs6));
  CHECK(b.count(Counter::address_conflict) == 1);
  send_to(b, kPeer6);
  for (int i = 0; i < 4; ++i) b.pass(Resolver::kProbeInterval);
  IpAddress failed;
  REQUIRE(b.network->next_unreachable(failed));
  CHECK(failed == kPeer6);
  CHECK(b.count(Counter::nd_solicitations_sent) == 3);
  (void)b.flush();
}

TEST_CASE("Our addresses are announced to all nodes") {
  Bench b(with_v6());
  b.network->announce(b.now);
  bool told = false;
  for (const Bytes& f : b.flush()) told = told || parsed_ethernet(f).destination == kAllNodesMac;
  CHECK(told);
}

TEST_CASE("rfc4443: an echo request is answered, one to a group is not") {
  Bench b(with_v6());
  (void)b.input(frame_of({}));
  (void)b.flush();
  const auto echo = [&](const IpAddress& to, const MacAddress& mac) {
    Bytes message(16);
    message[0] = std::byte{128};
    fill_in_checksum(message, 2, kProtocolIcmpv6, kPeer6, to);
    (void)b.input(ethernet(kEtherIpv6, ipv6_packet(message, kProtocolIcmpv6, kPeer6, to), mac));
    return b.flush();
  };
  const auto sent = echo(kUs6, kOurMac);
  REQUIRE(!sent.empty());
  bool replied = false;
  for (const Bytes& f : sent) replied = replied || f.at(kEthernetHeader + kIpv6Header) == std::byte{129};
  CHECK(replied);
  CHECK(b.count(Counter::icmp_echo_replies) == 1);
  (void)echo(kAllNodes, kAllNodesMac);
  CHECK(b.count(Counter::icmp_echo_replies) == 1);
}

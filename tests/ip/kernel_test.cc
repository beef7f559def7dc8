// A stack whose addresses, routes and neighbours are the kernel's.
#include "stack/ip/resolver.hh"
#include "stack/kernel_net/kernel_network.hh"
#include "stack/wire/icmpv6.hh"
#include "tests/ip/bench.hh"

using namespace mtcp::stack;
using Input = Network::Input;

namespace {

IpAddress v6(std::uint8_t last) {
  IpAddress a;
  a.bytes[0] = 0x20;
  a.bytes[1] = 0x01;
  a.bytes[15] = last;
  return a;
}

const IpAddress kUs4 = IpAddress::v4(kUs), kPeer4 = IpAddress::v4(kPeer), kFar4 = IpAddress::v4(kFar);
const IpAddress kUs6 = v6(2), kPeer6 = v6(1), kAny4 = IpAddress::any_v4();

class FakeKernelNetwork final : public KernelNetwork {
 public:
  FakeKernelNetwork() {
    now.link = {.exists = true, .up = true, .index = 7, .mtu = 1500, .mac = kOurMac};
    now.own = {{kUs4, 120}, {kUs6, 64}};
    gateway(IpAddress::v4(kGateway));
  }
  // All routes anew.
  void gateway(const IpAddress& a, std::uint32_t mtu = 0) {
    KernelView fresh;
    fresh.link = now.link;
    fresh.own = now.own;
    fresh.generation = now.generation + 1;
    fresh.add({{IpAddress::v4(10, 9, 0, 0), 120}, kAny4, kAny4, 0, 0, true});
    fresh.add({{v6(0), 64}, {}, {}, 0, 0, true});
    if (!a.is_any()) fresh.add({{kAny4, 96}, a, kAny4, 0, mtu, true});
    fresh.sort_routes();
    now = fresh;
  }
  void says(const IpAddress& a, KernelNeighbour::State state, const MacAddress& mac = kPeerMac) {
    KernelNeighbour n{.address = a, .state = state, .mac = mac};
    neighbours[a.bytes] = n;
    changes.push_back(n);
  }
  void update(Time) override {}
  [[nodiscard]] const KernelView& view() const override { return now; }
  [[nodiscard]] KernelNeighbour neighbour(const IpAddress& a) const override {
    const auto at = neighbours.find(a.bytes);
    return at == neighbours.end() ? KernelNeighbour{.address = a} : at->second;
  }
  bool next_change(KernelNeighbour& out) override {
    if (changes.empty()) return false;
    out = changes.front();
    changes.erase(changes.begin());
    return true;
  }
  void use(const IpAddress& a, Time) override { used.push_back(a); }

  KernelView now;
  std::map<std::array<std::uint8_t, 16>, KernelNeighbour> neighbours;
  std::vector<KernelNeighbour> changes;
  std::vector<IpAddress> used;
};

struct KernelBench : Bench {
  KernelBench() : Bench([] {
    BenchSetup setup;
    setup.options.interface = {};
    return setup;
  }()) {
    network.reset();
    network = std::make_unique<Network>(options, &port, *cache, tx, stats, &kernel);
  }
  ~KernelBench() {
    (void)flush();
    network.reset();
  }
  const Path* way(const IpAddress& to, const IpAddress& from = kAny4) {
    const auto path = network->path(to, from);
    return path ? *path : nullptr;
  }
  void send_to(const IpAddress& to, const IpAddress& from) {
    const auto path = network->path(to, from);
    REQUIRE(path);
    network->output_tcp(segment_to_send(100), from, to, **path, TxPriority::data, now);
  }
  FakeKernelNetwork kernel;
};

Bytes ipv6(const Bytes& body, std::uint8_t next = kProtocolTcp, const IpAddress& source = kPeer6,
           const IpAddress& destination = kUs6) {
  return ethernet(kEtherIpv6, ipv6_packet(body, next, source, destination));
}

Bytes tcp6(const IpAddress& source = kPeer6, const IpAddress& destination = kUs6) {
  Bytes bytes(kTcpHeader + 10, std::byte{0x42});
  write_tcp_plain(bytes.data(), 40000, 80, Seq(100), Seq(200), kAck, 512, false, 0, 0);
  fill_in_checksum(bytes, kTcpChecksumOffset, kProtocolTcp, source, destination);
  return bytes;
}

Bytes with_header(std::uint8_t next, std::uint8_t fragment_bits, const Bytes& body) {
  Bytes bytes(8);
  bytes[0] = std::byte{next};
  bytes[3] = std::byte{fragment_bits};
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

// About a segment that we have sent from port 80 to port 40000.
Bytes icmpv6_error(std::uint8_t type, std::uint8_t code, std::uint32_t word, bool good = true) {
  Bytes quoted(kIpv6Header + 8);
  write_ipv6(quoted.data(), {.source = kUs6, .destination = kPeer6, .payload_length = 1200, .next_header = kProtocolTcp});
  store_be(&quoted[kIpv6Header], std::uint16_t{80});
  store_be(&quoted[kIpv6Header + 2], std::uint16_t{40000});
  store_be(&quoted[kIpv6Header + 4], std::uint32_t{4711});
  Bytes bytes(kIcmpv6Header);
  bytes[0] = std::byte{type};
  bytes[1] = std::byte{code};
  store_be(&bytes[4], word);
  bytes.insert(bytes.end(), quoted.begin(), quoted.end());
  fill_in_checksum(bytes, 2, kProtocolIcmpv6, kPeer6, kUs6);
  if (!good) bytes[9] ^= std::byte{1};
  return ipv6(bytes, kProtocolIcmpv6);
}

}  // namespace

TEST_CASE("The kernel is asked for a neighbour that is unknown, and what waited goes out when it says the MAC") {
  KernelBench b;
  b.send_to(kPeer4, kUs4);
  CHECK(b.flush().empty());  // no ARP of ours
  REQUIRE(b.kernel.used == std::vector{kPeer4});
  b.kernel.says(kPeer4, KernelNeighbour::State::known);
  CHECK_FALSE(b.network->follow_kernel(b.now));
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).destination == kPeerMac);
  CHECK(parsed_ethernet(sent[0]).type == kEtherIpv4);
}

TEST_CASE("A neighbour that the kernel knows already need not be asked, and one that is stale is said to be used") {
  KernelBench b;
  b.kernel.says(kPeer4, KernelNeighbour::State::known);
  b.send_to(kPeer4, kUs4);
  CHECK(b.flush().size() == 1);
  CHECK(b.kernel.used.empty());
  b.kernel.neighbours[kPeer6.bytes] = {.address = kPeer6, .state = KernelNeighbour::State::known, .stale = true, .mac = kPeerMac};
  b.send_to(kPeer6, kUs6);
  CHECK(b.flush().size() == 1);
  CHECK(b.kernel.used == std::vector{kPeer6});
}

TEST_CASE("A neighbour in use is told to the kernel from time to time, and sent to meanwhile") {
  KernelBench b;
  b.kernel.says(kPeer4, KernelNeighbour::State::known);
  b.send_to(kPeer4, kUs4);
  b.pass(Resolver::kReachableTime);
  for (int i = 0; i < 3; ++i) b.send_to(kPeer4, kUs4);
  CHECK(b.flush().size() == 4);
  CHECK(b.kernel.used == std::vector{kPeer4});
}

TEST_CASE("Another MAC address of a neighbour is used at once, and told") {
  KernelBench b;
  b.kernel.says(kPeer4, KernelNeighbour::State::known);
  b.send_to(kPeer4, kUs4);
  (void)b.flush();
  b.kernel.says(kPeer4, KernelNeighbour::State::known, kOtherMac);
  (void)b.network->follow_kernel(b.now);
  b.send_to(kPeer4, kUs4);
  CHECK(parsed_ethernet(b.flush().at(0)).destination == kOtherMac);
  IpAddress moved;
  REQUIRE(b.network->next_moved(moved));
  CHECK(moved == kPeer4);
}

TEST_CASE("A neighbour that does not answer the kernel is unreachable; one that it forgets is asked again") {
  KernelBench b;
  b.send_to(kPeer4, kUs4);
  b.kernel.says(kPeer4, KernelNeighbour::State::failed);
  (void)b.network->follow_kernel(b.now);
  IpAddress failed;
  REQUIRE(b.network->next_unreachable(failed));
  CHECK(failed == kPeer4);
  CHECK(b.count(Counter::neighbour_failed) == 1);
  b.kernel.says(kPeer4, KernelNeighbour::State::known);
  b.send_to(kPeer4, kUs4);
  CHECK(b.flush().size() == 1);
  b.kernel.says(kPeer4, KernelNeighbour::State::unknown);
  (void)b.network->follow_kernel(b.now);
  b.kernel.used.clear();
  b.send_to(kPeer4, kUs4);
  CHECK(b.flush().empty());
  CHECK(b.kernel.used == std::vector{kPeer4});
}

TEST_CASE("A kernel that says nothing is asked three times, and then the neighbour has failed") {
  KernelBench b;
  b.send_to(kPeer4, kUs4);
  for (int i = 0; i < 3; ++i) b.pass(Resolver::kProbeInterval);
  CHECK(b.kernel.used.size() == 3);
  IpAddress failed;
  CHECK(b.network->next_unreachable(failed));
}

TEST_CASE("ARP and echo requests are the kernel's to answer, and nothing is announced") {
  KernelBench b;
  b.network->announce(b.now);
  b.pass(seconds(3));
  CHECK(b.input(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}, kBroadcastMac)) == Input::consumed);
  CHECK(b.input(ethernet(kEtherIpv4, ipv4(icmp(kIcmpEchoRequest, 0, Bytes(20)), kProtocolIcmp))) == Input::consumed);
  CHECK(b.flush().empty());
}

TEST_CASE("A new address is ours at once; of one that is gone nothing is sent any more, until it is back") {
  KernelBench b;
  const IpAddress fresh = IpAddress::v4(10, 9, 0, 9);
  const Path* before = b.way(kPeer4, kUs4);
  REQUIRE(before != nullptr);
  b.kernel.now.own = {{fresh, 120}};
  ++b.kernel.now.generation;
  CHECK(b.network->follow_kernel(b.now));
  CHECK(b.network->is_local(fresh));
  CHECK_FALSE(b.network->is_local(kUs4));
  CHECK(b.input(tcp_frame()) == Input::consumed);
  CHECK(b.count(Counter::rx_not_ours) == 1);
  CHECK(b.input(tcp_frame(0, kPeer, fresh.as_v4())) == Input::segment);
  const Path* broken = b.network->path_again(*before, kPeer4, kUs4);
  CHECK(broken->broken);
  b.network->output_tcp(b.segment_to_send(), kUs4, kPeer4, *broken, TxPriority::data, b.now);
  CHECK(b.flush().empty());
  CHECK(b.count(Counter::no_route) == 1);
  b.kernel.now.own = {{kUs4, 120}};
  ++b.kernel.now.generation;
  CHECK(b.network->follow_kernel(b.now));
  CHECK(b.network->path_again(*broken, kPeer4, kUs4) == before);
}

TEST_CASE("Another gateway, or none, is that of connections which exist") {
  KernelBench b;
  const Path* first = b.way(kFar4);
  REQUIRE(first != nullptr);
  CHECK(first->next_hop(kFar4) == IpAddress::v4(kGateway));
  b.kernel.gateway(kPeer4);
  CHECK(b.network->follow_kernel(b.now));
  const Path* second = b.network->path_again(*first, kFar4, kUs4);
  CHECK(second->next_hop(kFar4) == kPeer4);
  b.kernel.gateway(kAny4);
  CHECK(b.network->follow_kernel(b.now));
  CHECK(b.network->path_again(*second, kFar4, kUs4)->broken);
  CHECK(b.way(kFar4) == nullptr);
  CHECK(b.way(kPeer4) != nullptr);
}

TEST_CASE("The MTU is the least of the device's, the interface's and the route's") {
  KernelBench b;
  b.kernel.gateway(IpAddress::v4(kGateway), 1400);
  (void)b.network->follow_kernel(b.now);
  CHECK(b.way(kFar4)->mtu == 1400);
  CHECK(b.way(kPeer4)->mtu == 1500);
  b.kernel.now.link.mtu = 1300;
  ++b.kernel.now.generation;
  (void)b.network->follow_kernel(b.now);
  std::uint32_t mtu = 0;
  REQUIRE(b.network->follow_mtu(mtu));
  CHECK(mtu == 1300);
  CHECK(b.way(kFar4)->mtu == 1300);
  CHECK_FALSE(b.network->follow_mtu(mtu));
}

TEST_CASE("Our own MAC address is the interface's, also when it changes") {
  KernelBench b;
  b.kernel.says(kPeer4, KernelNeighbour::State::known);
  b.send_to(kPeer4, kUs4);
  (void)b.flush();
  b.kernel.now.link.mac = kOtherMac;
  ++b.kernel.now.generation;
  (void)b.network->follow_kernel(b.now);
  b.send_to(kPeer4, kUs4);
  CHECK(parsed_ethernet(b.flush().at(0)).source == kOtherMac);
  CHECK(b.input(tcp_frame()) == Input::consumed);  // for the former one
}

TEST_CASE("rfc8200: a segment leaves over IPv6 with its header and checksum") {
  KernelBench b;
  b.kernel.says(kPeer6, KernelNeighbour::State::known);
  b.send_to(kPeer6, kUs6);
  const auto sent = b.flush();
  REQUIRE(sent.size() == 1);
  CHECK(parsed_ethernet(sent[0]).type == kEtherIpv6);
  Ipv6Header h;
  const auto packet = std::span(sent[0]).subspan(kEthernetHeader);
  REQUIRE(parse_ipv6(packet, h) == ParseError::none);
  CHECK(h.source == kUs6);
  CHECK(h.destination == kPeer6);
  CHECK(h.hop_limit == 64);
  const auto segment = packet.subspan(kIpv6Header);
  CHECK(h.payload_length == segment.size());
  CHECK(sum_is_good(sum_of_pseudo_header(kUs6, kPeer6, false, kProtocolTcp, segment.size()) +
                    partial_sum(segment.data(), segment.size())));
}

TEST_CASE("rfc8200: a segment comes in over IPv6, behind extension headers as well, but not as a fragment") {
  KernelBench b;
  CHECK(b.input(ipv6(tcp6())) == Input::segment);
  CHECK(b.segment.key.local == kUs6);
  CHECK(b.segment.key.remote == kPeer6);
  CHECK(b.payload.size() == 10);
  CHECK(b.input(ipv6(with_header(60, 0, with_header(6, 0, tcp6())), 0)) == Input::segment);
  CHECK(b.input(ipv6(with_header(6, 0, tcp6()), 44)) == Input::segment);  // RFC 6946: all of it
  CHECK(b.input(ipv6(with_header(6, 1, tcp6()), 44)) == Input::consumed);
  CHECK(b.count(Counter::rx_fragment) == 1);
  CHECK(b.input(ipv6(with_header(6, 1, tcp6()), 43)) == Input::consumed);  // on its way to somewhere else
  CHECK(b.count(Counter::rx_bad_ip_header) == 1);
  Bytes chain = tcp6();
  for (int i = 0; i < 20; ++i) chain = with_header(i == 0 ? 6 : 60, 0, chain);
  CHECK(b.input(ipv6(chain, 60)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_ip_header) == 2);
  Bytes wrong = tcp6();
  wrong.back() ^= std::byte{1};
  CHECK(b.input(ipv6(wrong)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_tcp_checksum) == 1);
}

TEST_CASE("No host sends from a group, from nowhere, from our address, or from IPv4 in IPv6's clothes") {
  KernelBench b;
  IpAddress group;
  group.bytes[0] = 0xff;
  for (const IpAddress& source : {group, IpAddress{}, kUs6, kPeer4})
    CHECK(b.input(ipv6(tcp6(source), kProtocolTcp, source)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_source) == 4);
  CHECK(b.input(ipv6(tcp6(kPeer6, kUs4), kProtocolTcp, kPeer6, kUs4)) == Input::consumed);
  CHECK(b.count(Counter::rx_not_ours) == 1);
}

TEST_CASE("rfc4443: errors about our segments are handed up, and what cannot be about one is not") {
  KernelBench b;
  CHECK(b.input(icmpv6_error(kIcmpv6PacketTooBig, 0, 1400)) == Input::icmp_error);
  CHECK(b.error.key.local == kUs6);
  CHECK(b.error.key.remote == kPeer6);
  CHECK(b.error.key.local_port == 80);
  CHECK(b.error.seq == Seq(4711));
  CHECK(b.error.type == kIcmpUnreachable);
  CHECK(b.error.code == kIcmpFragmentationNeeded);
  CHECK(b.error.mtu == 1400);
  CHECK(b.input(icmpv6_error(kIcmpv6PacketTooBig, 0, 68)) == Input::icmp_error);
  CHECK(b.error.mtu == 1280);  // rfc8201
  CHECK(b.input(icmpv6_error(kIcmpv6Unreachable, 4, 0)) == Input::icmp_error);
  CHECK(b.error.code == 3);
  CHECK(b.input(icmpv6_error(kIcmpv6Unreachable, 0, 0, false)) == Input::consumed);
  CHECK(b.count(Counter::rx_bad_icmp) == 1);
  CHECK(b.input(icmpv6_error(128, 0, 0)) == Input::consumed);  // an echo request
  CHECK(b.count(Counter::icmp_ignored) == 1);
}

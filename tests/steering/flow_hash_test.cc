#include <catch2/catch.hpp>
#include <cstring>

#include "stack/steering/flow_hash.hh"
#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

// The key and flows of Microsoft's "Verifying the RSS Hash Calculation".
FlowHash published() {
  static constexpr std::uint8_t kKey[] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
                                          0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
                                          0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
  FlowHash::Key key{};
  std::copy(std::begin(kKey), std::end(kKey), key.begin());
  return FlowHash(key);
}

FlowKey key_of(IpAddress remote, std::uint16_t remote_port, IpAddress local, std::uint16_t local_port) {
  return {local, remote, local_port, remote_port};
}

}  // namespace

TEST_CASE("Toeplitz: the published IPv4 flows have the published hashes", "[flow-hash]") {
  const FlowHash h = published();
  CHECK(h.of(key_of(IpAddress::v4(66, 9, 149, 187), 2794, IpAddress::v4(161, 142, 100, 80), 1766)) == 0x51ccc178);
  CHECK(h.of(key_of(IpAddress::v4(199, 92, 111, 2), 14230, IpAddress::v4(65, 69, 140, 83), 4739)) == 0xc626b0ea);
  CHECK(h.of(key_of(IpAddress::v4(24, 19, 198, 95), 12898, IpAddress::v4(12, 22, 207, 184), 38024)) == 0x5c2b394a);
}

TEST_CASE("Toeplitz: a published IPv6 flow has the published hash", "[flow-hash]") {
  const IpAddress remote{{0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7}};
  const IpAddress local{{0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0, 0x03, 0, 0, 0, 0, 0, 0, 0, 1}};
  CHECK(published().of(key_of(remote, 2794, local, 1766)) == 0x40207d3d);
}

TEST_CASE("a TCP frame is classified by its flow", "[classify]") {
  const FlowHash h = published();
  const FrameKind k = classify(tcp_frame(7, 4000), h);
  CHECK(k.kind == FrameKind::Kind::flow);
  CHECK(k.tcp);
  CHECK(k.hash == h.of(flow(7, 4000)));
}

TEST_CASE("IP options do not change whose a frame is; a later fragment is anyone's", "[classify]") {
  const FlowHash h = published();
  Frame f = tcp_frame(7, 4000);
  Frame later = f;
  f[14] = std::byte{0x46};
  f.insert(f.begin() + 34, 4, std::byte{1});
  CHECK(classify(f, h).hash == h.of(flow(7, 4000)));
  later[20] = std::byte{0x20};  // more fragments: the first one has the ports
  CHECK(classify(later, h).kind == FrameKind::Kind::flow);
  later[21] = std::byte{1};
  CHECK(classify(later, h).kind == FrameKind::Kind::anyone);
}

TEST_CASE("an ICMP error belongs to the flow of the header inside", "[classify]") {
  const FlowHash h = published();
  Frame f = tcp_frame(9, 0);
  f[23] = std::byte{1};
  f[34] = std::byte{3};
  f.resize(42);
  // What 10.0.0.1:80 sent to 10.0.0.7:4000.
  Frame inner = tcp_frame(7, 4000);
  inner.erase(inner.begin(), inner.begin() + 14);
  std::swap_ranges(inner.begin() + 12, inner.begin() + 16, inner.begin() + 16);
  std::swap_ranges(inner.begin() + 20, inner.begin() + 22, inner.begin() + 22);
  f.insert(f.end(), inner.begin(), inner.begin() + 28);
  const FrameKind k = classify(f, h);
  CHECK(k.kind == FrameKind::Kind::flow);
  CHECK_FALSE(k.tcp);
  CHECK(k.hash == h.of(flow(7, 4000)));
  f[34] = std::byte{8};  // an echo request
  CHECK(classify(f, h).kind == FrameKind::Kind::anyone);
}

TEST_CASE("ARP replies and announcements are for all, questions for whoever gets them", "[classify]") {
  const FlowHash h = published();
  Frame f(42);
  f[12] = std::byte{8};
  f[13] = std::byte{6};
  f[21] = std::byte{2};
  CHECK(classify(f, h).kind == FrameKind::Kind::all);
  f[21] = std::byte{1};
  CHECK(classify(f, h).kind == FrameKind::Kind::all);  // both addresses are the same
  f[41] = std::byte{1};
  CHECK(classify(f, h).kind == FrameKind::Kind::anyone);
}

namespace {

const IpAddress kRemote6{{0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}}, kLocal6{{0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

// Ports 4000 and 80, a SYN; from the IP header on.
Frame packet_v6(const IpAddress& from, const IpAddress& to, std::uint16_t from_port, std::uint16_t to_port) {
  Frame f(60);
  f[0] = std::byte{0x60};
  f[6] = std::byte{6};
  std::memcpy(&f[8], from.bytes.data(), 16);
  std::memcpy(&f[24], to.bytes.data(), 16);
  for (const auto& [at, port] : {std::pair{40, from_port}, {42, to_port}}) {
    f[static_cast<std::size_t>(at)] = static_cast<std::byte>(port >> 8);
    f[static_cast<std::size_t>(at) + 1] = static_cast<std::byte>(port);
  }
  f[53] = std::byte{2};
  return f;
}

Frame framed_v6(const Frame& packet) {
  Frame f(14);
  f[12] = std::byte{0x86};
  f[13] = std::byte{0xdd};
  f.insert(f.end(), packet.begin(), packet.end());
  return f;
}

}  // namespace

TEST_CASE("a TCP frame of IPv6 is classified by its flow, behind extension headers as well", "[classify]") {
  const FlowHash h = published();
  const std::uint32_t hash = h.of(key_of(kRemote6, 4000, kLocal6, 80));
  Frame f = framed_v6(packet_v6(kRemote6, kLocal6, 4000, 80));
  CHECK(classify(f, h).kind == FrameKind::Kind::flow);
  CHECK(classify(f, h).tcp);
  CHECK(classify(f, h).hash == hash);
  for (std::size_t n = 0; n < f.size(); ++n) {
    const Frame cut(f.begin(), f.begin() + static_cast<std::ptrdiff_t>(n));  // its own allocation
    CHECK(classify(cut, h).kind == (n >= 58 ? FrameKind::Kind::flow : FrameKind::Kind::anyone));
  }
  f[20] = std::byte{60};
  Frame option(8);
  option[0] = std::byte{6};
  f.insert(f.begin() + 54, option.begin(), option.end());
  CHECK(classify(f, h).hash == hash);
  f[20] = std::byte{44};
  f[57] = std::byte{1};  // more fragments
  CHECK(classify(f, h).kind == FrameKind::Kind::anyone);
}

TEST_CASE("an ICMPv6 error belongs to the flow of the header inside, neighbour discovery to nobody", "[classify]") {
  const FlowHash h = published();
  Frame packet = packet_v6(kRemote6, kLocal6, 0, 0);
  packet.resize(48);
  packet[6] = std::byte{58};
  packet[40] = std::byte{2};
  const Frame inner = packet_v6(kLocal6, kRemote6, 80, 4000);
  packet.insert(packet.end(), inner.begin(), inner.begin() + 48);
  Frame f = framed_v6(packet);
  CHECK(classify(f, h).kind == FrameKind::Kind::flow);
  CHECK_FALSE(classify(f, h).tcp);
  CHECK(classify(f, h).hash == h.of(key_of(kRemote6, 4000, kLocal6, 80)));
  f[54] = std::byte{135};
  CHECK(classify(f, h).kind == FrameKind::Kind::anyone);
  f[54] = std::byte{136};
  CHECK(classify(f, h).kind == FrameKind::Kind::all);
}

TEST_CASE("no prefix of a frame is read beyond its end", "[classify]") {
  const FlowHash h = published();
  const Frame whole = tcp_frame(7, 4000);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const Frame cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));  // its own allocation
    CHECK(classify(cut, h).kind == (n >= 38 ? FrameKind::Kind::flow : FrameKind::Kind::anyone));
  }
}

// A Network with a device that records what it is given, and frames to feed it with.
#pragma once

#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stack/ip/network.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/wire/arp.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/icmp.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/ipv6.hh"
#include "stack/wire/tcp_header.hh"
#include "tests/bare_port.hh"

namespace mtcp::stack {

using Bytes = std::vector<std::byte>;

inline constexpr MacAddress kOurMac{{2, 0, 0, 0, 0, 2}}, kPeerMac{{2, 0, 0, 0, 0, 1}},
    kOtherMac{{2, 0, 0, 0, 0, 9}};
inline constexpr std::uint32_t kUs = 0x0a090002, kPeer = 0x0a090001, kGateway = 0x0a0900fe, kFar = 0xc0000201;

// Takes everything; keeps a copy of the bytes.
class RecordingPort final : public test::BarePort {
 public:
  using BarePort::BarePort;
  std::size_t tx(Packet* const* packets, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) {
      sent.emplace_back(packets[i]->data, packets[i]->end());
      flags.push_back(packets[i]->flags);
      if ((packets[i]->flags & kKeep) == 0) pool_.free(&packets[i], 1);
    }
    return n;
  }
  [[nodiscard]] MacAddress mac() const override { return kOurMac; }
  [[nodiscard]] std::uint32_t mtu() const override { return mtu_now; }
  std::uint32_t mtu_now = 1500;
  [[nodiscard]] bool tx_checksum_offload() const override { return offload; }

  std::vector<Bytes> sent;
  std::vector<std::uint16_t> flags;
  bool offload = false;
};

inline Options example_options() {
  Options o;
  o.interface.addresses = {{IpAddress::v4(kUs), 96 + 24}};
  o.interface.gateways = {IpAddress::v4(kGateway)};
  o.loopback = true;
  return o;
}

struct BenchSetup {
  Options options = example_options();
  bool device = true, offload = false;
  std::size_t packets = 4096, tx_bound = 4096;
};

struct Bench {
  explicit Bench(const BenchSetup& setup = {})
      : options(setup.options),
        pool(setup.packets),
        cache(std::make_unique<PacketCache>(pool)),
        port(pool),
        tx(setup.tx_bound, stats) {
    port.offload = setup.offload;
    network = std::make_unique<Network>(options, setup.device ? &port : nullptr, *cache, tx, stats);
  }
  ~Bench() {
    flush();
    network.reset();
    cache.reset();
    CHECK(pool.available() == pool.capacity());  // nothing leaks
  }

  std::uint64_t count(Counter c) const { return stats.get(c); }
  // What the device has been given since the last call.
  std::vector<Bytes> flush() {
    tx.flush(port);
    return std::exchange(port.sent, {});
  }
  Packet* packet(const Bytes& bytes) {
    Packet* p = cache->alloc();
    REQUIRE(p != nullptr);
    REQUIRE(bytes.size() <= p->capacity);
    // At the end of the buffer: the address sanitizer sees a read behind the packet.
    p->data = p->buf + p->capacity - bytes.size();
    p->len = static_cast<std::uint32_t>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), p->data);
    return p;
  }
  Network::Input input(const Bytes& frame, std::uint16_t packet_flags = 0) {
    Packet* p = packet(frame);
    p->flags = packet_flags;
    const auto result = network->input(p, segment, error, now);
    if (result == Network::Input::segment) {
      payload.assign(segment.packet->data, segment.packet->end());
      cache->free(segment.packet);
    } else if (result == Network::Input::icmp_error) {
      cache->free(error.packet);
    }
    return result;
  }
  // A TCP segment of ours towards `to`.
  Packet* segment_to_send(std::size_t payload_bytes = 0, std::uint16_t flags = 0) {
    Packet* p = cache->alloc();
    REQUIRE(p != nullptr);
    p->len = static_cast<std::uint32_t>(payload_bytes);
    p->payload_len = static_cast<std::uint16_t>(payload_bytes);
    for (std::size_t i = 0; i < payload_bytes; ++i) p->data[i] = static_cast<std::byte>(i * 7);
    p->flags = flags;
    write_tcp_plain(p->push(kTcpHeader), 80, 40000, Seq(1), Seq(2), kAck, 1000, false, 0, 0);
    return p;
  }
  void send(std::uint32_t to, Packet* p = nullptr) {
    const auto path = network->path(IpAddress::v4(to), IpAddress::any_v4());
    REQUIRE(path);
    if (p == nullptr) p = segment_to_send();
    network->output_tcp(p, (*path)->source, IpAddress::v4(to), **path, TxPriority::data, now);
  }
  void pass(Duration d) {
    now += d;
    (void)network->run_timers(now);
  }

  Options options;
  HeapPool pool;
  std::unique_ptr<PacketCache> cache;
  RecordingPort port;
  Stats stats;
  TxQueue tx;
  Time now{seconds(1000)};
  std::unique_ptr<Network> network;
  Segment segment;
  IcmpError error;
  Bytes payload;
};

inline Bytes ethernet(std::uint16_t type, const Bytes& body, const MacAddress& to = kOurMac,
                      const MacAddress& from = kPeerMac) {
  Bytes frame(kEthernetHeader + body.size());
  write_ethernet(frame.data(), {to, from, type});
  std::copy(body.begin(), body.end(), frame.begin() + kEthernetHeader);
  return frame;
}

inline Bytes arp_frame(const ArpPacket& a, const MacAddress& to = kOurMac) {
  Bytes body(kArpPacket);
  write_arp(body.data(), a);
  return ethernet(kEtherArp, body, to, a.sender_mac);
}

inline Bytes arp_reply(std::uint32_t from = kPeer, const MacAddress& mac = kPeerMac) {
  return arp_frame({kArpReply, mac, from, kOurMac, kUs});
}

inline Bytes ipv4(const Bytes& body, std::uint8_t protocol = kProtocolTcp, std::uint32_t source = kPeer,
                  std::uint32_t destination = kUs) {
  Bytes bytes(kIpv4Header + body.size());
  write_ipv4(bytes.data(), {.source = source,
                            .destination = destination,
                            .total_length = static_cast<std::uint16_t>(kIpv4Header + body.size()),
                            .protocol = protocol});
  std::copy(body.begin(), body.end(), bytes.begin() + kIpv4Header);
  return bytes;
}

inline Bytes ipv6_packet(const Bytes& body, std::uint8_t next, const IpAddress& source, const IpAddress& destination,
                         std::uint8_t hop_limit = 64) {
  Bytes bytes(kIpv6Header + body.size());
  write_ipv6(bytes.data(), {.source = source,
                            .destination = destination,
                            .payload_length = static_cast<std::uint16_t>(body.size()),
                            .next_header = next,
                            .hop_limit = hop_limit});
  std::copy(body.begin(), body.end(), bytes.begin() + kIpv6Header);
  return bytes;
}

// The one of a TCP segment or of an ICMPv6 message, which is 0 at `at`.
inline void fill_in_checksum(Bytes& bytes, std::size_t at, std::uint8_t protocol, const IpAddress& source,
                             const IpAddress& destination, bool v4 = false) {
  store_checksum(&bytes[at], sum_of_pseudo_header(source, destination, v4, protocol, bytes.size()) +
                                 partial_sum(bytes.data(), bytes.size()));
}

inline Bytes tcp(std::size_t payload_bytes = 0, std::uint32_t source = kPeer,
                 std::uint32_t destination = kUs) {
  Bytes bytes(kTcpHeader + payload_bytes, std::byte{0x42});
  write_tcp_plain(bytes.data(), 40000, 80, Seq(100), Seq(200), kAck, 512, false, 0, 0);
  fill_in_checksum(bytes, kTcpChecksumOffset, kProtocolTcp, IpAddress::v4(source), IpAddress::v4(destination), true);
  return bytes;
}

inline Bytes tcp_frame(std::size_t payload_bytes = 0, std::uint32_t source = kPeer,
                       std::uint32_t destination = kUs) {
  return ethernet(kEtherIpv4,
                  ipv4(tcp(payload_bytes, source, destination), kProtocolTcp, source, destination));
}

inline void fix_ipv4_checksum(Bytes& frame) {
  std::byte* ip = &frame[kEthernetHeader];
  const std::size_t length =
      std::min<std::size_t>((std::to_integer<unsigned>(ip[0]) & 15) * 4, frame.size() - kEthernetHeader);
  std::memset(ip + 10, 0, 2);
  store_checksum(ip + 10, partial_sum(ip, length));
}

inline Bytes icmp(std::uint8_t type, std::uint8_t code, const Bytes& body, std::uint16_t mtu = 0) {
  Bytes bytes(kIcmpHeader + body.size());
  bytes[0] = std::byte{type};
  bytes[1] = std::byte{code};
  store_be(&bytes[6], mtu);
  std::copy(body.begin(), body.end(), bytes.begin() + kIcmpHeader);
  store_checksum(&bytes[2], partial_sum(bytes.data(), bytes.size()));
  return bytes;
}

inline ArpPacket parsed_arp(const Bytes& frame) {
  ArpPacket a;
  REQUIRE(frame.size() == kEthernetHeader + kArpPacket);
  REQUIRE(parse_arp(std::span(frame).subspan(kEthernetHeader), a) == ParseError::none);
  return a;
}

inline EthernetHeader parsed_ethernet(const Bytes& frame) {
  EthernetHeader h;
  REQUIRE(parse_ethernet(frame, h) == ParseError::none);
  return h;
}

}  // namespace mtcp::stack

// Frames as a peer of the stack would send them, right in every checksum.
#pragma once

#include "stack/wire/arp.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/icmp.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/tcp_header.hh"
#include "tests/fuzz/support.hh"

namespace mtcp::stack {

inline constexpr MacAddress kPeerMac{{2, 0, 0, 0, 0, 1}};
inline constexpr std::uint32_t kUs = 0x0a090002, kPeer = 0x0a090001;

inline Bytes frame_of(std::uint16_t type, std::size_t body) {
  Bytes frame(kEthernetHeader + body);
  write_ethernet(frame.data(), {FuzzPort::kMac, kPeerMac, type});
  return frame;
}

inline Bytes arp_frame(const ArpPacket& a) {
  Bytes frame = frame_of(kEtherArp, kArpPacket);
  write_arp(&frame[kEthernetHeader], a);
  return frame;
}

inline void put_tcp_checksum(std::byte* segment, std::size_t length, std::uint32_t source,
                             std::uint32_t destination) {
  std::memset(segment + kTcpChecksumOffset, 0, 2);
  store_checksum(
      segment + kTcpChecksumOffset,
      sum_of_pseudo_header(IpAddress::v4(source), IpAddress::v4(destination), true, kProtocolTcp, length) +
          partial_sum(segment, length));
}

// An IPv4 frame from the peer to us around `body`, which is complete for ICMP; for TCP the checksum is put
// in.
inline Bytes ipv4_frame(std::uint8_t protocol, const Bytes& body) {
  Bytes frame = frame_of(kEtherIpv4, kIpv4Header + body.size());
  std::byte* ip = &frame[kEthernetHeader];
  write_ipv4(ip, {.source = kPeer,
                  .destination = kUs,
                  .total_length = static_cast<std::uint16_t>(kIpv4Header + body.size()),
                  .protocol = protocol});
  if (!body.empty()) std::memcpy(ip + kIpv4Header, body.data(), body.size());
  if (protocol == kProtocolTcp && body.size() >= kTcpHeader)
    put_tcp_checksum(ip + kIpv4Header, body.size(), kPeer, kUs);
  return frame;
}

inline Bytes icmp_frame(std::uint8_t type, std::uint8_t code, std::uint16_t mtu, const Bytes& quoted) {
  Bytes body(kIcmpHeader + quoted.size());
  body[0] = std::byte{type};
  body[1] = std::byte{code};
  store_be(&body[6], mtu);
  if (!quoted.empty()) std::memcpy(&body[kIcmpHeader], quoted.data(), quoted.size());
  store_checksum(&body[2], partial_sum(body.data(), body.size()));
  return ipv4_frame(kProtocolIcmp, body);
}

// Makes whatever the fuzzer wrote pass the first checks: our MAC, our address, lengths and checksums.
inline void mend(Bytes& frame) {
  if (frame.size() < kEthernetHeader + kIpv4Header) return;
  std::memcpy(frame.data(), FuzzPort::kMac.bytes.data(), 6);
  if (load_be<std::uint16_t>(&frame[12]) != kEtherIpv4) return;
  std::byte* ip = &frame[kEthernetHeader];
  const std::size_t size = frame.size() - kEthernetHeader;
  ip[0] = std::byte{0x40} | (ip[0] & std::byte{0x0f});
  store_be(ip + 2, static_cast<std::uint16_t>(size));
  store_be(ip + 6, std::uint16_t{0});
  store_be(ip + 12, kPeer);
  store_be(ip + 16, kUs);
  const std::size_t header = (std::to_integer<std::size_t>(ip[0]) & 15) * 4;
  if (header < kIpv4Header || header > size) return;
  std::memset(ip + 10, 0, 2);
  store_checksum(ip + 10, partial_sum(ip, header));
  std::byte* body = ip + header;
  const std::size_t length = size - header;
  if (ip[9] == std::byte{kProtocolTcp} && length >= kTcpHeader) put_tcp_checksum(body, length, kPeer, kUs);
  if (ip[9] == std::byte{kProtocolIcmp} && length >= kIcmpHeader) {
    std::memset(body + 2, 0, 2);
    store_checksum(body + 2, partial_sum(body, length));
  }
}

}  // namespace mtcp::stack

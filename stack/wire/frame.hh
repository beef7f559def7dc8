// Where the headers of a frame lie, for those who pass it on, cut it or join it to others: the devices and steering. The stack
// itself takes frames in with ethernet.hh, ipv4.hh, ipv6.hh and tcp_header.hh. Nothing here has checked a checksum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/base/bytes.hh"
#include "stack/wire/address.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {

// A TCP segment in an Ethernet frame: whole (no fragment), and of IPv6 one without extension headers. Offsets in bytes from
// the frame's beginning.
struct TcpLayout {
  std::size_t ip = 0;
  std::size_t tcp = 0;
  std::size_t headers = 0;  // where the payload begins; 0: the frame is none
  std::size_t length = 0;   // of the frame, as the IP header says
  bool v4 = false;
};

// `start`: the first bytes of the frame, all headers at least. What it says of its length is not compared with anything.
[[nodiscard]] TcpLayout find_tcp(std::span<const std::byte> start);

// What the TCP header at `tcp` says, as find_tcp() has found it.
[[nodiscard]] inline std::uint16_t source_port(const std::byte* tcp) { return load_be<std::uint16_t>(tcp); }
[[nodiscard]] inline std::uint16_t destination_port(const std::byte* tcp) { return load_be<std::uint16_t>(tcp + 2); }
[[nodiscard]] inline std::uint32_t sequence_number(const std::byte* tcp) { return load_be<std::uint32_t>(tcp + 4); }
[[nodiscard]] inline std::uint8_t tcp_flags(const std::byte* tcp) { return std::to_integer<std::uint8_t>(tcp[kTcpFlagsOffset]); }
// The segment, whose header has been written already, ends the stream as well (FIN). `whole_sum`: its checksum is there, not only what the
// device adds the segment to.
void add_fin(std::byte* tcp, bool whole_sum);
// The IPv4 header at `ip` has no options, and says that nobody may cut the packet.
[[nodiscard]] bool is_plain_and_whole(const std::byte* ip);
// The EtherType; 0 if there is none.
[[nodiscard]] inline std::uint16_t type_of(std::span<const std::byte> frame) {
  return frame.size() < kEthernetHeader ? std::uint16_t{0} : load_be<std::uint16_t>(frame.data() + 12);
}

// Of a TCP segment of `length` bytes, header included, behind the IP header at `ip`: as the other sum_of_pseudo_header() (checksum.hh).
[[nodiscard]] std::uint64_t sum_of_pseudo_header(const std::byte* ip, bool v4, std::size_t length);

// The headers that say which flow a frame belongs to: its own, or those that an ICMP error quotes (RFC 792, RFC 4443). What
// was ours is the source in these.
struct FlowHeaders {
  bool found = false, v4 = false, quoted = false;
  std::span<const std::byte> ip, tcp;  // of the latter the ports at least

  // As of a segment that has come in.
  [[nodiscard]] FlowKey key() const;
};
[[nodiscard]] FlowHeaders find_flow_headers(std::span<const std::byte> frame);

// It tells all of a host's stacks where a neighbour is: an ARP reply or announcement (RFC 826), a neighbour advertisement
// (RFC 4861). A question is answered by whoever gets it.
[[nodiscard]] bool tells_address_to_all(std::span<const std::byte> frame);

}  // namespace mtcp::stack

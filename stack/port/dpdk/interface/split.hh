// Packets larger than the MTU, as a kernel peer on the same machine hands them over (TSO/GSO on veth, GRO on
// a NIC): cut into segments as a network card would have done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mtcp::stack::dpdk {

// Where a large TCP frame can be cut.
struct LargeFrame {
  std::size_t headers = 0;  // bytes: Ethernet, IP, TCP; 0: not a TCP packet that can be cut
  std::size_t tcp = 0;      // of these, those in front of the TCP header
  std::size_t payload = 0;  // bytes
  std::size_t segment = 0;  // bytes of payload in each piece but the last
  bool v4 = false;

  [[nodiscard]] std::size_t pieces() const { return (payload + segment - 1) / segment; }
};

// `start`: the first bytes of the frame, the headers at least; `length`: of the whole frame; `mtu`: of the
// pieces.
LargeFrame analyse_large(std::span<const std::byte> start, std::size_t length, std::size_t mtu);

// Turns a copy of the large frame's headers into those of piece `index`: lengths, identification, sequence
// number, flags, IPv4 checksum. The TCP checksum is not filled in.
void write_piece_headers(const LargeFrame& large, std::size_t index, std::byte* headers);

}  // namespace mtcp::stack::dpdk

// Segments that follow each other in one flow, put together into one frame of up to 64 KB (TSO): whoever is
// to have them as segments, the kernel or the card, cuts it again, and a kernel peer on the same machine
// takes it whole. The reverse of split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/packet/packet.hh"

namespace mtcp::stack::dpdk {

// What can leave as one frame.
struct MergedFrame {
  std::size_t packets = 0;
  std::size_t ip = 0;       // bytes in front of the IP header
  std::size_t tcp = 0;      // bytes in front of the TCP header; 0: the first packet is left as it is, alone
  std::size_t headers = 0;  // bytes: Ethernet, IP, TCP
  std::size_t segment = 0;  // bytes of payload in each segment that it is to be cut into, but the last
  std::size_t payload = 0;  // bytes, of all
  bool v4 = false;

  [[nodiscard]] std::size_t size() const { return headers + payload; }
};

inline constexpr std::size_t kMaxHeaders = 14 + 40 + 60;  // of a frame that is put together

// How many of `packets` from the front can leave as one; at least the first, and there is one. Of those with kExternal the payload
// is not looked at. A packet whose
// checksum the device is to fill in (kTxL4Offload) has `ip`, `tcp` and `headers` even if it stays alone.
MergedFrame merge(std::span<const Packet* const> packets);

// The headers of the frame that `packets` become, `merged.packets` of them: to `out`, kMaxHeaders bytes. The
// TCP checksum is that of the pseudo-header, as for a device that fills it in.
void write_merged_headers(const MergedFrame& merged, std::span<const Packet* const> packets, std::byte* out);

}  // namespace mtcp::stack::dpdk

// Payload that lies outside of its packet, for a port that gathers what it sends (Port::takes_external): nothing is copied on
// the way to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "stack/packet/packet.hh"

namespace mtcp::stack {

// Memory that packets refer to. Its owner keeps it where it is while there are references. Only a port reads it, by way of
// its kernel, for it may be gone by then (a mapped file that was cut off), and to read it here would end the process.
class ExternalMemory {
 public:
  ExternalMemory() = default;
  ExternalMemory(const ExternalMemory&) = delete;
  ExternalMemory& operator=(const ExternalMemory&) = delete;
  virtual ~ExternalMemory() = default;
  // Copies what is there from `offset` on, and zeros in place of what is gone.
  virtual void read(std::uint32_t offset, std::span<std::byte> out) const = 0;

  const std::byte* base = nullptr;
  std::size_t references = 0;  // packets
};

// At the beginning of the buffer of a packet with kExternal, in front of the longest headers. Such a packet's payload_offset is
// that of an empty one, whatever has been acknowledged of it.
struct External {
  ExternalMemory* memory;
  // Bytes of payload in each segment that the device cuts the packet into, as it was sent last; 0: it is one segment.
  std::uint16_t segment;
};

[[nodiscard]] inline External external_of(const Packet& p) {
  External e{};
  std::memcpy(&e.memory, p.buf, sizeof e.memory);
  std::memcpy(&e.segment, p.buf + sizeof e.memory, sizeof e.segment);
  return e;
}
inline void set_segment(Packet& p, std::uint32_t segment) {
  const auto n = static_cast<std::uint16_t>(segment);
  std::memcpy(p.buf + sizeof(ExternalMemory*), &n, sizeof n);
}
[[nodiscard]] inline const std::byte* external_payload(const Packet& p) { return external_of(p).memory->base + p.external_offset; }

// `p`, an empty packet, refers to the memory from `offset` on. Ends with drop_external().
void refer(Packet& p, ExternalMemory& memory, std::uint32_t offset);
// The whole frame in `p`, headers and payload, in one piece; for those who can't gather.
[[nodiscard]] std::vector<std::byte> copy_of_frame(const Packet& p);

}  // namespace mtcp::stack

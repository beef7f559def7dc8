#include "stack/packet/external.hh"

namespace mtcp::stack {

static_assert(sizeof(ExternalMemory*) + sizeof(std::uint16_t) + 14 + 40 + 60 <= kHeadroom, "the headers of a segment");

void refer(Packet& p, ExternalMemory& memory, std::uint32_t offset) {
  ExternalMemory* const m = &memory;
  std::memcpy(p.buf, &m, sizeof m);
  set_segment(p, 0);
  p.external_offset = offset;
  p.flags = static_cast<std::uint16_t>(p.flags | kExternal);
  ++memory.references;
}

void drop_external(Packet& p) {
  --external_of(p).memory->references;
  p.flags = static_cast<std::uint16_t>(p.flags & ~kExternal);
}

std::vector<std::byte> copy_of_frame(const Packet& p) {
  std::vector<std::byte> frame(p.len);
  const std::size_t headers = (p.flags & kExternal) != 0 ? p.len - p.payload_len : p.len;
  std::memcpy(frame.data(), p.data, headers);
  if (headers < frame.size()) external_of(p).memory->read(p.external_offset, std::span(frame).subspan(headers));
  return frame;
}

}  // namespace mtcp::stack

#include "stack/wire/tcp_options.hh"

#include <cstring>

#include "stack/base/bytes.hh"

namespace mtcp::stack {
namespace {

void read_sack(std::span<const std::byte> body, TcpOptions& out) {
  if (body.size() % 8 != 0 || body.empty()) return;
  for (out.sack_count = 0; out.sack_count < out.sack.size() && body.size() >= 8; body = body.subspan(8)) {
    out.sack[out.sack_count++] = {Seq(load_be<std::uint32_t>(body.data())),
                                  Seq(load_be<std::uint32_t>(body.data() + 4))};
  }
}

void read_option(std::uint8_t kind, std::span<const std::byte> body, bool syn, TcpOptions& out) {
  switch (kind) {
    case kOptionMss:
      if (syn && body.size() == 2) out.mss = load_be<std::uint16_t>(body.data());
      break;
    case kOptionWindowScale:
      if (syn && body.size() == 1) {
        out.has_window_scale = true;
        out.window_scale = std::min(std::to_integer<std::uint8_t>(body[0]), kMaxWindowScale);
      }
      break;
    case kOptionSackPermitted:
      if (syn && body.empty()) out.sack_permitted = true;
      break;
    case kOptionSack:
      read_sack(body, out);
      break;
    case kOptionTimestamps:
      if (body.size() == 8) {
        out.has_timestamps = true;
        out.ts_val = load_be<std::uint32_t>(body.data());
        out.ts_ecr = load_be<std::uint32_t>(body.data() + 4);
      }
      break;
    default:
      break;  // RFC 9293 MUST-6: options that we do not know are ignored
  }
}

}  // namespace

bool parse_tcp_options(std::span<const std::byte> bytes, bool syn, TcpOptions& out) {
  // What every data segment of a connection with timestamps carries (RFC 7323 appendix A).
  if (bytes.size() == 12 && load_be<std::uint32_t>(bytes.data()) == 0x0101080a) {
    out.has_timestamps = true;
    out.ts_val = load_be<std::uint32_t>(bytes.data() + 4);
    out.ts_ecr = load_be<std::uint32_t>(bytes.data() + 8);
    return true;
  }
  while (!bytes.empty()) {
    const auto kind = std::to_integer<std::uint8_t>(bytes[0]);
    if (kind == kOptionEnd) break;
    if (kind == kOptionNop) {
      bytes = bytes.subspan(1);
      continue;
    }
    if (bytes.size() < 2) return false;
    const auto length = std::to_integer<std::size_t>(bytes[1]);
    if (length < 2 || length > bytes.size()) return false;
    read_option(kind, bytes.subspan(2, length - 2), syn, out);
    const bool experiment = kind == kOptionExperiment && length >= 4 && load_be<std::uint16_t>(bytes.data() + 2) == kFastOpenMagic;
    if ((kind == kOptionFastOpen || experiment) && syn) out.fast_open = static_cast<std::uint8_t>(bytes.size());
    bytes = bytes.subspan(length);
  }
  return true;
}

bool read_fast_open(const Segment& s, FastOpenCookie& out) {
  if (s.options.fast_open == 0) return false;
  const std::byte* at = s.packet->data - s.options.fast_open;
  const bool experimental = std::to_integer<std::uint8_t>(at[0]) == kOptionExperiment;
  const std::size_t before = experimental ? 4 : 2;
  const auto length = std::to_integer<std::size_t>(at[1]) - before;
  if (length > out.bytes.size() || length % 2 != 0 || (length != 0 && length < 4)) return false;
  out = {};
  out.length = static_cast<std::uint8_t>(length);
  out.experimental = experimental;
  std::memcpy(out.bytes.data(), at + before, length);
  return true;
}

}  // namespace mtcp::stack

// A received TCP segment, parsed once and bounds-checked; after this nobody looks at headers again.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/seq.hh"
#include "stack/packet/packet.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

enum TcpFlag : std::uint8_t {
  kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10, kUrg = 0x20, kEce = 0x40, kCwr = 0x80,
};

struct SackBlock {
  Seq begin;  // first byte
  Seq end;    // one past the last
};

// What the options said; has_* tell which were there and well-formed.
struct TcpOptions {
  std::uint16_t mss = 0;              // RFC 9293 3.7.1; 0 if absent
  std::uint8_t window_scale = 0;      // RFC 7323; clamped to 14
  bool has_window_scale = false;
  bool has_timestamps = false;        // RFC 7323
  bool sack_permitted = false;        // RFC 2018
  std::uint8_t sack_count = 0;
  std::uint8_t fast_open = 0;         // RFC 7413, of a SYN: the option begins so many bytes before the payload; 0: none
  std::uint32_t ts_val = 0;
  std::uint32_t ts_ecr = 0;
  std::array<SackBlock, 4> sack{};
};

struct Segment {
  FlowKey key;              // local is where it was sent to
  Seq seq;
  Seq ack;                  // meaningful with kAck
  std::uint32_t window = 0; // as on the wire, unscaled
  std::uint32_t len = 0;    // payload bytes
  std::uint8_t flags = 0;   // TcpFlag bits
  std::uint8_t ecn = 0;     // the IP header's two ECN bits
  std::uint16_t urgent = 0; // with kUrg: the urgent pointer as on the wire
  TcpOptions options;
  Packet* packet = nullptr; // data/len are the payload; owned by whoever holds the Segment

  [[nodiscard]] bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
  // Length in sequence space: payload plus SYN and FIN.
  [[nodiscard]] std::uint32_t seq_len() const { return len + (has(kSyn) ? 1U : 0U) + (has(kFin) ? 1U : 0U); }
};

}  // namespace mtcp::stack

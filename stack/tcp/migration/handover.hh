// What one stack writes to another that takes over a connection which nobody has accepted yet (Steering::migrate): a
// description, then what the peer has sent so far. Both are of the same build, and their clocks are one.
#pragma once

#include <cstdint>
#include <type_traits>

#include "stack/wire/address.hh"

namespace mtcp::stack {

// Changes with every change of what follows.
inline constexpr std::uint32_t kHandoverVersion = 0x6d740006;

// Each message begins with one.
struct HandoverHead {
  // `passed`: a connection that has been accepted, for a stack that expects it.
  enum Kind : std::uint32_t { connection = 1, data, half_open, passed };
  std::uint32_t version = kHandoverVersion;
  std::uint32_t kind = 0;
  FlowKey key;
  std::uint32_t seq = 0;  // data: of the first byte behind this head
};
static_assert(sizeof(HandoverHead) == 48);

// What a handshake has settled.
struct HandoverTerms {
  std::uint32_t iss = 0, irs = 0;
  std::uint32_t ts_offset = 0, ts_recent = 0;  // RFC 7323
  std::uint32_t age_ms = 0;                    // since the connection or the half-open one was made
  std::uint16_t peer_mss = 536;                // as announced
  std::uint8_t snd_wscale = 0, rcv_wscale = 0;
  std::uint8_t timestamps = 0, wscale = 0, sack = 0;  // in use
  std::uint8_t ecn = 0;  // bits: in use, our ACKs carry ECE, the peer's packets are ECN-capable
};

// A SynEntry.
struct HandoverHalfOpen {
  HandoverHead head;
  HandoverTerms terms;
  std::uint32_t window = 0;  // bytes that were announced
  std::uint8_t retries = 0, acked = 0;
  std::uint16_t reserved = 0;
};

// A Connection in ESTABLISHED or CLOSE-WAIT that has nothing to send or to send again: its send queue needs no description.
struct HandoverConnection {
  HandoverHead head;
  HandoverTerms terms;
  std::uint32_t snd_nxt = 0, snd_wl1 = 0, snd_wl2 = 0;
  std::uint32_t snd_wnd = 0, max_window = 0;  // bytes
  std::uint32_t rcv_nxt = 0, rcv_adv = 0;
  std::uint32_t ts_recent_age = 0;  // seconds
  std::uint32_t data = 0;           // bytes in the messages that follow
  std::uint32_t path_mtu = 0;       // 0: nothing learned
  std::uint16_t mss = 536;
  std::uint8_t fin_received = 0;
  std::uint8_t reserved_byte = 0;
  std::uint32_t urgent_seq = 0;  // urgent.hh
  std::uint8_t urgent_state = 0, urgent_byte = 0;
  std::uint16_t reserved = 0;
  std::int64_t srtt = 0, rttvar = 0, rto = 0;  // nanoseconds
};
static_assert(std::is_trivially_copyable_v<HandoverConnection> && std::is_trivially_copyable_v<HandoverHalfOpen>);
static_assert(std::has_unique_object_representations_v<HandoverConnection> &&
              std::has_unique_object_representations_v<HandoverHalfOpen>);

}  // namespace mtcp::stack

// SYN-RECEIVED of a passive open (RFC 9293 3.10.7.4, RFC 4987 section 3.3): what must be remembered between
// SYN and ACK, and no more. Becomes a Connection when the handshake is complete.
#pragma once

#include <cstdint>

#include "stack/base/intrusive_list.hh"
#include "stack/base/seq.hh"
#include "stack/base/time.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class Listener;
struct Path;

// What both sides' SYNs agreed on; also what a SYN cookie has to carry.
struct SynTerms {
  std::uint16_t peer_mss = 536;  // as announced, RFC 9293 3.7.1's default if not
  std::uint8_t snd_wscale = 0;   // shift of the peer's windows
  bool wscale : 1 = false;       // RFC 7323 in use
  bool timestamps : 1 = false;
  bool sack : 1 = false;  // RFC 2018
  bool ecn : 1 = false;   // RFC 3168
};

struct SynEntry {
  FlowKey key;
  std::uint32_t hash = 0;   // in the flow table
  std::uint32_t index = 0;  // in the slab
  Seq iss, irs;
  std::uint32_t ts_recent = 0;  // RFC 7323
  std::uint32_t ts_offset = 0;
  SynTerms terms;
  std::uint8_t rcv_wscale = 0;  // shift of our windows
  std::uint8_t retries = 0;     // SYN-ACKs sent again
  bool published = false;  // Steering::publish
  bool acked = false;  // the ACK came, and the listener was not ready for it (TCP_DEFER_ACCEPT, full queue)
  bool fast_open = false;    // our answer has a Fast Open cookie ...
  bool experimental = false;  // ... in the option that the SYN had it in (FastOpenCookie)
  std::uint32_t window = 0;  // bytes we announced
  Listener* listener = nullptr;
  const Path* path = nullptr;
  Time created{};
  Time deadline{};  // next SYN-ACK
  Time last_oow_ack{};  // last ACK in answer to something unacceptable
  ListHook hook;    // in the list of those with as many retries
};

}  // namespace mtcp::stack

// Static tracepoints (USDT), for bpftrace, perf and SystemTap: each is a nop and a note in the library's ELF file. Their arguments are
// what the code has at hand there; a connection is named by the address of its FlowKey (stack/wire/address.hh: local and remote address
// of 16 bytes each, IPv4 as ::ffff:a.b.c.d, then both ports of 2 bytes). scripts/OPERATING.md shows how they are used.
#pragma once

#include <sys/sdt.h>

#include <cstdint>

namespace mtcp::stack {
struct FlowKey;
}

namespace mtcp::stack::probe {

#define MTCP_PROBE [[gnu::always_inline]] inline void

// A connect begins: its SYN is about to be sent.
MTCP_PROBE connect(const FlowKey& key) { STAP_PROBE1(mtcp, connect, &key); }
// The handshake is over, on either side.
MTCP_PROBE established(const FlowKey& key) { STAP_PROBE1(mtcp, established, &key); }
// The application has accepted it; how many still wait at the listener.
MTCP_PROBE accept(const FlowKey& key, std::uint32_t waiting) { STAP_PROBE2(mtcp, accept, &key, waiting); }
// The first data of the peer is there, in order.
MTCP_PROBE first_byte(const FlowKey& key) { STAP_PROBE1(mtcp, first_byte, &key); }
// Something is sent again: its sequence number, and bytes of data (0: SYN or FIN).
MTCP_PROBE retransmit(const FlowKey& key, std::uint32_t seq, std::uint32_t bytes) { STAP_PROBE3(mtcp, retransmit, &key, seq, bytes); }
// A packet is dropped: the name of the counter that says why.
MTCP_PROBE drop(const char* reason) { STAP_PROBE1(mtcp, drop, reason); }
// Another stack has asked for connections that wait here for an accept: the local port, the stack's number, and how many it gets.
MTCP_PROBE steal(std::uint16_t port, std::uint32_t stack, std::uint32_t connections) { STAP_PROBE3(mtcp, steal, port, stack, connections); }
// A connection goes to another stack; and it has come from one.
MTCP_PROBE migrate(const FlowKey& key) { STAP_PROBE1(mtcp, migrate, &key); }
MTCP_PROBE adopt(const FlowKey& key) { STAP_PROBE1(mtcp, adopt, &key); }

#undef MTCP_PROBE

}  // namespace mtcp::stack::probe

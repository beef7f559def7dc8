// LISTEN: a local endpoint, its half-open connections' count and its queue of established ones.
#pragma once

#include <cstdint>

#include "stack/socket_base.hh"
#include "stack/tcp/connection.hh"
#include "stack/tcp/fast_open.hh"

namespace mtcp::stack {

class Listener : public SocketBase {
 public:
  Listener() : SocketBase(Kind::listener) {}

  std::uint32_t index = 0;         // in the slab
  Endpoint local;
  SocketOptions options;           // what accepted connections start with
  std::uint32_t backlog = 128;     // bounds the accept queue, as listen(2)
  std::uint32_t accept_count = 0;  // connections in accept_queue
  std::uint32_t syn_count = 0;     // half-open connections
  bool v6_only = false;
  bool reuse_port = false;
  bool left = false;       // to another process: the application does not know it any more
  bool unwatched = false;  // nobody waits for its connections just now
  Time left_since{};
  Time offered{};          // to other stacks, and nobody has asked for any since (handover.cc)
  Duration defer_accept{};
  std::uint32_t fast_open_limit = 0;  // TCP_FASTOPEN: connections whose handshake is not over; 0: none
  FastOpenKeys fast_open_keys;
  IntrusiveList<Connection, &Connection::accept_hook> accept_queue;
};

}  // namespace mtcp::stack

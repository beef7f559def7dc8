// What a listener and a connection have in common as seen from above: a cookie and a place in the worker's list of
// sockets whose readiness has changed.
#pragma once

#include <cstdint>

#include "stack/base/intrusive_list.hh"

namespace mtcp::stack {

// Level-triggered state, as poll(2) would see it. The numbers are not those of <poll.h>.
struct Readiness {
  bool readable : 1 = false;   // data, end of stream, an error, or (listener) a connection to accept
  bool writable : 1 = false;   // sk_stream_is_writeable: free space is at least a third of what is in use
  bool peer_closed : 1 = false;  // FIN received or reset (EPOLLRDHUP)
  bool hung_up : 1 = false;    // both directions are closed (EPOLLHUP)
  bool error : 1 = false;      // an error is pending (EPOLLERR)
  bool urgent : 1 = false;     // an urgent byte can be read apart from the others (EPOLLPRI)
};

struct SocketBase {
  enum class Kind : std::uint8_t { connection, listener };
  // What happened since the last next_event(): an edge, for EPOLLET.
  enum Edge : std::uint8_t {
    kReadEdge = 1, kWriteEdge = 2, kCloseEdge = 4, kErrorEdge = 8,
    kUrgentEdge = 16,  // the peer has said where an urgent byte is (SIGURG)
    kStampEdge = 32,   // there is a StampReport
  };

  explicit SocketBase(Kind k) : kind(k) {}
  void* user = nullptr;  // the layer above; null once it has let go
  ListHook event_hook;   // linked while an event waits to be collected
  Kind kind;
  std::uint8_t edges = 0;  // Edge bits
};

}  // namespace mtcp::stack

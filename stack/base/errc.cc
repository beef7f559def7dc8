#include "stack/base/errc.hh"

namespace mtcp::stack {

const char* name(Errc e) {
  switch (e) {
    case Errc::ok: return "ok";
    case Errc::would_block: return "would block";
    case Errc::in_progress: return "in progress";
    case Errc::already_connected: return "already connected";
    case Errc::not_connected: return "not connected";
    case Errc::address_in_use: return "address in use";
    case Errc::address_unavailable: return "address unavailable";
    case Errc::connection_refused: return "connection refused";
    case Errc::connection_reset: return "connection reset";
    case Errc::connection_aborted: return "connection aborted";
    case Errc::timed_out: return "timed out";
    case Errc::host_unreachable: return "host unreachable";
    case Errc::network_unreachable: return "network unreachable";
    case Errc::protocol_unreachable: return "protocol unreachable";
    case Errc::broken_pipe: return "broken pipe";
    case Errc::no_buffers: return "no buffers";
    case Errc::invalid: return "invalid";
    case Errc::message_size: return "message too long";
    case Errc::protocol_error: return "protocol error";
    case Errc::not_supported: return "not supported";
    case Errc::shut_down: return "shut down";
  }
  return "unknown";
}

}  // namespace mtcp::stack

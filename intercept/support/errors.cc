#include "intercept/support/errors.hh"

#include <errno.h>

namespace mtcp::intercept {

int to_errno(stack::Errc e) {
  using stack::Errc;
  switch (e) {
    case Errc::ok:
      return 0;
    case Errc::would_block:
      return EAGAIN;
    case Errc::in_progress:
      return EINPROGRESS;
    case Errc::already_connected:
      return EISCONN;
    case Errc::not_connected:
      return ENOTCONN;
    case Errc::address_in_use:
      return EADDRINUSE;
    case Errc::address_unavailable:
      return EADDRNOTAVAIL;
    case Errc::connection_refused:
      return ECONNREFUSED;
    case Errc::connection_reset:
      return ECONNRESET;
    case Errc::connection_aborted:
      return ECONNABORTED;
    case Errc::timed_out:
      return ETIMEDOUT;
    case Errc::host_unreachable:
      return EHOSTUNREACH;
    case Errc::network_unreachable:
      return ENETUNREACH;
    case Errc::protocol_unreachable:
      return ENOPROTOOPT;  // as net/ipv4/icmp.c has it
    case Errc::broken_pipe:
      return EPIPE;
    case Errc::no_buffers:
      return ENOBUFS;
    case Errc::invalid:
      return EINVAL;
    case Errc::message_size:
      return EMSGSIZE;
    case Errc::protocol_error:
      return EPROTO;
    case Errc::not_supported:
      return EOPNOTSUPP;
    case Errc::shut_down:
      return ENETDOWN;
  }
  return EIO;
}

}  // namespace mtcp::intercept

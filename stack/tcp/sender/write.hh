// What every write of the application begins and ends with, whether its bytes are copied, lent or referred to. In line: a small message
// is little more than this.
#pragma once

#include <algorithm>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

// Bytes of `wanted`, at least one if that is not 0, that may be queued now.
[[gnu::always_inline]] inline Result<std::uint32_t> Sender::admit(Connection& c, std::size_t wanted) {
  if (const Errc e = cannot_send(c); e != Errc::ok) return e;
  if (wanted == 0) return std::uint32_t{0};
  (void)tcp_.memory.update();
  const std::uint32_t room = send_room(c);
  if (room == 0) return c.hot.wake_writer = true, Errc::would_block;
  return static_cast<std::uint32_t>(std::min<std::size_t>(wanted, room));
}

// `taken` bytes of those that were admitted have been queued.
[[gnu::always_inline]] inline Result<std::size_t> Sender::end_write(Connection& c, std::uint32_t taken, std::uint32_t admitted, bool more, Time now) {
  if (taken == 0) return nothing_taken(c);
  if (taken < admitted) stats.add(Counter::no_packets);
  finish_write(c, more, now);
  return std::size_t{taken};
}

}  // namespace mtcp::stack

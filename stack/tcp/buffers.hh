// How the two buffers of a connection are accounted. A limit is in bytes of payload, but a packet that holds
// few bytes still occupies a whole buffer: half of that is what it is charged at least, so that no peer and
// no application can make us hold more than twice the limit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/tcp/connection.hh"

namespace mtcp::stack {

// --- sending
[[nodiscard]] inline std::uint32_t send_used(const Connection& c) {
  return std::max(c.hot.snd_queued, c.tx.memory / 2);
}
// What the application may write ahead of a device that does not keep up. More would only leave the cache
// before it is sent, and come back into it twice.
inline constexpr std::uint32_t kBlockedLimit = 131072;
[[nodiscard]] inline std::uint32_t send_limit(const Connection& c) {
  return c.hot.tx_blocked ? std::min(c.tx.buffer, kBlockedLimit) : c.tx.buffer;
}
[[nodiscard]] inline std::uint32_t send_space(const Connection& c) {
  const std::uint32_t used = send_used(c), limit = send_limit(c);
  return used < limit ? limit - used : 0;
}
// Bytes in the queue that have not been sent yet.
[[nodiscard]] inline std::uint32_t unsent_bytes(const Connection& c) {
  if (c.tx.unsent == nullptr) return 0;
  return c.hot.snd_queued - (c.tx.unsent->seq - c.tx.queue.front()->seq);
}
// Linux's sk_stream_is_writeable: free space is at least half of what is in use; and TCP_NOTSENT_LOWAT.
[[nodiscard]] inline bool has_send_space(const Connection& c) {
  const std::uint32_t used = send_used(c), limit = send_limit(c);
  if (used >= limit || limit - used < used / 2) return false;
  return c.options.notsent_lowat == 0 || unsent_bytes(c) < c.options.notsent_lowat;
}

// --- receiving
// The largest window for a buffer of this size: half of it, as Linux with tcp_adv_win_scale = 1.
[[nodiscard]] inline std::uint32_t window_of_buffer(std::uint32_t buffer) { return buffer / 2; }
[[nodiscard]] inline std::uint32_t largest_window(const Connection& c) {
  const std::uint32_t w = window_of_buffer(c.rx.buffer);
  return c.options.window_clamp != 0 ? std::min(w, c.options.window_clamp) : w;
}
// Buffer memory that is never exceeded, whatever the peer sends.
[[nodiscard]] inline std::uint32_t receive_memory_limit(const Connection& c) {
  return c.rx.buffer + c.rx.buffer / 4 + 16384;
}

}  // namespace mtcp::stack

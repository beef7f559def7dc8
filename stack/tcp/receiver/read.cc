// The application's reads, and what they let the peer know.
#include <algorithm>
#include <cstring>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

Result<std::size_t> Receiver::nothing_there(Connection& c) {
  // After the peer's FIN there is nothing that an error could have cut off.
  if (c.hot.fin_received) return std::size_t{0};
  if (c.error != Errc::ok) return std::exchange(c.error, Errc::ok);
  if (c.read_shut || c.hot.state == State::closed || c.hot.state == State::time_wait) return std::size_t{0};
  return Errc::would_block;
}

Result<std::size_t> Receiver::receive(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now) {
  if (c.urgent) [[unlikely]]
    return take_around_mark(c, data, flags, now);
  return take(c, data, flags, now);
}

Result<std::size_t> Receiver::take(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now) {
  auto& rx = c.rx;
  if (rx.queued == 0) return nothing_there(c);
  std::size_t done = 0;
  Packet* p = rx.queue.front();
  std::size_t offset = 0;  // in p; only MSG_PEEK leaves data behind that it has passed
  for (const iovec& v : data) {
    for (std::size_t filled = 0; filled < v.iov_len && p != nullptr;) {
      const std::size_t n = std::min<std::size_t>(v.iov_len - filled, p->len - offset);
      if (!flags.discard) std::memcpy(static_cast<std::byte*>(v.iov_base) + filled, p->data + offset, n);
      filled += n;
      done += n;
      offset += n;
      if (offset < p->len) break;
      offset = 0;
      p = p->next;
      if (p != nullptr) __builtin_prefetch(p->data);
      if (flags.peek) continue;
      Packet* empty = rx.queue.pop_front();
      rx.memory -= empty->capacity;
      cache_.free(empty);
    }
  }
  if (flags.peek) return done;
  if (offset != 0) p->pull(offset);
  rx.queued -= static_cast<std::uint32_t>(done);
  after_read(c, static_cast<std::uint32_t>(done), now);
  return done;
}

// As Linux's tcp_recvmsg: of the last segment that a read touches.
Time Receiver::arrival_of(const Connection& c, std::size_t bytes) const {
  bytes = std::min<std::size_t>(bytes, readable_before_mark(c));
  const Packet* p = c.rx.queue.front();
  if (p == nullptr || bytes == 0) return Time{};
  for (; p->next != nullptr && bytes > p->len; p = p->next) bytes -= p->len;
  return p->sent_at;
}

void Receiver::after_read(Connection& c, std::uint32_t copied, Time now) {
  auto& h = c.hot;
  auto& rx = c.rx;
  measure_reader(c, copied, now);
  if (h.fin_received || !is_synchronized(h.state)) return;
  // As Linux's tcp_cleanup_rbuf: who has read all that there is will not answer for a while, unless he always does; and
  // by Nagle's algorithm, or for want of a larger window, the peer may have more that waits for this ACK.
  const bool all_read = rx.queued == 0 && h.last_ack_sent != h.rcv_nxt;
  if (all_read && (rx.pushed > 1 || (rx.pushed == 1 && !h.pingpong))) tcp_.request_ack(c);
  // The peer hears at once of a window that has opened by half or more (as Linux's tcp_cleanup_rbuf).
  const std::uint32_t current = after(h.rcv_adv, h.rcv_nxt) ? h.rcv_adv - h.rcv_nxt : 0;
  if (h.ack_now || current > largest_window(c) / 2) return;
  const std::uint32_t window = receive_window(c);
  if (window != 0 && window >= 2 * current) tcp_.request_ack(c);
}

}  // namespace mtcp::stack

// The windows and buffers of a connection: how they begin, what is announced, how they grow.
#include <algorithm>
#include <bit>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kSmallestBuffer = 2304;  // Linux's SOCK_MIN_RCVBUF

std::uint32_t receive_buffer(const SocketOptions& o, const TcpTuning& t) {
  return o.rcvbuf != 0 ? std::max(o.rcvbuf, kSmallestBuffer) : t.rmem.initial;
}

std::uint32_t clamped(std::uint32_t window, const SocketOptions& o) {
  return o.window_clamp != 0 ? std::min(window, o.window_clamp) : window;
}

}  // namespace

Receiver::Receiver(Tcp& tcp, std::uint64_t seed)
    : tcp_(tcp),
      options_(tcp.options),
      stats_(tcp.stats),
      cache_(tcp.cache),
      wheel_(tcp.wheel),
      // As many as there are packets: whoever has an island could as well have had one of those.
      islands_(static_cast<std::uint32_t>(std::clamp<std::size_t>(tcp.cache.pool().capacity(), 4096, 1U << 24)), seed) {}

std::uint8_t Receiver::choose_window_scale(const SocketOptions& o) const {
  if (!options_.tcp.window_scaling) return 0;
  // As Linux: for all that the buffer may grow to, though the window is half of it; one that was set does not grow.
  const std::uint32_t largest = clamped(
      o.rcvbuf != 0 ? window_of_buffer(receive_buffer(o, options_.tcp)) : options_.tcp.rmem.max, o);
  return static_cast<std::uint8_t>(std::min<unsigned>(std::bit_width(largest >> 16), 14));
}

std::uint32_t Receiver::initial_window(const SocketOptions& o) const {
  return std::min(clamped(window_of_buffer(receive_buffer(o, options_.tcp)), o), 65535U);
}

void Receiver::resize_buffer(Connection& c) {
  const auto& o = c.options;
  if (o.rcvbuf != 0 || c.rx.buffer == 0) c.rx.buffer = receive_buffer(o, options_.tcp);
  // As tcp_set_rcvlowat(): who waits for so much gets a window for it.
  if (o.rcvbuf == 0 && o.rcvlowat > window_of_buffer(c.rx.buffer)) [[unlikely]]
    c.rx.buffer = std::max(c.rx.buffer, 2 * std::min(o.rcvlowat, options_.tcp.rmem.max / 2));
}

void Receiver::start(Connection& c, Time now) {
  auto& h = c.hot;
  h.rcv_adv = h.rcv_nxt + initial_window(c.options);
  h.last_ack_sent = h.rcv_nxt;
  h.last_received = Tcp::ts_clock(now);
  auto& rx = c.rx;
  rx.mss_estimate = std::min<std::uint32_t>(h.mss, 536);
  rx.drs_start = now;
  rx.drs_space = std::min(initial_window(c.options), 10U * h.mss);
  rx.ts_recent_age = Tcp::ts_clock(now) / 1000;
  resize_buffer(c);
}

std::uint32_t Receiver::receive_limit(const Connection& c) const {
  if (tcp_.memory.exhausted()) return 0;
  // What the window has promised is kept as long as that can be.
  const std::uint32_t most = receive_memory_limit(c);
  return tcp_.memory.level() == MemoryBudget::Level::high ? std::min(most, tcp_.memory.share()) : most;
}

std::uint32_t Receiver::out_of_order_limit(const Connection& c) const {
  return tcp_.memory.exhausted() ? 0 : std::min(receive_memory_limit(c), tcp_.memory.out_of_order_share());
}

std::uint32_t Receiver::receive_window(Connection& c) {
  const auto& h = c.hot;
  const std::uint32_t unit = 1U << h.rcv_wscale;
  const std::uint32_t most = 65535U << h.rcv_wscale;
  const std::uint32_t limit = std::min({largest_window(c), most, tcp_.memory.share() / 2});
  const std::uint32_t current = after(h.rcv_adv, h.rcv_nxt) ? h.rcv_adv - h.rcv_nxt : 0;
  std::uint32_t free = c.rx.queued < limit ? limit - c.rx.queued : 0;
  if (c.rx.memory > std::min(c.rx.buffer, tcp_.memory.share())) free = 0;
  // RFC 9293 3.8.6.2.2: the right edge moves by a segment or half the buffer at least, and never to the left.
  if (const std::uint32_t down = free & ~(unit - 1); down >= current + std::min(limit / 2, c.rx.mss_estimate))
    return down;
  // RFC 7323 section 2.4: what was announced is rounded up, so that the scale does not take it back; but not
  // so often that tiny segments move the edge past the buffer. What was once announced is accepted in any
  // case.
  const std::uint32_t up = (current + unit - 1) & ~(unit - 1);
  return c.rx.queued + up <= limit + limit / 8 ? std::min(up, most) : current & ~(unit - 1);
}

// After a read of `copied` bytes.
void Receiver::measure_reader(Connection& c, std::uint32_t copied, Time now) {
  auto& rx = c.rx;
  // Dynamic right-sizing: twice what the application took in one RTT, so that the sender may double.
  rx.drs_copied += copied;
  const Duration rtt = rx.rtt != Duration::zero() ? rx.rtt : c.tx.srtt;
  if (rtt != Duration::zero() && now - rx.drs_start >= rtt) {
    if (rx.drs_copied > rx.drs_space) {
      if (c.options.rcvbuf == 0 && rx.buffer < options_.tcp.rmem.max) {
        const std::uint64_t window = 2 * std::uint64_t{rx.drs_copied} + 16 * std::uint64_t{rx.mss_estimate};
        const std::uint64_t growth = window * (rx.drs_copied - rx.drs_space) / std::max(rx.drs_space, 1U);
        const std::uint64_t buffer = std::min<std::uint64_t>(2 * (window + 2 * growth), options_.tcp.rmem.max);
        rx.buffer = std::max(rx.buffer, static_cast<std::uint32_t>(buffer));
      }
      rx.drs_space = rx.drs_copied;
    }
    rx.drs_copied = 0;
    rx.drs_start = now;
  }
}

}  // namespace mtcp::stack

// The send buffer: how large it is, what is free of it, who waits for that; and how a connection's sending begins.
#include <algorithm>

#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/controls.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kSmallestBuffer = 2304;  // Linux's SOCK_MIN_SNDBUF is of this order

}  // namespace

Sender::Sender(Tcp& tcp)
    : tcp_(tcp),
      options(tcp.options),
      stats(tcp.stats),
      cache(tcp.cache),
      tx(tcp.tx),
      network(tcp.network),
      wheel(tcp.wheel),
      port(tcp.port),
      sums_payload(tcp.sums_payload),
      configured_(configured_congestion_control(options.tcp.congestion_control)) {}

Sender::~Sender() = default;

void Sender::start(Connection& c, Time now) {
  auto& h = c.hot;
  const auto& d = options.tcp;
  auto& t = c.tx;
  choose_control(c);
  // RFC 6928; RFC 5681 section 3.1: one segment if the SYN was lost. As Linux, which believes it the second time: one SYN
  // too many is soon sent (RFC 6298 appendix A), or has met what is left of an earlier connection.
  t.cc->start(c, t.retries > 1 ? h.mss : d.initial_window * h.mss, now);
  auto& r = c.recovery;
  r.end = r.former_end = r.rack_round = c.iss;
  t.round_end = h.snd_una;
  t.small_end = t.pushed = h.snd_una;
  t.max_window = std::max(t.max_window, h.snd_wnd);
  t.last_sent = now;
  t.backoff = 0;
  if (t.retries != 0) [[unlikely]] end_timeouts(c, now);
  t.first_unanswered = Time{};
}

const CongestionControl& Sender::control_for(const SocketOptions& o) const { return choose_congestion_control(o, configured_); }

void Sender::choose_control(Connection& c) {
  c.tx.cc = &control_for(c.options);
  if (!c.tx.cc->has_model() && c.options.max_pacing_rate == kUnlimitedRate && c.pacing == nullptr) [[likely]] return;
  if (!prepare_pacing(c) && c.tx.cc->has_model()) c.tx.cc = &cubic();  // no memory for a model
}

void Sender::on_options(Connection& c, const SocketOptions& old, Time now) {
  auto& h = c.hot;
  const CongestionControl* const former = c.tx.cc;
  choose_control(c);
  if (c.tx.cc != former) {
    c.congestion.fill(std::byte{0});
    c.tx.cc->start(c, h.cwnd, now);
  }
  if (c.options.max_segment != 0 && c.options.max_segment < h.mss) h.mss = std::max<std::uint16_t>(c.options.max_segment, 64);
  if (old.cork && !c.options.cork) h.more = false;
  // As Linux: to switch Nagle's algorithm off sends what cork and MSG_MORE hold back, too.
  push(c, now, c.options.nodelay && !old.nodelay);
}

void Sender::resize_buffer(Connection& c) {
  const auto& o = c.options;
  const auto& d = options.tcp;
  if (o.sndbuf != 0) {
    c.tx.buffer = std::max(o.sndbuf, kSmallestBuffer);
    return;
  }
  // Unless it was asked for, room for what the path will take soon: the buffer must not be what limits slow
  // start.
  std::uint64_t start = std::max(2 * std::uint32_t{c.hot.cwnd}, 4 * d.initial_window * c.hot.mss);
  // As tcp_sndbuf_expand(): by what segments are charged.
  const std::size_t charge = tcp_.memory.buffer() / 2;
  if (c.hot.mss < charge) [[unlikely]] start = start * charge / c.hot.mss;
  start = std::max<std::uint64_t>(d.wmem.initial, start);
  c.tx.buffer = std::max(c.tx.buffer, static_cast<std::uint32_t>(std::min<std::uint64_t>(start, d.wmem.max)));
}

std::uint32_t Sender::send_room(const Connection& c) const {
  const MemoryBudget& memory = tcp_.memory;
  const std::uint32_t share = memory.share();
  if (share == UINT32_MAX) [[likely]] return send_space(c);
  // Its ACKs will wake it; who has nothing in flight would sleep for ever.
  if (c.tx.memory != 0 && (memory.exhausted() || share <= c.tx.memory)) return 0;
  // By packets: small segments take as many of them as large ones.
  const std::uint64_t packets = std::max<std::size_t>((share - c.tx.memory) / memory.buffer(), 1);
  const std::uint32_t segment = std::min<std::uint32_t>(c.hot.mss, std::max(c.tx.max_window / 2, 64U));
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(send_space(c), packets * segment));
}

bool Sender::is_writable(const Connection& c) const { return send_room(c) != 0 && has_send_space(c); }

// As Linux's tcp_chrono_start and _stop.
void Sender::note_wait(Connection& c, Connection::Waits::For what, Time now) {
  using For = Connection::Waits::For;
  auto& w = c.waits;
  if (w.now_for == what) return;
  const Duration t = now.time_since_epoch();
  if (w.now_for != For::none) (w.now_for == For::window ? w.for_window : w.for_buffer) += t;
  if (what != For::none) (what == For::window ? w.for_window : w.for_buffer) -= t;
  w.now_for = what;
}

void Sender::end_waits(Connection& c, Time now) {
  note_wait(c, Connection::Waits::For::none, now);
  if (!c.tx.queue.empty()) c.waits.busy += now.time_since_epoch();
  end_timeouts(c, now);
}

void Sender::wake_if_writable(Connection& c, Time now) {
  if (!is_writable(c)) return;
  c.hot.wake_writer = false;
  if (c.waits.now_for == Connection::Waits::For::buffer) note_wait(c, Connection::Waits::For::none, now);
  tcp_.raise(c, SocketBase::kWriteEdge);
}

void Sender::free_queue(Connection& c) {
  while (Packet* p = c.tx.queue.pop_front()) release(p);
  while (Packet* p = c.tx.lent.pop_front()) cache.free(p);
  if (c.tx.scoreboard != nullptr) drop_scoreboard(c);
  if (c.pacing != nullptr) drop_pacing(c);
  c.tx.unsent = nullptr;
  c.tx.memory = c.hot.snd_queued = 0;
}

}  // namespace mtcp::stack

// RFC 9293 section 3.8.6.2.1 and what may be sent now: windows, Nagle, cork; segments and their headers.
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/tcp.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

// Packets that may wait for the device before connections do.
constexpr std::size_t kTxBacklog = 6 * Sender::kTxBurst;

// True if the FIN follows directly on this packet and may or must go with it.
bool carries_fin(const Connection& c, const Packet* p) {
  const auto& h = c.hot;
  if (!h.fin_queued || p->next != nullptr) return false;
  if (h.fin_sent) return p->seq + p->payload_len + 1 == h.snd_nxt;
  return before(p->seq + p->payload_len, h.snd_una + h.snd_wnd);  // the FIN needs room in the window too
}

// What is sent so soon after something has come is likely to be followed by the next answer, as Linux sees it.
bool heard_lately(const Connection& c, Time now) {
  return Tcp::ts_clock(now) - c.rx.last_data < c.rx.ato;  // which is 0 before there was any
}

// RFC 9293 3.7.4 (Nagle) as Minshall changed it and Linux does it: a small segment waits only for another
// small one. `p` is the last packet of the queue and not full.
bool must_wait(const Connection& c) {
  const auto& h = c.hot;
  if (h.fin_queued) return false;
  if (c.options.cork || h.more) return true;
  if (c.options.nodelay) return false;
  return h.snd_una != h.snd_nxt && after(c.tx.small_end, h.snd_una) &&
         at_or_before(c.tx.small_end, h.snd_nxt);
}

// RFC 5681 section 4.1 and RFC 2861: half the window for each RTO that nothing was sent.
void restart_after_idle(Connection& c, const TcpTuning& tuning, Time now) {
  auto& h = c.hot;
  const Duration rto = backed_off(c.tx.rto, 0, tuning);
  Duration idle = now - c.tx.last_sent;
  if (idle <= rto) return;
  c.tx.ssthresh = std::max(c.tx.ssthresh, h.cwnd - h.cwnd / 4);
  const std::uint32_t restart = std::min(tuning.initial_window * std::uint32_t{h.mss}, h.cwnd);
  for (; idle > rto && h.cwnd > restart; idle -= rto) h.cwnd /= 2;
  h.cwnd = std::max(h.cwnd, restart);
  c.tx.cwnd_acked = 0;
}

}  // namespace

void Sender::release(Packet* p) {
  // A packet that the device still reads goes back to its pool, which waits for the device; only then is it
  // used again.
  if (port != nullptr && (p->flags & (kKeep | kQueued)) == kKeep && port->busy(*p)) {
    p->pool->free(&p, 1);
    return;
  }
  cache.free(p);
}

bool Sender::transmit(Connection& c, Packet* p, Time now) {
  if ((p->flags & kQueued) != 0) return false;
  auto& h = c.hot;
  // Built before the path's MTU was known: on_path_mtu() could not cut it then. Without a packet it goes as
  // it is.
  if (p->payload_len > h.mss) [[unlikely]]
    split(c, p, h.mss);
  const bool again = p->transmissions != 0;
  Packet* out = p;
  if (again && port != nullptr && port->busy(*p)) {
    // The device still reads the old headers: send a copy.
    out = cache.alloc();
    if (out == nullptr) return stats.add(Counter::no_packets), false;
    std::memcpy(out->data, p->buf + p->payload_offset, p->payload_len);
    out->payload_len = p->payload_len;
    out->payload_sum = p->payload_sum;
    out->flags = static_cast<std::uint16_t>(p->flags & kPayloadSum);
  } else {
    p->flags |= kKeep;
  }
  out->data = out->buf + out->payload_offset;
  out->len = out->payload_len;
  std::uint8_t flags = kAck;
  if (p->next == nullptr) flags |= kPsh;
  if (carries_fin(c, p)) flags |= kFin;
  tcp_.write_header(c, *out, p->seq, flags, now);
  p->sent_at = now;
  if (p->transmissions != UINT8_MAX) ++p->transmissions;
  stats.add(Counter::segments_sent);
  if (again) {
    ++c.retransmits;
    stats.add(Counter::retransmitted_segments);
  } else {
    h.snd_nxt = p->seq + p->payload_len;
  }
  if ((flags & kFin) != 0 && !h.fin_sent) {
    h.fin_sent = true;
    h.snd_nxt += 1;
  }
  c.tx.last_sent = now;
  network.output_tcp(out, c.key.local, c.key.remote, *c.path, TxPriority::data, now);
  return true;
}

bool Sender::must_stop(Connection& c) {
  if (c.hot.tx_blocked) return true;
  if (port == nullptr || c.path->local || tx.size() < kTxBurst) return false;
  if (tx.size() % kTxBurst != 0 && tx.size() < kTxBacklog) return false;
  // In bursts, while the data is still in the cache; and no more waits here than keeps the device busy, so
  // that the window measures the path and not this queue.
  if (!device_full) device_full = !tx.flush(*port);
  if (tx.size() < kTxBacklog) return false;
  blocked.push_back(c);
  c.hot.tx_blocked = true;
  if (!is_writable(c)) c.hot.wake_writer = true;
  return true;
}

void Sender::push(Connection& c, Time now, bool override) {
  auto& h = c.hot;
  auto& t = c.tx;
  if (t.lost != nullptr) retransmit_lost(c, now);
  if (t.unsent == nullptr && (!h.fin_queued || h.fin_sent)) return;
  if (h.state < State::established || h.state > State::last_ack || t.lost != nullptr) return;
  if (h.snd_una == h.snd_nxt && options.tcp.slow_start_after_idle) restart_after_idle(c, options.tcp, now);
  const Seq edge = h.snd_una + h.snd_wnd;
  const std::uint32_t full = std::min<std::uint32_t>(h.mss, std::max(t.max_window / 2, 64U));
  const bool replying = h.rcv_nxt != h.last_ack_sent || heard_lately(c, now);
  bool sent = false;
  h.cwnd_limited = false;
  while (Packet* p = t.unsent) {
    if (after(p->seq + p->payload_len, edge)) break;
    if (h.flight() + p->payload_len > h.cwnd && h.flight() != 0) {
      h.cwnd_limited = true;
      break;
    }
    const bool small = p->payload_len < full;
    if (small && p->next == nullptr && !override && must_wait(c)) break;
    if (must_stop(c) || !transmit(c, p, now)) break;
    if (small) t.small_end = p->seq + p->payload_len;
    t.unsent = p->next;
    sent = true;
  }
  if (sent && replying) h.pingpong = true;
  if (t.unsent == nullptr && h.fin_queued && !h.fin_sent && before(h.snd_nxt, edge)) {
    send_fin(c, now);
    sent = true;
  }
  if (h.snd_una == h.snd_nxt) {
    if (t.unsent != nullptr || (h.fin_queued && !h.fin_sent)) arm_probe(c, now);
  } else if (sent && (t.probing || !c.retransmit_timer.armed())) {
    arm_retransmit(c, now);
  }
}

void Sender::push_blocked(Time now) {
  // Until one of them finds the device full again. That one goes to the end of the list, so each has its
  // turn, and thousands that wait do not keep this stack from receiving, which is what the peer waits for.
  while (Connection* c = blocked.pop_front()) {
    c->hot.tx_blocked = false;
    push(*c, now);
    wake_writer(*c);
    if (c->hot.tx_blocked) break;
  }
}

void Sender::send_fin(Connection& c, Time now) {
  auto& h = c.hot;
  Packet* p = cache.alloc();
  if (p == nullptr) return stats.add(Counter::no_packets);
  const bool again = h.fin_sent;
  if (!again) {
    h.fin_sent = true;
    h.snd_nxt += 1;
  } else {
    ++c.retransmits;
    stats.add(Counter::retransmitted_segments);
  }
  tcp_.write_header(c, *p, h.snd_nxt - 1, kAck | kFin, now);
  stats.add(Counter::segments_sent);
  c.tx.last_sent = now;
  // It must not overtake our own data in the transmit queue.
  const bool alone = h.snd_una + 1 == h.snd_nxt;
  network.output_tcp(p, c.key.local, c.key.remote, *c.path, alone ? TxPriority::control : TxPriority::data,
                     now);
}

}  // namespace mtcp::stack

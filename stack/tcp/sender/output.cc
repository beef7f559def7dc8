// RFC 9293 section 3.8.6.2.1 and what may be sent now: windows, Nagle, cork; segments and their headers.
#include <algorithm>

#include "stack/packet/external.hh"
#include "stack/port/port.hh"
#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"
#include "stack/tcp/urgent.hh"
#include "stack/wire/frame.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/ipv6.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

// Packets that may wait for the device before connections do.
constexpr std::size_t kTxBacklog = 6 * kTxBurst;
constexpr std::uint32_t kDefaultMss = 536;
constexpr std::uint32_t kLeastSegment = 48;  // Linux: 68 with the header

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
[[gnu::always_inline]] inline bool must_wait(const Connection& c) {
  const auto& h = c.hot;
  if (h.fin_queued) return false;
  if (c.options.cork || h.more) return !in_urgent_mode(c);
  if (c.options.nodelay) return false;
  return h.snd_una != h.snd_nxt && after(c.tx.small_end, h.snd_una) &&
         at_or_before(c.tx.small_end, h.snd_nxt) && !in_urgent_mode(c);
}

// What was written in front of a file: they share segments on the wire (stack/port/dpdk/interface/merge.hh).
bool is_continued(const Packet& p) { return p.next != nullptr && (p.next->flags & kExternal) != 0; }

// Nothing will follow on `p`, of several that leave now, for whatever reason. In flight there will be something.
bool ends_burst(const Connection& c, const Packet& p, std::uint32_t full, bool override) {
  const auto& h = c.hot;
  const Packet* next = p.next;
  if (next == nullptr) return true;
  const std::uint32_t n = std::min<std::uint32_t>(next->payload_len, full);
  if (after(next->seq + n, h.snd_una + h.snd_wnd) || h.flight() + p.payload_len + n > h.cwnd) return true;
  return next->next == nullptr && !override && next->payload_len < full && must_wait(c);
}

// As Linux's tcp_cwnd_validate: whether the window was the limit is asked of a whole round trip, so that an application
// which pauses for a moment does not stop its growth (RFC 7661).
void note_use_of_window(Connection& c, bool limited) {
  auto& h = c.hot;
  auto& t = c.tx;
  const std::uint32_t flight = h.flight();
  limited = limited || flight + h.mss > h.cwnd;
  if (!before(h.snd_una, t.round_end) || limited || (!h.cwnd_limited && flight > t.max_flight)) {
    h.cwnd_limited = limited;
    t.max_flight = flight;
    t.round_end = h.snd_nxt;
  }
}

// Linux's tcp_bound_to_half_wnd: a peer whose whole window is small gets segments of half of it, so that there are always
// two to keep the ACKs coming.
std::uint32_t largest_segment(const Connection& c) {
  const std::uint32_t window = c.tx.max_window, mss = c.hot.mss;
  const std::uint32_t bound = window > kDefaultMss ? window / 2 : window;
  return bound == 0 ? mss : std::min(mss, std::max(bound, kLeastSegment));
}

}  // namespace

void Sender::release(Packet* p) {
  // A packet that the device still reads goes back to its pool, which waits for the device; only then is it
  // used again.
  if (port != nullptr && (p->flags & (kKeep | kQueued)) == kKeep && port->busy(*p)) {
    if ((p->flags & kExternal) != 0) drop_external(*p);
    p->pool->free(&p, 1);
    return;
  }
  cache.free(p);
}

// With data.
void Sender::on_fin_sent(Connection& c) {
  auto& h = c.hot;
  if (!h.fin_sent) h.snd_nxt += 1;
  h.fin_sent = true;
  c.recovery.fin_lost = false;
  if (c.tx.scoreboard != nullptr) count_left(c);
}

bool Sender::transmit(Connection& c, Packet* p, Time now) {
  if ((p->flags & kQueued) != 0) return false;
  auto& h = c.hot;
  // Built before the path's MTU was known: on_path_mtu() could not cut it then. Without a packet it goes as
  // it is.
  const bool again = p->transmissions != 0;
  if (!again && p->payload_len > h.mss) [[unlikely]] {
    const std::uint32_t segment = (p->flags & kExternal) != 0 ? external_of(*p).segment : 0U;
    if (segment == 0 || segment > h.mss)
      (void)split(c, p, h.mss);
    else
      note_segments(c, *p, now);
  }
  Packet* out = p;
  if (again && port != nullptr && port->busy(*p)) {
    // The device still reads the old headers: send a copy.
    out = cache.alloc();
    if (out == nullptr) return stats.add(Counter::no_packets), false;
    out->payload_len = p->payload_len;
    if ((p->flags & kExternal) != 0) {
      refer(*out, *external_of(*p).memory, p->external_offset);
    } else {
      std::memcpy(out->data, p->buf + p->payload_offset, p->payload_len);
      out->payload_sum = p->payload_sum;
      out->flags = static_cast<std::uint16_t>(p->flags & kPayloadSum);
    }
  } else {
    p->flags |= kKeep;
  }
  out->data = out->buf + out->payload_offset;
  out->len = out->payload_len;
  static_assert(int{kPush} == int{kPsh} && int{kUrgent} == int{kUrg});
  auto flags = static_cast<std::uint8_t>(kAck | (p->marks & (kPush | kUrgent)));
  if (carries_fin(c, p)) flags |= kFin;
  tcp_.write_header(c, *out, p->seq, flags, now);
  // Each its own: RACK asks which of two was sent later, and a burst has one time.
  p->sent_at = latest_stamp_ = std::max(now, latest_stamp_ + Duration(1));
  if (is_paced(c)) [[unlikely]] note_paced(c, *p);
  if (p->transmissions != UINT8_MAX) ++p->transmissions;
  stats.add(Counter::segments_sent);
  ++c.data_segments_sent;
  if (again) {
    if (ConnectionExtras* x = tcp_.need_extras(c); x != nullptr) x->bytes_resent += p->payload_len;
    ++c.retransmits;
    stats.add(Counter::retransmitted_segments);
    probe::retransmit(c.key, p->seq.value(), p->payload_len);
  } else {
    h.snd_nxt = p->seq + p->payload_len;
    if (c.tx.scoreboard != nullptr && !c.tx.scoreboard->append(p)) forget_marks(c);
  }
  if ((flags & (kFin | kUrg)) != 0) {
    if ((flags & kUrg) != 0) [[unlikely]] point_at_urgent(c, *out, p->seq);
    if ((flags & kFin) != 0) on_fin_sent(c);
  }
  if (h.phase > Phase::disorder) c.tx.cc->on_sent(c, p->payload_len);
  c.tx.last_sent = now;
  network.output_tcp(out, c.key.local, c.key.remote, *c.path, TxPriority::data, now);
  if (c.stamped) [[unlikely]] stamp_sent(c, *p, *out, now);
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

// `full`: bytes of a segment that need not wait for more.
inline bool Sender::may_send(const Connection& c, const Packet& p, std::uint32_t full, bool override, bool& by_cwnd, bool& by_window) {
  const auto& h = c.hot;
  if (p.seq + p.payload_len - h.snd_una > h.snd_wnd) return by_window = true, false;
  if (h.flight() + p.payload_len > h.cwnd && h.flight() != 0) return by_cwnd = true, false;
  return p.next != nullptr || override || p.payload_len >= full || !must_wait(c);
}

// Sends new data as far as it may. True if there was any.
[[gnu::always_inline]] inline bool Sender::push_new(Connection& c, Time now, bool override) {
  auto& h = c.hot;
  auto& t = c.tx;
  const std::uint32_t full = largest_segment(c);
  bool limited = false, by_window = false;
  std::size_t sent = 0;
  while (Packet* p = t.unsent) {
    if (p->payload_len > full && !cut_to_leave(c, p, full)) break;
    // The rest of one that was cut does not go alone.
    if (p->payload_len < full && p->next != nullptr) [[unlikely]] {
      const Seq edge = h.snd_una + h.snd_wnd;
      fill(c, p, before(p->seq, edge) ? std::min(full, edge - p->seq) : 0);
    }
    if (!may_send(c, *p, full, override, limited, by_window) || must_stop(c)) break;
    if (is_paced(c) && must_pace(c, now)) [[unlikely]] break;
    // As Linux: PSH ends each frame of several segments, so that it is not held back on its way.
    if (sent != 0 && ((sent + 1) % kTxBurst == 0 || ends_burst(c, *p, full, override)))
      p->marks = static_cast<std::uint8_t>(p->marks | kPush);
    if (!transmit(c, p, now)) break;
    if (p->payload_len < full && !is_continued(*p)) t.small_end = p->seq + p->payload_len;
    t.unsent = p->next;
    ++sent;
  }
  using For = Connection::Waits::For;
  if (by_window)
    note_wait(c, For::window, now);
  else if (c.waits.now_for == For::window) [[unlikely]]
    note_wait(c, For::none, now);
  if (sent != 0 || limited) {
    note_use_of_window(c, limited);
    const std::uint32_t least = options.tcp.initial_window * h.mss;
    if (h.cwnd > least && options.tcp.slow_start_after_idle) t.cc->on_use(c, h.flight(), least, now);
  }
  return sent != 0;
}

void Sender::push_waiting(Connection& c, Time now, bool override) {
  auto& h = c.hot;
  auto& t = c.tx;
  auto& r = c.recovery;
  if (t.scoreboard != nullptr && !r.send_new_first && !resend_lost(c, now)) return;
  if (t.unsent == nullptr && (!h.fin_queued || h.fin_sent)) return;
  if (h.state < State::established || h.state > State::last_ack) return;
  // A FIN alone uses no window, so it takes none away (as Linux).
  if (h.snd_una == h.snd_nxt && t.unsent != nullptr && (is_paced(c) || now - t.last_sent > t.rto)) begin_after_idle(c, now);
  const bool replying = !h.pingpong && (h.rcv_nxt != h.last_ack_sent || heard_lately(c, now));
  bool sent = t.unsent != nullptr && push_new(c, now, override);
  if (sent && replying) h.pingpong = true;
  if (t.unsent == nullptr && h.fin_queued && !h.fin_sent && before(h.snd_nxt, h.snd_una + h.snd_wnd)) {
    send_fin(c, now);
    sent = true;
  }
  if (r.send_new_first) {
    // RFC 5682 section 2.1 step 2b: without new data the question can't be asked.
    r.send_new_first = false;
    if (!after(h.snd_nxt, r.end)) {
      r.frto = false;
      (void)resend_lost(c, now);
    }
  }
  if (h.snd_una == h.snd_nxt) {
    if (is_paced(c) && c.pacing->index != UINT32_MAX) return;  // that timer comes first
    if (t.unsent != nullptr || (h.fin_queued && !h.fin_sent)) arm_probe(c, now);
  } else if (sent && (!c.retransmit_timer.armed() || t.timer_use == TimerUse::window ||
                      t.timer_use == TimerUse::tail_probe)) {
    arm_after_progress(c, now);
  }
}

// RFC 5681 section 4.1.
void Sender::begin_after_idle(Connection& c, Time now) {
  if (is_paced(c) && c.tx.cc->has_model()) c.tx.cc->on_flight_begins(c, now);
  const Duration idle = now - c.tx.last_sent;
  if (idle <= backed_off(c.tx.rto, 0, options.tcp)) return;
  const std::uint32_t restart = options.tcp.slow_start_after_idle ? options.tcp.initial_window * c.hot.mss : UINT32_MAX;
  c.tx.cc->on_idle(c, idle, restart, now);
}

void Sender::push_blocked(Time now) {
  // Until one of them finds the device full again. That one goes to the end of the list, so each has its
  // turn, and thousands that wait do not keep this stack from receiving, which is what the peer waits for.
  while (Connection* c = blocked.pop_front()) {
    c->hot.tx_blocked = false;
    push(*c, now);
    wake_writer(*c, now);
    if (c->hot.tx_blocked) break;
  }
}

// As in Linux, what has been written before and has not left yet takes it along: one packet less for whoever closes at once.
bool Sender::send_fin_with_data(Connection& c) {
  Packet* last = c.tx.queue.back();
  if (last == nullptr || (last->flags & kQueued) == 0 || last->seq + last->payload_len != c.hot.snd_nxt || c.stamped) return false;
  add_fin(last->data + kEthernetHeader + (c.key.local.is_v4() ? kIpv4Header : kIpv6Header), (last->flags & kTxL4Offload) == 0);
  on_fin_sent(c);
  return true;
}

void Sender::send_fin(Connection& c, Time now) {
  auto& h = c.hot;
  if (!h.fin_sent && send_fin_with_data(c)) return;
  Packet* p = cache.alloc_little();
  if (p == nullptr) return stats.add(Counter::no_packets);
  const bool again = h.fin_sent;
  if (!again) {
    h.fin_sent = true;
    h.snd_nxt += 1;
  } else {
    ++c.retransmits;
    stats.add(Counter::retransmitted_segments);
    probe::retransmit(c.key, (h.snd_nxt - 1).value(), 0);
    c.recovery.fin_lost = false;
    count_left(c);
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

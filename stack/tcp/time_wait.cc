// TIME-WAIT: 60 seconds as in Linux, in the order of entering, so that one list is all the timer there is.
// RFC 9293 3.6.1 and 3.10.7.4, RFC 1337 (RST may be ignored), RFC 6191 (reuse by a new connection). In the order of Linux's
// tcp_timewait_state_process().
#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
constexpr std::uint32_t kTimeWaitMs = 60'000;
constexpr std::uint32_t kNone = Slab<TimeWaitEntry>::kNone;
constexpr int kMaxPerTick = 4096;
std::uint32_t ms_of(Time t) { return static_cast<std::uint32_t>(TimerWheel::tick_of(t)); }
}  // namespace

void Tcp::append_time_wait(std::uint32_t index, Time now) {
  TimeWaitEntry& e = priv->time_waits.at(index);
  e.entered_ms = ms_of(now);
  e.next = kNone;
  e.prev = priv->tw_newest;
  (e.prev == kNone ? priv->tw_oldest : priv->time_waits.at(e.prev).next) = index;
  priv->tw_newest = index;
}

void Tcp::unlink_time_wait(TimeWaitEntry& e) {
  (e.prev == kNone ? priv->tw_oldest : priv->time_waits.at(e.prev).next) = e.next;
  (e.next == kNone ? priv->tw_newest : priv->time_waits.at(e.next).prev) = e.prev;
}

void Tcp::drop_time_wait(std::uint32_t index) {
  TimeWaitEntry& e = priv->time_waits.at(index);
  flows.erase(flows.hash(e.key), FlowRef(FlowRef::Kind::time_wait, index));
  unlink_time_wait(e);
  if (e.holds_port) priv->ports.leave_time_wait(e.key.local_port);
  if (e.published) port->withdraw(e.key);
  priv->time_waits.destroy(index);
}

void Tcp::enter_time_wait(Connection& c, Time now) {
  auto& h = c.hot;
  save_metrics(c, now);
  // Whatever is still owed to the peer, first of all the ACK of its FIN: afterwards there is no connection to
  // ask.
  if (h.ack_now || !(h.last_ack_sent == h.rcv_nxt)) send_ack(c, now);
  if (priv->time_waits.full() && priv->tw_oldest != kNone) {
    stats.add(Counter::time_wait_overflow);
    drop_time_wait(priv->tw_oldest);
  }
  const std::uint32_t index = priv->time_waits.create();
  if (index == kNone) {
    stats.add(Counter::time_wait_overflow);
    return finish(c, Errc::ok);
  }
  stats.add(Counter::time_wait_entered);
  TimeWaitEntry& e = priv->time_waits.at(index);
  e.key = c.key;
  e.snd_nxt = h.snd_nxt;
  e.rcv_nxt = h.rcv_nxt;
  e.ts_recent = h.ts_recent;
  e.timestamps = h.timestamps;
  e.window = static_cast<std::uint16_t>((h.rcv_adv - h.rcv_nxt) >> h.rcv_wscale);
  e.holds_port = c.holds_port;
  append_time_wait(index, now);
  flows.replace(c.hash, FlowRef(FlowRef::Kind::connection, c.index),
                FlowRef(FlowRef::Kind::time_wait, index));
  c.in_table = false;
  forget_flow(c);
  if (c.holds_port) priv->ports.enter_time_wait(c.key.local_port);
  c.holds_port = false;
  e.published = c.published;
  c.published = false;
  finish(c, Errc::ok);
}

void Tcp::send_time_wait_ack(const TimeWaitEntry& e, Time now) {
  const Result<const Path*> path = network.path(e.key.remote, e.key.local);
  if (!path) return stats.add(Counter::no_route);
  Header h;
  h.key = e.key;
  h.seq = e.snd_nxt;
  h.ack = e.rcv_nxt;
  h.flags = kAck;
  h.window = e.window;
  h.timestamps = e.timestamps;
  h.ts_val = ts_clock(now) + (e.timestamps ? choose_ts_offset(e.key) : 0);
  h.ts_ecr = e.ts_recent;
  send_bare(h, **path, TxPriority::ack, now);
}

// As Linux's tcp_invalid_ratelimit: two ends that are out of step must not ACK each other for ever. What has data or a FIN
// takes no part in such a loop.
bool Tcp::may_answer(TimeWaitEntry& e, const Segment& s, Time now) {
  const Duration interval = options.tcp.invalid_ratelimit;
  if (s.has(kSyn) || s.seq_len() == 0) {
    constexpr Duration kUnit = milliseconds(250);  // one byte of them is longer than TIME-WAIT
    const auto at = static_cast<std::uint8_t>(now.time_since_epoch() / kUnit);
    if (e.answered && static_cast<std::uint8_t>(at - e.last_answer) * kUnit < interval) return false;
    e.answered = true;
    e.last_answer = at;
  }
  return take_challenge_budget(now);
}

void Tcp::on_time_wait(std::uint32_t index, Segment& s, std::uint32_t hash, Time now) {
  TimeWaitEntry& e = priv->time_waits.at(index);
  const bool stamped = e.timestamps && s.options.has_timestamps;
  const auto newer = static_cast<std::int32_t>(s.options.ts_val - e.ts_recent);
  const bool old = stamped && newer < 0;
  if (s.has(kRst)) {
    stats.add(Counter::time_wait_resets);
    if (!old && s.seq == e.rcv_nxt && !options.tcp.rfc1337) drop_time_wait(index);
    return;
  }
  if (!old && s.seq == e.rcv_nxt && s.seq_len() == 0) {
    // An ordinary ACK needs no answer: two TIME-WAITs would talk for ever.
    if (stamped) e.ts_recent = s.options.ts_val;
    return;
  }
  if (s.has(kSyn) && !s.has(kAck) && !old && (after(s.seq, e.rcv_nxt) || (stamped && newer > 0))) {
    // RFC 6191 section 2, RFC 9293 3.10.7.4: a new incarnation. Its ISN is beyond all that the old one sent.
    if (Listener* l = find_listener({e.key.local, e.key.local_port}, hash)) {
      const Seq isn = e.snd_nxt + 65535 + 2;
      stats.add(Counter::time_wait_recycled);
      drop_time_wait(index);
      return on_syn(*l, s, hash, &isn, now);
    }
  }
  if (old) stats.add(Counter::paws_rejected);
  if (!old && s.has(kFin) && s.seq + s.len + 1 == e.rcv_nxt) {
    // The peer has not seen our last ACK: 2 MSL begin again.
    unlink_time_wait(e);
    append_time_wait(index, now);
    return send_time_wait_ack(e, now);
  }
  stats.add(Counter::out_of_window);
  if (may_answer(e, s, now)) send_time_wait_ack(e, now);
}

bool Tcp::time_wait_reusable(const TimeWaitEntry& e, Time now) const {
  if (!options.tcp.tw_reuse || !e.timestamps) return false;
  // At least one tick of the timestamp clock, so that the peer sees a newer one than ever before.
  const std::uint32_t age = ms_of(now) - e.entered_ms;
  return age >= 1 && Duration(milliseconds(age)) >= options.tcp.tw_reuse_delay;
}

void Tcp::run_time_wait_timers(Time now) {
  const std::uint32_t now_ms = ms_of(now);
  for (int n = 0; n < kMaxPerTick && priv->tw_oldest != kNone; ++n) {
    const TimeWaitEntry& e = priv->time_waits.at(priv->tw_oldest);
    if (now_ms - e.entered_ms < kTimeWaitMs) return;
    if (e.next != kNone) __builtin_prefetch(&priv->time_waits.at(e.next));
    drop_time_wait(priv->tw_oldest);
  }
}

Time Tcp::time_wait_deadline() const {
  if (priv->tw_oldest == kNone) return kNever;
  // entered_ms has lost its upper bits; they are those of the last tick, at most one wrap before.
  const std::uint64_t age =
      static_cast<std::uint32_t>(priv->last_tick) - priv->time_waits.at(priv->tw_oldest).entered_ms;
  const std::uint64_t left = static_cast<std::uint32_t>(age) < kTimeWaitMs ? kTimeWaitMs - age : 0;
  return Time(milliseconds(priv->last_tick + left));
}

}  // namespace mtcp::stack

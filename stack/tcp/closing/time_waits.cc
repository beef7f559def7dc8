// TIME-WAIT: 60 seconds as in Linux, in the order of entering, so that one list is all the timer there is.
// RFC 9293 3.6.1 and 3.10.7.4, RFC 1337 (RST may be ignored), RFC 6191 (reuse by a new connection). In the order of Linux's
// tcp_timewait_state_process().
#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
constexpr std::uint32_t kTimeWaitMs = 60'000;
constexpr int kMaxPerTick = 4096;
std::uint32_t ms_of(Time t) { return static_cast<std::uint32_t>(TimerWheel::tick_of(t)); }
}  // namespace

TimeWaits::TimeWaits(Tcp& tcp) : entries(tcp.options.tcp.max_tw_buckets), tcp_(tcp), options_(tcp.options), stats_(tcp.stats) {}

void TimeWaits::append(std::uint32_t index, Time now) {
  TimeWaitEntry& e = entries.at(index);
  e.entered_ms = ms_of(now);
  e.next = kNone;
  e.prev = newest_;
  (e.prev == kNone ? oldest_ : entries.at(e.prev).next) = index;
  newest_ = index;
}

void TimeWaits::unlink(TimeWaitEntry& e) {
  (e.prev == kNone ? oldest_ : entries.at(e.prev).next) = e.next;
  (e.next == kNone ? newest_ : entries.at(e.next).prev) = e.prev;
}

void TimeWaits::drop(std::uint32_t index) {
  TimeWaitEntry& e = entries.at(index);
  tcp_.flows.erase(tcp_.flows.hash(e.key), FlowRef(FlowRef::Kind::time_wait, index));
  unlink(e);
  if (e.holds_port) tcp_.active.ports.leave_time_wait(e.key.local_port);
  if (e.published) tcp_.steering->withdraw(e.key);
  entries.destroy(index);
}

void TimeWaits::enter(Connection& c, Time now) {
  auto& h = c.hot;
  tcp_.active.save_metrics(c, now);
  // Whatever is still owed to the peer, first of all the ACK of its FIN: afterwards there is no connection to
  // ask.
  if (h.ack_now || !(h.last_ack_sent == h.rcv_nxt)) tcp_.send_ack(c, now);
  if (entries.full() && oldest_ != kNone) {
    stats_.add(Counter::time_wait_overflow);
    drop(oldest_);
  }
  const std::uint32_t index = entries.create();
  if (index == kNone) {
    stats_.add(Counter::time_wait_overflow);
    return tcp_.finish(c, Errc::ok);
  }
  stats_.add(Counter::time_wait_entered);
  TimeWaitEntry& e = entries.at(index);
  e.key = c.key;
  e.snd_nxt = h.snd_nxt;
  e.rcv_nxt = h.rcv_nxt;
  e.ts_recent = h.ts_recent;
  e.timestamps = h.timestamps;
  e.window = static_cast<std::uint16_t>((h.rcv_adv - h.rcv_nxt) >> h.rcv_wscale);
  e.holds_port = c.holds_port;
  append(index, now);
  tcp_.flows.replace(c.hash, FlowRef(FlowRef::Kind::connection, c.index),
                FlowRef(FlowRef::Kind::time_wait, index));
  c.in_table = false;
  tcp_.others.forget_flow(c);
  if (c.holds_port) tcp_.active.ports.enter_time_wait(c.key.local_port);
  c.holds_port = false;
  e.published = c.published;
  c.published = false;
  if (e.published) [[unlikely]] tcp_.steering->point(e.key, false);  // little comes any more: others may need the place
  tcp_.finish(c, Errc::ok);
}

void TimeWaits::send_ack(const TimeWaitEntry& e, Time now) {
  const Result<const Path*> path = tcp_.network.path(e.key.remote, e.key.local);
  if (!path) return stats_.add(Counter::no_route);
  Tcp::Header h;
  h.key = e.key;
  h.seq = e.snd_nxt;
  h.ack = e.rcv_nxt;
  h.flags = kAck;
  h.window = e.window;
  h.timestamps = e.timestamps;
  h.ts_val = Tcp::ts_clock(now) + (e.timestamps ? tcp_.choose_ts_offset(e.key) : 0);
  h.ts_ecr = e.ts_recent;
  tcp_.send_bare(h, **path, TxPriority::ack, now);
}

// As Linux's tcp_invalid_ratelimit: two ends that are out of step must not ACK each other for ever. What has data or a FIN
// takes no part in such a loop.
bool TimeWaits::may_answer(TimeWaitEntry& e, const Segment& s, Time now) {
  const Duration interval = options_.tcp.invalid_ratelimit;
  if (s.has(kSyn) || s.seq_len() == 0) {
    constexpr Duration kUnit = milliseconds(250);  // one byte of them is longer than TIME-WAIT
    const auto at = static_cast<std::uint8_t>(now.time_since_epoch() / kUnit);
    if (e.answered && static_cast<std::uint8_t>(at - e.last_answer) * kUnit < interval) return false;
    e.answered = true;
    e.last_answer = at;
  }
  return tcp_.take_challenge_budget(now);
}

void TimeWaits::on_segment(std::uint32_t index, Segment& s, std::uint32_t hash, Time now) {
  TimeWaitEntry& e = entries.at(index);
  const bool stamped = e.timestamps && s.options.has_timestamps;
  const auto newer = static_cast<std::int32_t>(s.options.ts_val - e.ts_recent);
  const bool old = stamped && newer < 0;
  if (s.has(kRst)) {
    stats_.add(Counter::time_wait_resets);
    if (!old && s.seq == e.rcv_nxt && !options_.tcp.rfc1337) drop(index);
    return;
  }
  if (!old && s.seq == e.rcv_nxt && s.seq_len() == 0) {
    // An ordinary ACK needs no answer: two TIME-WAITs would talk for ever.
    if (stamped) e.ts_recent = s.options.ts_val;
    return;
  }
  if (s.has(kSyn) && !s.has(kAck) && !old && (after(s.seq, e.rcv_nxt) || (stamped && newer > 0))) {
    // RFC 6191 section 2, RFC 9293 3.10.7.4: a new incarnation. Its ISN is beyond all that the old one sent.
    if (Listener* l = tcp_.passive.find_listener({e.key.local, e.key.local_port}, hash)) {
      const Seq isn = e.snd_nxt + 65535 + 2;
      stats_.add(Counter::time_wait_recycled);
      drop(index);
      return tcp_.passive.on_syn(*l, s, hash, &isn, now);
    }
    // The connection had come from another stack (Worker::pass), and that one has the listener.
    if (tcp_.steering != nullptr && tcp_.steering->others_listen({e.key.local, e.key.local_port})) {
      stats_.add(Counter::time_wait_recycled);
      drop(index);
      return tcp_.on_new_flow(s, hash, now);
    }
  }
  if (old) stats_.add(Counter::paws_rejected);
  if (!old && s.has(kFin) && s.seq + s.len + 1 == e.rcv_nxt) {
    // The peer has not seen our last ACK: 2 MSL begin again.
    unlink(e);
    append(index, now);
    return send_ack(e, now);
  }
  stats_.add(Counter::out_of_window);
  if (may_answer(e, s, now)) send_ack(e, now);
}

bool TimeWaits::is_reusable(const TimeWaitEntry& e, Time now) const {
  if (!options_.tcp.tw_reuse || !e.timestamps) return false;
  // At least one tick of the timestamp clock, so that the peer sees a newer one than ever before.
  const std::uint32_t age = ms_of(now) - e.entered_ms;
  return age >= 1 && Duration(milliseconds(age)) >= options_.tcp.tw_reuse_delay;
}

void TimeWaits::run_timers(Time now) {
  const std::uint32_t now_ms = ms_of(now);
  for (int n = 0; n < kMaxPerTick && oldest_ != kNone; ++n) {
    const TimeWaitEntry& e = entries.at(oldest_);
    if (now_ms - e.entered_ms < kTimeWaitMs) return;
    if (e.next != kNone) __builtin_prefetch(&entries.at(e.next));
    drop(oldest_);
  }
}

Time TimeWaits::next_deadline() const {
  if (oldest_ == kNone) return kNever;
  // entered_ms has lost its upper bits; they are those of the last tick, at most one wrap before.
  const std::uint64_t age =
      static_cast<std::uint32_t>(tcp_.priv->last_tick) - entries.at(oldest_).entered_ms;
  const std::uint64_t left = static_cast<std::uint32_t>(age) < kTimeWaitMs ? kTimeWaitMs - age : 0;
  return Time(milliseconds(tcp_.priv->last_tick + left));
}

}  // namespace mtcp::stack

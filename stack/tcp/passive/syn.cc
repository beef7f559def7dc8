// Passive opens: LISTEN, SYN-RECEIVED and the way into the accept queue (RFC 9293 3.10.7.2, 3.10.7.4; limits as Linux has them).
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

Duration syn_ack_timeout(unsigned retries) { return seconds(std::int64_t{1} << std::min(retries, 7U)); }

}  // namespace

// --- LISTEN

void PassiveOpens::on_listen(Listener& l, Segment& s, std::uint32_t hash, Time now) {
  if (s.has(kRst)) return tcp_.others.forward_unknown(s, now) ? void() : stats_.add(Counter::no_socket);
  if (s.has(kAck)) {
    if (!s.has(kSyn) && on_cookie_ack(l, s, hash, now)) return;
    if (tcp_.others.forward_unknown(s, now)) return;
    stats_.add(Counter::bad_ack);
    return refuse(s, now);
  }
  if (!s.has(kSyn) || s.has(kFin)) return stats_.add(Counter::no_ack_flag);
  // Several stacks: another one may have the flow, half open. Two answers would be one too many.
  if ((s.packet->flags & kSteered) != 0 && tcp_.others.forward_unknown(s, now)) return;
  on_syn(l, s, hash, nullptr, now);
}

// Whether there is room for a SYN, and if not, whether a cookie may stand in.
PassiveOpens::Admission PassiveOpens::admit_syn(const Listener& l, bool recycled) {
  if (l.accept_count > l.backlog) {
    stats_.add(Counter::accept_queue_full);
    return Admission::drop;
  }
  const bool cookies = options_.tcp.syncookies && !recycled;
  const std::uint32_t most = options_.tcp.max_syn_backlog;
  const bool full = l.syn_count >= std::max(l.backlog, 1U) || entries.full();
  // Without cookies the last quarter is kept for peers that have proven themselves; here no peer has.
  const bool tight = !options_.tcp.syncookies && (l.syn_count >= most || most - l.syn_count < most / 4);
  if (!full && !tight) return Admission::queue;
  if (full && cookies) return Admission::cookie;
  if (recycled && !entries.full()) return Admission::queue;
  stats_.add(Counter::syn_backlog_full);
  return Admission::drop;
}

void PassiveOpens::on_syn(Listener& l, Segment& s, std::uint32_t hash, const Seq* isn, Time now) {
  if (!filter_.empty() && filter_out(s, true, now)) [[unlikely]] return;
  const Admission admission = admit_syn(l, isn != nullptr);
  if (admission == Admission::drop) return;
  const Result<const Path*> path = tcp_.network.path(s.key.remote, s.key.local);
  if (!path) {
    if (tcp_.kernel_share != nullptr) tcp_.kernel_share->leave_opens_of(s.key.remote);
    return stats_.add(Counter::no_route);
  }

  SynEntry fresh;
  std::uint32_t index = 0;
  if (admission == Admission::queue) {
    index = entries.create();
    if (index == Slab<SynEntry>::kNone) return stats_.add(Counter::syn_backlog_full);
  }
  SynEntry& e = admission == Admission::queue ? entries.at(index) : fresh;
  e.key = s.key;
  e.hash = hash;
  e.index = index;
  e.irs = s.seq;
  e.listener = &l;
  e.path = *path;
  e.created = now;
  e.window = tcp_.receiver.initial_window(l.options);
  e.ts_offset = tcp_.choose_ts_offset(s.key);
  e.ts_recent = s.options.ts_val;
  if (s.options.mss != 0) e.terms.peer_mss = s.options.mss;
  e.terms.timestamps = options_.tcp.timestamps && s.options.has_timestamps;
  e.terms.wscale = options_.tcp.window_scaling && s.options.has_window_scale;
  e.terms.snd_wscale = s.options.window_scale;
  e.terms.sack = options_.tcp.sack && s.options.sack_permitted;
  e.terms.ecn = s.has(kEce) && tcp_.accepts_ecn(l, s);
  e.rcv_wscale = tcp_.receiver.choose_window_scale(l.options);
  if (admission == Admission::cookie) return send_cookie(e, now);

  e.iss = isn != nullptr ? *isn : tcp_.choose_isn(s.key, now);
  if ((s.options.fast_open != 0 || s.len != 0) && open_fast(l, e, s, now)) [[unlikely]] return;
  if (!tcp_.flows.insert(hash, FlowRef(FlowRef::Kind::syn_entry, index))) {
    entries.destroy(index);
    return stats_.add(Counter::no_connection_slots);
  }
  ++l.syn_count;
  if ((s.packet->flags & kNotHome) != 0) [[unlikely]] tcp_.others.publish(e);
  schedule(e, now);
  send_syn_ack(e, e.iss, Tcp::ts_clock(now) + e.ts_offset, now);
}

void PassiveOpens::send_syn_ack(const SynEntry& e, Seq iss, std::uint32_t ts_val, Time now) {
  Tcp::Header h;
  h.key = e.key;
  h.seq = iss;
  h.ack = e.irs + 1;
  h.flags = e.terms.ecn ? kSyn | kAck | kEce : kSyn | kAck;
  h.window = e.window;
  h.timestamps = e.terms.timestamps;
  h.ts_val = ts_val;
  h.ts_ecr = e.ts_recent;
  h.mss = Tcp::local_mss(*e.path, e.key, e.listener->options);
  h.window_scale = e.terms.wscale ? e.rcv_wscale : -1;
  h.sack_permitted = e.terms.sack;
  FastOpenCookie cookie;
  if (e.terms.ecn && tcp_.needs_ecn(e.listener->options)) h.tos |= 2;  // RFC 8257 section 3.5: ECT(0)
  if (e.fast_open) [[unlikely]] {
    cookie = fast_open_cookie(*e.listener, e.key);
    cookie.experimental = e.experimental;
    h.fast_open = &cookie;
  }
  tcp_.send_bare(h, *e.path, TxPriority::control, now);
}

// --- SYN-RECEIVED

void PassiveOpens::forget(SynEntry& e) {
  --e.listener->syn_count;
  if (e.published) [[unlikely]] {
    --published;
    tcp_.steering->withdraw(e.key);
  }
  if (e.listener->left) tcp_.migration.look_again();
  entries.destroy(e.index);
}

void PassiveOpens::drop(SynEntry& e) {
  tcp_.flows.erase(e.hash, FlowRef(FlowRef::Kind::syn_entry, e.index));
  forget(e);
}

// An ACK that only says that we are alive, in answer to something unacceptable (RFC 5961).
void PassiveOpens::send_syn_entry_ack(SynEntry& e, Time now) {
  if (!tcp_.may_answer(e.last_oow_ack, now) || !tcp_.take_challenge_budget(now)) return;
  Tcp::Header h;
  h.key = e.key;
  h.seq = e.iss + 1;
  h.ack = e.irs + 1;
  h.flags = kAck;
  h.window = e.terms.wscale ? e.window >> e.rcv_wscale : e.window;
  h.timestamps = e.terms.timestamps;
  h.ts_val = Tcp::ts_clock(now) + e.ts_offset;
  h.ts_ecr = e.ts_recent;
  tcp_.send_bare(h, *e.path, TxPriority::ack, now);
}

// Whether it can belong to another stack's connection only: the peer's SYN came to both of us when the flow
// changed hands, and it has taken the other's answer.
static bool is_of_another(const SynEntry& e, const Segment& s) {
  if (s.has(kRst)) return !(s.seq == e.irs + 1);
  return !s.has(kSyn) && s.has(kAck) && !(s.ack == e.iss + 1);
}

// Everything in RFC 9293 3.10.7.4 that comes before the ACK is looked at. True: it may be the end of the
// handshake.
bool PassiveOpens::check_syn_entry(SynEntry& e, Segment& s, Time now) {
  if (is_of_another(e, s)) {
    if (tcp_.others.forward_unknown(s, now)) return false;
    // Its home has sent it here, where the directory has the half of an open that the peer did not take: whoever has the other
    // one is about to say so. The peer will repeat it.
    if (e.published && (s.packet->flags & kNotHome) != 0) return stats_.add(Counter::bad_ack), false;
  }
  if (s.has(kRst)) {  // RFC 5961 section 3.2
    if (s.seq == e.irs + 1) {
      stats_.add(Counter::resets_received);
      drop(e);
    } else if (in_window(s.seq, e.irs + 1, e.window)) {
      send_syn_entry_ack(e, now);
    } else {
      stats_.add(Counter::out_of_window);
    }
    return false;
  }
  if (e.terms.timestamps && s.options.has_timestamps && s.options.ts_val != e.ts_recent &&
      e.ts_recent - s.options.ts_val < 1U << 31) {  // RFC 7323 section 5
    stats_.add(Counter::paws_rejected);
    send_syn_entry_ack(e, now);
    return false;
  }
  if (s.has(kSyn)) {
    if (!s.has(kAck) && s.seq == e.irs) {  // the peer has not seen our answer
      if (e.terms.timestamps && s.options.has_timestamps) e.ts_recent = s.options.ts_val;
      stats_.add(Counter::retransmitted_segments);
      probe::retransmit(e.key, e.iss.value(), 0);
      send_syn_ack(e, e.iss, Tcp::ts_clock(now) + e.ts_offset, now);
    } else {
      send_syn_entry_ack(e, now);
    }
    return false;
  }
  // What overlaps the window counts, as in every other state: also what begins at the SYN, which is cut off later.
  const Seq start = e.irs + 1;
  const bool overlaps = after(s.seq + s.seq_len(), start) && before(s.seq, start + std::max(e.window, 1U));
  if (!overlaps && !(s.seq == start) && !in_window(s.seq, start, std::max(e.window, 1U))) {
    stats_.add(Counter::out_of_window);
    send_syn_entry_ack(e, now);
    return false;
  }
  if (!s.has(kAck)) return stats_.add(Counter::no_ack_flag), false;
  if (!(s.ack == e.iss + 1)) {
    stats_.add(Counter::bad_ack);
    tcp_.send_reset_for(s, now);
    return false;
  }
  return true;
}

void PassiveOpens::on_syn_entry(SynEntry& e, Segment& s, Time now) {
  if (!check_syn_entry(e, s, now)) return;
  Listener& l = *e.listener;
  // TCP_DEFER_ACCEPT: a bare ACK is not yet worth waking anybody.
  if (l.defer_accept > Duration::zero() && s.len == 0 && !s.has(kFin) && now < e.created + l.defer_accept) {
    e.acked = true;
    return;
  }
  if (l.accept_count > l.backlog) {
    stats_.add(Counter::accept_queue_full);
    if (options_.tcp.abort_on_overflow) {
      tcp_.send_reset_for(s, now);
      drop(e);
    } else {
      e.acked = true;
    }
    return;
  }
  // RFC 7323: the ACK's timestamp counts if the segment begins where we expect it.
  if (e.terms.timestamps && s.options.has_timestamps && s.seq == e.irs + 1) e.ts_recent = s.options.ts_val;
  establish(e, FlowRef(FlowRef::Kind::syn_entry, e.index), s, now);
}

bool PassiveOpens::establish(SynEntry& e, FlowRef replaced, Segment& s, Time now) {
  Listener& l = *e.listener;
  Connection* made = tcp_.new_connection(e.key, e.hash, *e.path, l.options, now);
  if (made == nullptr) return false;
  Connection& c = *made;
  const FlowRef ref(FlowRef::Kind::connection, c.index);
  if (replaced) {
    tcp_.flows.replace(e.hash, replaced, ref);
  } else if (!tcp_.flows.insert(e.hash, ref)) {
    tcp_.destroy(c);
    return false;
  }
  tcp_.others.enter_table(c);
  take_entry(c, e);
  c.hot.snd_una = c.hot.snd_nxt = e.iss + 1;
  tcp_.apply_terms(c, e.terms, s.window, true, now);
  if (replaced) {
    c.published = e.published;
    if (e.published) --published;
    e.published = false;
    // Karn: a sample only if nothing was sent twice.
    if (e.retries == 0) tcp_.sender.take_rtt_sample(c, now - e.created, now);
    forget(e);
  }
  tcp_.active.recall_metrics(c, now);
  if ((s.packet->flags & kNotHome) != 0) [[unlikely]] tcp_.others.settle(c);
  stats_.add(Counter::passive_opens);
  queue_for_accept(l, c);
  tcp_.on_segment(c, s, now);
  return true;
}

// What the half-open connection has settled.
void PassiveOpens::take_entry(Connection& c, const SynEntry& e) {
  c.was_passive = true;
  c.iss = e.iss;
  c.irs = e.irs;
  c.ts_offset = e.ts_offset;
  c.hot.rcv_nxt = e.irs + 1;
  c.hot.rcv_wscale = e.rcv_wscale;
  c.hot.ts_recent = e.ts_recent;
}

// It waits there to be accepted.
void PassiveOpens::queue_for_accept(Listener& l, Connection& c) {
  c.listener = &l;
  l.accept_queue.push_back(c);
  ++l.accept_count;
  tcp_.raise(l, SocketBase::kReadEdge);
  if (l.left || l.unwatched) tcp_.migration.look_again();
}

void PassiveOpens::schedule(SynEntry& e, Time now) {
  e.deadline = now + syn_ack_timeout(e.retries);
  lists_[std::min<std::size_t>(e.retries, kSynLists - 1)].push_back(e);
}

void PassiveOpens::run_timers(Time now) {
  for (std::size_t i = 0; i < kSynLists; ++i) {
    auto& list = lists_[i];
    for (SynEntry* e = list.front(); e != nullptr && e->deadline <= now; e = list.front()) {
      const bool deferring = e->acked && now < e->created + e->listener->defer_accept;
      if (!deferring && e->retries >= options_.tcp.synack_retries) {
        stats_.add(Counter::half_open_timed_out);
        drop(*e);
        continue;
      }
      if (e->retries != UINT8_MAX) ++e->retries;
      e->hook.unlink();
      schedule(*e, now);
      if (deferring) continue;
      stats_.add(Counter::retransmitted_segments);
      send_syn_ack(*e, e->iss, Tcp::ts_clock(now) + e->ts_offset, now);
    }
  }
}

Time PassiveOpens::next_deadline() const {
  Time first = kNever;
  for (const SynList& list : lists_)
    if (const SynEntry* e = list.front(); e != nullptr) first = std::min(first, e->deadline);
  return first;
}

}  // namespace mtcp::stack

// Passive opens: listeners, the SYN queue and the accept queue (RFC 9293 3.10.7.2, 3.10.7.4; limits as Linux
// has them).
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

FlowKey listener_key(const Endpoint& e) {
  return {e.address, e.address.is_v4() ? IpAddress::any_v4() : IpAddress::any_v6(), e.port, 0};
}

Duration syn_ack_timeout(unsigned retries) { return seconds(std::int64_t{1} << std::min(retries, 7U)); }

}  // namespace

// --- listeners

Result<Listener*> Tcp::listen(const Endpoint& local, const Worker::ListenOptions& o) {
  if (local.port == 0) return Errc::invalid;
  if (!local.address.is_any() && !network.is_local(local.address)) return Errc::address_unavailable;
  const auto in_use = [&](const IpAddress& a, auto&& conflicts) {
    const Endpoint e{a, local.port};
    return static_cast<bool>(
        priv->listener_table.find(priv->listener_table.hash(listener_key(e)), [&](FlowRef r) {
          const Listener& other = priv->listeners.at(r.index());
          return other.local == e && !other.left && !(other.reuse_port && o.reuse_port) && conflicts(other);
        }));
  };
  bool taken = in_use(local.address, [](const Listener&) { return true; });
  // A dual-stack :: and 0.0.0.0 want the same packets.
  if (local.address == IpAddress::any_v4())
    taken = taken || in_use(IpAddress::any_v6(), [](const Listener& other) { return !other.v6_only; });
  if (local.address == IpAddress::any_v6() && !o.v6_only)
    taken = taken || in_use(IpAddress::any_v4(), [](const Listener&) { return true; });
  if (taken) return Errc::address_in_use;

  const std::uint32_t index = priv->listeners.create();
  if (index == Slab<Listener>::kNone) return Errc::no_buffers;
  Listener& l = priv->listeners.at(index);
  l.index = index;
  l.local = local;
  l.options = o.socket;
  l.backlog = o.backlog;
  l.v6_only = o.v6_only;
  l.reuse_port = o.reuse_port;
  l.defer_accept = o.defer_accept;
  l.fast_open_limit = o.fast_open_limit;
  l.fast_open_keys = o.fast_open_keys;
  const std::uint32_t hash = priv->listener_table.hash(listener_key(local));
  if (!priv->listener_table.insert(hash, FlowRef(FlowRef::Kind::connection, index))) {
    priv->listeners.destroy(index);
    return Errc::no_buffers;
  }
  priv->ports.hold(local.port);
  std::erase(priv->left, local);
  if (priv->closing) port->set_closing(false);
  priv->closing = false;
  return_to(l);
  note_listener(l);
  update_serving();
  return &l;
}

void Tcp::close_listener(Listener& l, Time now) {
  priv->syn_entries.for_each([&](SynEntry& e, std::uint32_t) {
    if (e.listener == &l) drop_syn_entry(e);
  });
  while (Connection* c = l.accept_queue.pop_front()) {
    c->listener = nullptr;
    abort(*c, now);
  }
  priv->ports.release(l.local.port);
  priv->listener_table.erase(priv->listener_table.hash(listener_key(l.local)),
                             FlowRef(FlowRef::Kind::connection, l.index));
  if (port != nullptr) port->note_listener(l.index, l.local, l.v6_only, Listening::no);
  priv->listeners.destroy(l.index);
  update_serving();
}

bool Tcp::left_to_another(const Segment& s) const {
  if (priv->left.empty() || !s.has(kSyn) || s.has(kAck) || s.has(kRst)) return false;
  if (network.is_local(s.key.remote)) return false;  // from this process: nobody else will ever see it
  // Nobody has gone on with it.
  if (port != nullptr && port->shared() && !port->others_listen({s.key.local, s.key.local_port})) return false;
  return std::any_of(priv->left.begin(), priv->left.end(), [&](const Endpoint& e) {
    return e.port == s.key.local_port && (e.address.is_any() || e.address == s.key.local);
  });
}

Connection* Tcp::accept(Listener& l) {
  Connection* c = l.accept_queue.pop_front();
  if (c == nullptr) return nullptr;
  --l.accept_count;
  c->listener = nullptr;
  probe::accept(c->key, l.accept_count);
  return c;
}

Listener* Tcp::find_listener(const Endpoint& local, std::uint32_t hash, bool left) {
  const auto lookup = [&](const IpAddress& address, bool for_v4) -> Listener* {
    const Endpoint e{address, local.port};
    const std::uint32_t h = priv->listener_table.hash(listener_key(e));
    std::uint32_t members = 0, wanted = 0;
    const auto match = [&](FlowRef r) {
      const Listener& l = priv->listeners.at(r.index());
      if (!(l.local == e) || l.left != left || (for_v4 && l.v6_only)) return false;
      // Of a SO_REUSEPORT group, the member that the flow's hash says; it takes one pass to count them.
      return !l.reuse_port || members++ == wanted;
    };
    wanted = UINT32_MAX;
    FlowRef found = priv->listener_table.find(h, match);
    if (!found && members > 0) {
      wanted = hash % members;
      members = 0;
      found = priv->listener_table.find(h, match);
    }
    return found ? &priv->listeners.at(found.index()) : nullptr;
  };
  if (Listener* l = lookup(local.address, false)) return l;
  if (local.address.is_v4())
    if (Listener* l = lookup(IpAddress::any_v4(), false)) return l;
  return lookup(IpAddress::any_v6(), local.address.is_v4());
}

// --- LISTEN

void Tcp::on_listen(Listener& l, Segment& s, std::uint32_t hash, Time now) {
  if (s.has(kRst)) return forward_unknown(s, now) ? void() : stats.add(Counter::no_socket);
  if (s.has(kAck)) {
    if (!s.has(kSyn) && on_cookie_ack(l, s, hash, now)) return;
    if (forward_unknown(s, now)) return;
    stats.add(Counter::bad_ack);
    return refuse(s, now);
  }
  if (!s.has(kSyn) || s.has(kFin)) return stats.add(Counter::no_ack_flag);
  // Several stacks: another one may have the flow, half open. Two answers would be one too many.
  if ((s.packet->flags & kSteered) != 0 && forward_unknown(s, now)) return;
  on_syn(l, s, hash, nullptr, now);
}

// Whether there is room for a SYN, and if not, whether a cookie may stand in.
Tcp::Admission Tcp::admit_syn(const Listener& l, bool recycled) {
  if (l.accept_count > l.backlog) {
    stats.add(Counter::accept_queue_full);
    return Admission::drop;
  }
  const bool cookies = options.tcp.syncookies && !recycled;
  const std::uint32_t most = options.tcp.max_syn_backlog;
  const bool full = l.syn_count >= std::max(l.backlog, 1U) || priv->syn_entries.full();
  // Without cookies the last quarter is kept for peers that have proven themselves; here no peer has.
  const bool tight = !options.tcp.syncookies && (l.syn_count >= most || most - l.syn_count < most / 4);
  if (!full && !tight) return Admission::queue;
  if (full && cookies) return Admission::cookie;
  if (recycled && !priv->syn_entries.full()) return Admission::queue;
  stats.add(Counter::syn_backlog_full);
  return Admission::drop;
}

void Tcp::on_syn(Listener& l, Segment& s, std::uint32_t hash, const Seq* isn, Time now) {
  if (!priv->filter.empty() && filter_out(s, true, now)) [[unlikely]] return;
  const Admission admission = admit_syn(l, isn != nullptr);
  if (admission == Admission::drop) return;
  const Result<const Path*> path = network.path(s.key.remote, s.key.local);
  if (!path) {
    if (port != nullptr) port->leave_opens_of(s.key.remote);
    return stats.add(Counter::no_route);
  }

  SynEntry fresh;
  std::uint32_t index = 0;
  if (admission == Admission::queue) {
    index = priv->syn_entries.create();
    if (index == Slab<SynEntry>::kNone) return stats.add(Counter::syn_backlog_full);
  }
  SynEntry& e = admission == Admission::queue ? priv->syn_entries.at(index) : fresh;
  e.key = s.key;
  e.hash = hash;
  e.index = index;
  e.irs = s.seq;
  e.listener = &l;
  e.path = *path;
  e.created = now;
  e.window = receiver.initial_window(l.options);
  e.ts_offset = choose_ts_offset(s.key);
  e.ts_recent = s.options.ts_val;
  if (s.options.mss != 0) e.terms.peer_mss = s.options.mss;
  e.terms.timestamps = options.tcp.timestamps && s.options.has_timestamps;
  e.terms.wscale = options.tcp.window_scaling && s.options.has_window_scale;
  e.terms.snd_wscale = s.options.window_scale;
  e.terms.sack = options.tcp.sack && s.options.sack_permitted;
  e.terms.ecn = s.has(kEce) && accepts_ecn(l, s);
  e.rcv_wscale = receiver.choose_window_scale(l.options);
  if (admission == Admission::cookie) return send_cookie(e, now);

  e.iss = isn != nullptr ? *isn : choose_isn(s.key, now);
  if ((s.options.fast_open != 0 || s.len != 0) && open_fast(l, e, s, now)) [[unlikely]] return;
  if (!flows.insert(hash, FlowRef(FlowRef::Kind::syn_entry, index))) {
    priv->syn_entries.destroy(index);
    return stats.add(Counter::no_connection_slots);
  }
  ++l.syn_count;
  if ((s.packet->flags & kNotHome) != 0) [[unlikely]] publish(e);
  schedule_syn_entry(e, now);
  send_syn_ack(e, e.iss, ts_clock(now) + e.ts_offset, now);
}

void Tcp::send_syn_ack(const SynEntry& e, Seq iss, std::uint32_t ts_val, Time now) {
  Header h;
  h.key = e.key;
  h.seq = iss;
  h.ack = e.irs + 1;
  h.flags = e.terms.ecn ? kSyn | kAck | kEce : kSyn | kAck;
  h.window = e.window;
  h.timestamps = e.terms.timestamps;
  h.ts_val = ts_val;
  h.ts_ecr = e.ts_recent;
  h.mss = local_mss(*e.path, e.key, e.listener->options);
  h.window_scale = e.terms.wscale ? e.rcv_wscale : -1;
  h.sack_permitted = e.terms.sack;
  FastOpenCookie cookie;
  if (e.terms.ecn && needs_ecn(e.listener->options)) h.tos |= 2;  // RFC 8257 section 3.5: ECT(0)
  if (e.fast_open) [[unlikely]] {
    cookie = fast_open_cookie(*e.listener, e.key);
    cookie.experimental = e.experimental;
    h.fast_open = &cookie;
  }
  send_bare(h, *e.path, TxPriority::control, now);
}

// --- SYN-RECEIVED

void Tcp::forget_syn_entry(SynEntry& e) {
  --e.listener->syn_count;
  if (e.published) [[unlikely]] {
    --priv->half_open_published;
    port->withdraw(e.key);
  }
  if (e.listener->left) priv->handover_now = true;
  priv->syn_entries.destroy(e.index);
}

void Tcp::drop_syn_entry(SynEntry& e) {
  flows.erase(e.hash, FlowRef(FlowRef::Kind::syn_entry, e.index));
  forget_syn_entry(e);
}

// An ACK that only says that we are alive, in answer to something unacceptable (RFC 5961).
void Tcp::send_syn_entry_ack(SynEntry& e, Time now) {
  if (!may_answer(e.last_oow_ack, now) || !take_challenge_budget(now)) return;
  Header h;
  h.key = e.key;
  h.seq = e.iss + 1;
  h.ack = e.irs + 1;
  h.flags = kAck;
  h.window = e.terms.wscale ? e.window >> e.rcv_wscale : e.window;
  h.timestamps = e.terms.timestamps;
  h.ts_val = ts_clock(now) + e.ts_offset;
  h.ts_ecr = e.ts_recent;
  send_bare(h, *e.path, TxPriority::ack, now);
}

// Whether it can belong to another stack's connection only: the peer's SYN came to both of us when the flow
// changed hands, and it has taken the other's answer.
static bool is_of_another(const SynEntry& e, const Segment& s) {
  if (s.has(kRst)) return !(s.seq == e.irs + 1);
  return !s.has(kSyn) && s.has(kAck) && !(s.ack == e.iss + 1);
}

// Everything in RFC 9293 3.10.7.4 that comes before the ACK is looked at. True: it may be the end of the
// handshake.
bool Tcp::check_syn_entry(SynEntry& e, Segment& s, Time now) {
  if (is_of_another(e, s)) {
    if (forward_unknown(s, now)) return false;
    // Its home has sent it here, where the directory has the half of an open that the peer did not take: whoever has the other
    // one is about to say so. The peer will repeat it.
    if (e.published && (s.packet->flags & kNotHome) != 0) return stats.add(Counter::bad_ack), false;
  }
  if (s.has(kRst)) {  // RFC 5961 section 3.2
    if (s.seq == e.irs + 1) {
      stats.add(Counter::resets_received);
      drop_syn_entry(e);
    } else if (in_window(s.seq, e.irs + 1, e.window)) {
      send_syn_entry_ack(e, now);
    } else {
      stats.add(Counter::out_of_window);
    }
    return false;
  }
  if (e.terms.timestamps && s.options.has_timestamps && s.options.ts_val != e.ts_recent &&
      e.ts_recent - s.options.ts_val < 1U << 31) {  // RFC 7323 section 5
    stats.add(Counter::paws_rejected);
    send_syn_entry_ack(e, now);
    return false;
  }
  if (s.has(kSyn)) {
    if (!s.has(kAck) && s.seq == e.irs) {  // the peer has not seen our answer
      if (e.terms.timestamps && s.options.has_timestamps) e.ts_recent = s.options.ts_val;
      stats.add(Counter::retransmitted_segments);
      probe::retransmit(e.key, e.iss.value(), 0);
      send_syn_ack(e, e.iss, ts_clock(now) + e.ts_offset, now);
    } else {
      send_syn_entry_ack(e, now);
    }
    return false;
  }
  // What overlaps the window counts, as in every other state: also what begins at the SYN, which is cut off later.
  const Seq start = e.irs + 1;
  const bool overlaps = after(s.seq + s.seq_len(), start) && before(s.seq, start + std::max(e.window, 1U));
  if (!overlaps && !(s.seq == start) && !in_window(s.seq, start, std::max(e.window, 1U))) {
    stats.add(Counter::out_of_window);
    send_syn_entry_ack(e, now);
    return false;
  }
  if (!s.has(kAck)) return stats.add(Counter::no_ack_flag), false;
  if (!(s.ack == e.iss + 1)) {
    stats.add(Counter::bad_ack);
    send_reset_for(s, now);
    return false;
  }
  return true;
}

void Tcp::on_syn_entry(SynEntry& e, Segment& s, Time now) {
  if (!check_syn_entry(e, s, now)) return;
  Listener& l = *e.listener;
  // TCP_DEFER_ACCEPT: a bare ACK is not yet worth waking anybody.
  if (l.defer_accept > Duration::zero() && s.len == 0 && !s.has(kFin) && now < e.created + l.defer_accept) {
    e.acked = true;
    return;
  }
  if (l.accept_count > l.backlog) {
    stats.add(Counter::accept_queue_full);
    if (options.tcp.abort_on_overflow) {
      send_reset_for(s, now);
      drop_syn_entry(e);
    } else {
      e.acked = true;
    }
    return;
  }
  // RFC 7323: the ACK's timestamp counts if the segment begins where we expect it.
  if (e.terms.timestamps && s.options.has_timestamps && s.seq == e.irs + 1) e.ts_recent = s.options.ts_val;
  establish(e, FlowRef(FlowRef::Kind::syn_entry, e.index), s, now);
}

bool Tcp::establish(SynEntry& e, FlowRef replaced, Segment& s, Time now) {
  Listener& l = *e.listener;
  Connection* made = new_connection(e.key, e.hash, *e.path, l.options, now);
  if (made == nullptr) return false;
  Connection& c = *made;
  const FlowRef ref(FlowRef::Kind::connection, c.index);
  if (replaced) {
    flows.replace(e.hash, replaced, ref);
  } else if (!flows.insert(e.hash, ref)) {
    destroy(c);
    return false;
  }
  enter_table(c);
  take_entry(c, e);
  c.hot.snd_una = c.hot.snd_nxt = e.iss + 1;
  apply_terms(c, e.terms, s.window, true, now);
  if (replaced) {
    c.published = e.published;
    if (e.published) --priv->half_open_published;
    e.published = false;
    // Karn: a sample only if nothing was sent twice.
    if (e.retries == 0) sender.take_rtt_sample(c, now - e.created, now);
    forget_syn_entry(e);
  }
  recall_metrics(c, now);
  if (!c.published && (s.packet->flags & kNotHome) != 0) [[unlikely]] c.published = port->settle(c.key, true);
  stats.add(Counter::passive_opens);
  queue_for_accept(l, c);
  on_segment(c, s, now);
  return true;
}

// What the half-open connection has settled.
void Tcp::take_entry(Connection& c, const SynEntry& e) {
  c.was_passive = true;
  c.iss = e.iss;
  c.irs = e.irs;
  c.ts_offset = e.ts_offset;
  c.hot.rcv_nxt = e.irs + 1;
  c.hot.rcv_wscale = e.rcv_wscale;
  c.hot.ts_recent = e.ts_recent;
}

// It waits there to be accepted.
void Tcp::queue_for_accept(Listener& l, Connection& c) {
  c.listener = &l;
  l.accept_queue.push_back(c);
  ++l.accept_count;
  raise(l, SocketBase::kReadEdge);
  if (l.left || l.unwatched) priv->handover_now = true;
}

void Tcp::schedule_syn_entry(SynEntry& e, Time now) {
  e.deadline = now + syn_ack_timeout(e.retries);
  priv->syn_lists[std::min<std::size_t>(e.retries, Private::kSynLists - 1)].push_back(e);
}

void Tcp::run_syn_timers(Time now) {
  for (std::size_t i = 0; i < Private::kSynLists; ++i) {
    auto& list = priv->syn_lists[i];
    for (SynEntry* e = list.front(); e != nullptr && e->deadline <= now; e = list.front()) {
      const bool deferring = e->acked && now < e->created + e->listener->defer_accept;
      if (!deferring && e->retries >= options.tcp.synack_retries) {
        stats.add(Counter::half_open_timed_out);
        drop_syn_entry(*e);
        continue;
      }
      if (e->retries != UINT8_MAX) ++e->retries;
      e->hook.unlink();
      schedule_syn_entry(*e, now);
      if (deferring) continue;
      stats.add(Counter::retransmitted_segments);
      send_syn_ack(*e, e->iss, ts_clock(now) + e->ts_offset, now);
    }
  }
}

}  // namespace mtcp::stack

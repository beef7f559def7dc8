// Active opens: RFC 9293 section 3.10.1 (OPEN), 3.10.7.3 (SYN-SENT), and the end that all opens share.
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
constexpr std::uint32_t kMinPeerMss = 48;  // as Linux's TCP_MIN_SND_MSS: room for data beside all options
constexpr std::uint32_t kTimestampsLength = 12;
}  // namespace

// --- what our SYN says

std::uint16_t Tcp::local_mss(const Path& path, const FlowKey& key, const SocketOptions& o) {
  const std::uint32_t headers = key.local.is_v4() ? 40 : 60;
  const std::uint32_t largest = std::clamp(path.mtu, headers + 88, headers + 65495U) - headers;
  return static_cast<std::uint16_t>(o.max_segment != 0 ? std::min<std::uint32_t>(o.max_segment, largest)
                                                       : largest);
}

// --- the end that all opens share

void Tcp::apply_terms(Connection& c, const SynTerms& terms, std::uint32_t peer_window, bool window_is_scaled,
                      Time now) {
  auto& h = c.hot;
  h.timestamps = terms.timestamps;
  h.wscale = terms.wscale;
  h.sack_ok = terms.sack;
  h.ecn = terms.ecn;
  h.snd_wscale = terms.wscale ? terms.snd_wscale : std::uint8_t{0};
  if (!terms.wscale) h.rcv_wscale = 0;
  c.peer_mss = static_cast<std::uint16_t>(std::max<std::uint32_t>(terms.peer_mss, kMinPeerMss));
  const std::uint32_t mss = std::min(c.peer_mss, local_mss(*c.path, c.key, c.options));
  // RFC 6691: the MSS does not count options, what we send must.
  h.mss = static_cast<std::uint16_t>(h.timestamps ? mss - kTimestampsLength : mss);
  h.snd_wnd = window_is_scaled ? peer_window << h.snd_wscale : peer_window;
  c.tx.max_window = h.snd_wnd;
  h.snd_wl1 = c.irs;
  h.snd_wl2 = c.iss;
  h.rcv_adv = c.irs + 1 + receiver.initial_window(c.options);  // what our SYN said
  h.last_ack_sent = h.rcv_nxt;
  h.state = State::established;
  probe::established(c.key);
  init_transfer(c, now);
}

void Tcp::apply_syn_options(Connection& c, const TcpOptions& peer, std::uint32_t peer_window,
                            bool window_is_scaled, bool ecn, Time now) {
  SynTerms terms;
  if (peer.mss != 0) terms.peer_mss = peer.mss;
  terms.timestamps = options.tcp.timestamps && peer.has_timestamps;
  terms.wscale = options.tcp.window_scaling && peer.has_window_scale;
  terms.snd_wscale = peer.window_scale;
  terms.sack = options.tcp.sack && peer.sack_permitted;
  terms.ecn = ecn;
  if (terms.timestamps) c.hot.ts_recent = peer.ts_val;
  apply_terms(c, terms, peer_window, window_is_scaled, now);
}

// --- OPEN

// The reason why `key` can't be used, or ok. A TIME-WAIT that may be replaced is, and its ISN bound is in
// `isn`.
Errc Tcp::claim_flow(const FlowKey& key, std::uint32_t hash, std::optional<Seq>& isn, Time now) {
  isn.reset();
  const FlowRef ref = find_flow(key, hash);
  if (!ref) return Errc::ok;
  if (ref.kind() != FlowRef::Kind::time_wait) return Errc::address_unavailable;
  const TimeWaitEntry& e = priv->time_waits.at(ref.index());
  if (!time_wait_reusable(e, now)) return Errc::address_unavailable;
  // Beyond everything that the old connection sent, so that its segments can't be mistaken (RFC 6191 section
  // 2).
  isn = e.snd_nxt + 65535 + 2;
  stats.add(Counter::time_wait_recycled);
  drop_time_wait(ref.index());
  return Errc::ok;
}

// Where stacks share a device, no other one may have the flow: that is `published`.
Errc Tcp::choose_local_port(FlowKey& key, std::uint32_t& hash, bool& published, std::optional<Seq>& isn, Time now) {
  const std::uint64_t id = destination_id(key);
  const bool steered = port != nullptr && !network.is_local(key.remote);
  const bool publish = steered && port->has_others();
  const std::uint16_t port_found = priv->ports.choose(id, [&](std::uint16_t candidate) {
    key.local_port = candidate;
    if (steered && !port->may_open(key)) return false;
    hash = flows.hash(key);
    if (claim_flow(key, hash, isn, now) != Errc::ok) return false;
    if (steered && !port->reserve_flow(key)) return false;
    published = publish && port->publish(key, Port::FlowKind::connection);
    if (published != publish) port->release_flow(key);
    return published == publish;
  });
  if (port_found != 0) return Errc::ok;
  stats.add(Counter::port_exhausted);
  return Errc::address_unavailable;
}

Result<Connection*> Tcp::connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& o,
                                 Time now, FastOpenStart* start) {
  if (remote.port == 0 || remote.address.is_any()) return Errc::address_unavailable;
  const Result<const Path*> path = network.path(remote.address, local.address);
  if (!path) return path.error();
  FlowKey key{local.address.is_any() ? (*path)->source : local.address, remote.address, local.port,
              remote.port};
  if (!network.is_local(key.local)) return Errc::address_unavailable;
  if (port != nullptr && !(*path)->local && !port->receives(key.local)) return Errc::shut_down;
  if (connections.full()) return stats.add(Counter::no_connection_slots), Errc::no_buffers;
  std::optional<Seq> isn;
  std::uint32_t hash = 0;
  bool published = false;
  Errc claimed;
  if (local.port == 0) {
    claimed = choose_local_port(key, hash, published, isn, now);
  } else {
    hash = flows.hash(key);
    claimed = claim_flow(key, hash, isn, now);
    if (claimed == Errc::ok && port != nullptr && !(*path)->local && port->has_others()) {
      published = port->publish(key, Port::FlowKind::connection);
      if (!published) claimed = Errc::address_unavailable;
    }
  }
  if (claimed != Errc::ok) return claimed;
  Connection* made = new_connection(key, hash, **path, o, now);
  if (made == nullptr || !flows.insert(hash, FlowRef(FlowRef::Kind::connection, made->index))) {
    if (published) port->withdraw(key);
    if (port != nullptr) port->release_flow(key);
    if (made != nullptr) destroy(*made);
    return Errc::no_buffers;
  }
  Connection& c = *made;
  c.published = published;
  enter_table(c);
  c.holds_port = true;
  priv->ports.hold(key.local_port);
  c.iss = isn ? *isn : choose_isn(key, now);
  c.ts_offset = choose_ts_offset(key);
  auto& h = c.hot;
  h.rcv_wscale = receiver.choose_window_scale(o);
  h.snd_una = c.iss;
  h.snd_nxt = c.iss + 1;
  h.state = State::syn_sent;
  priv->opening.push_back(c);
  stats.add(Counter::active_opens);
  probe::connect(c.key);
  start != nullptr ? send_fast_open_syn(c, *start, now) : send_syn(c, now);
  sender.arm_retransmit(c, now);
  return made;
}

// --- SYN-SENT

namespace {
// As Linux's TCP_TIMEOUT_MIN: two ticks.
constexpr Duration kSynAgain = milliseconds(2);

bool acks_our_syn(const Connection& c, const Segment& s) { return after(s.ack, c.iss) && at_or_before(s.ack, c.hot.snd_nxt); }

// RFC 7323 section 5.2 has it for ACKs: what it echoes is none of the timestamps that our SYNs have had.
bool echoes_another(const Connection& c, const Segment& s, Time now) {
  if (!s.options.has_timestamps || s.options.ts_ecr == 0) return false;
  const std::uint32_t first = Tcp::ts_clock(c.created) + c.ts_offset;
  return s.options.ts_ecr - first > Tcp::ts_clock(now) - Tcp::ts_clock(c.created);
}
}  // namespace

void Tcp::on_syn_ack(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  ++c.segments_received;
  c.accept_hook.unlink();
  wheel.cancel(c.retransmit_timer);
  h.snd_una = c.iss + 1;
  h.rcv_nxt = s.seq + 1;
  c.irs = s.seq;
  const bool ecn = (s.flags & (kEce | kCwr)) == kEce && offers_ecn(c);
  apply_syn_options(c, s.options, s.window, false, ecn, now);
  h.snd_wl1 = s.seq;
  h.snd_wl2 = s.ack;
  if (c.fast_open) [[unlikely]] finish_fast_open(c, s, now);
  // RFC 6298 section 3 (Karn): no sample from a SYN that was sent again; timestamps tell (RFC 7323 section
  // 4).
  if (!h.retransmitting_syn) sender.take_rtt_sample(c, now - c.created, now);
  recall_metrics(c, now);
  c.tx.backoff = 0;
  h.retransmitting_syn = false;
  // On the loopback wire the other end is to be there when connect() is over.
  c.path->local ? send_ack(c, now) : request_ack(c);
  raise(c, SocketBase::kWriteEdge);
  if (c.tx.unsent != nullptr) sender.push(c, now);  // what the SYN has not brought across
}

// RFC 9293 3.5: both sides opened at once.
void Tcp::on_crossed_syn(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  c.accept_hook.unlink();
  h.rcv_nxt = s.seq + 1;
  c.irs = s.seq;
  const bool ecn = (s.flags & (kEce | kCwr)) == (kEce | kCwr) && offers_ecn(c);
  apply_syn_options(c, s.options, s.window, false, ecn, now);
  if (c.fast_open) sender.rewind_syn_data(c);
  h.state = State::syn_received;
  c.tx.backoff = 0;
  send_syn(c, now);
  sender.arm_retransmit(c, now);
}

void Tcp::on_syn_sent(Connection& c, Segment& s, Time now) {
  const bool ack_good = s.has(kAck) && acks_our_syn(c, s);
  // RFC 7323 section 3.2 and RFC 5961 section 5 leave nothing else that may be acknowledged: only our SYN was
  // sent.
  if (s.has(kAck) && !ack_good) {
    // The peer has a connection for this flow: another stack's, or one that is long gone, maybe of an earlier life of this
    // program. Our RST ends that one, and a new SYN finds the way free.
    if (forward_unknown(s, now)) return;
    stats.add(Counter::bad_ack);
    if (!s.has(kRst)) send_reset_for(s, now);
    if (c.tx.retries == 0) wheel.arm(c.retransmit_timer, now + kSynAgain);
  } else if (s.has(kAck) && !s.has(kRst) && echoes_another(c, s, now)) {
    stats.add(Counter::paws_rejected);
    send_reset_for(s, now);
  } else if (s.has(kRst)) {
    if (ack_good) {
      stats.add(Counter::resets_received);
      finish(c, Errc::connection_refused);
    } else {
      stats.add(Counter::no_ack_flag);
    }
  } else if (s.has(kSyn) && !s.has(kAck)) {
    on_crossed_syn(c, s, now);
  } else if (s.has(kSyn)) {
    on_syn_ack(c, s, now);
    if (s.len > 0 ||
        s.has(kFin)) {  // RFC 9293 3.10.7.3: data and FIN of a SYN-ACK are processed as in ESTABLISHED
      s.flags = static_cast<std::uint8_t>(s.flags & ~kSyn);
      s.seq += 1;
      return on_segment(c, s, now);
    }
  } else {
    stats.add(Counter::out_of_window);
  }
}

}  // namespace mtcp::stack

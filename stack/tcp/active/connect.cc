// Active opens: RFC 9293 section 3.10.1 (OPEN), 3.10.7.3 (SYN-SENT).
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

ActiveOpens::ActiveOpens(Tcp& tcp, const Secrets& secrets, Time now)
    : ports(tcp.options.tcp.ip_local_port_first, tcp.options.tcp.ip_local_port_last, derive_key(secrets.lasting, KeyPurpose::ports),
            static_cast<std::uint64_t>(now.time_since_epoch().count()), secrets.port_counters),
      tcp_(tcp),
      options_(tcp.options),
      stats_(tcp.stats),
      destination_key_(derive_key(secrets.lasting, KeyPurpose::destinations)),
      destinations_(derive_key(secrets.key, KeyPurpose::metrics)) {}

// --- OPEN

// The reason why `key` can't be used, or ok. A TIME-WAIT that may be replaced is, and its ISN bound is in
// `isn`.
Errc ActiveOpens::claim_flow(const FlowKey& key, std::uint32_t hash, std::optional<Seq>& isn, Time now) {
  isn.reset();
  const FlowRef ref = tcp_.find_flow(key, hash);
  if (!ref) return Errc::ok;
  if (ref.kind() != FlowRef::Kind::time_wait) return Errc::address_unavailable;
  const TimeWaitEntry& e = tcp_.time_waits.entries.at(ref.index());
  if (!tcp_.time_waits.is_reusable(e, now)) return Errc::address_unavailable;
  // Beyond everything that the old connection sent, so that its segments can't be mistaken (RFC 6191 section
  // 2).
  isn = e.snd_nxt + 65535 + 2;
  stats_.add(Counter::time_wait_recycled);
  tcp_.time_waits.drop(ref.index());
  return Errc::ok;
}

// Where stacks share a device, no other one may have the flow: that is `published`.
Errc ActiveOpens::choose_local_port(FlowKey& key, std::uint32_t& hash, bool& published, std::optional<Seq>& isn, Time now) {
  const std::uint64_t id = destination_id(key);
  const bool local = tcp_.network.is_local(key.remote);
  Steering* const steering = local ? nullptr : tcp_.steering;
  KernelShare* const kernel = local ? nullptr : tcp_.kernel_share;
  const bool publish = steering != nullptr && steering->has_others();
  const std::uint16_t port_found = ports.choose(id, [&](std::uint16_t candidate) {
    key.local_port = candidate;
    if (steering != nullptr && !steering->may_open(key)) return false;
    hash = tcp_.flows.hash(key);
    if (claim_flow(key, hash, isn, now) != Errc::ok) return false;
    if (kernel != nullptr && !kernel->reserve_flow(key)) return false;
    published = publish && steering->publish(key, Steering::FlowKind::connection);
    if (published != publish && kernel != nullptr) kernel->release_flow(key);
    return published == publish;
  });
  if (port_found != 0) return Errc::ok;
  stats_.add(Counter::port_exhausted);
  return Errc::address_unavailable;
}

Result<Connection*> ActiveOpens::connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& o,
                                 Time now, FastOpenStart* start) {
  if (remote.port == 0 || remote.address.is_any()) return Errc::address_unavailable;
  const Result<const Path*> path = tcp_.network.path(remote.address, local.address);
  if (!path) return path.error();
  FlowKey key{local.address.is_any() ? (*path)->source : local.address, remote.address, local.port,
              remote.port};
  if (!tcp_.network.is_local(key.local)) return Errc::address_unavailable;
  if (tcp_.kernel_share != nullptr && !(*path)->local && !tcp_.kernel_share->receives(key.local)) return Errc::shut_down;
  if (tcp_.connections.full()) return stats_.add(Counter::no_connection_slots), Errc::no_buffers;
  std::optional<Seq> isn;
  std::uint32_t hash = 0;
  bool published = false;
  Errc claimed;
  if (local.port == 0) {
    claimed = choose_local_port(key, hash, published, isn, now);
  } else {
    hash = tcp_.flows.hash(key);
    claimed = claim_flow(key, hash, isn, now);
    if (claimed == Errc::ok && tcp_.steering != nullptr && !(*path)->local && tcp_.steering->has_others()) {
      published = tcp_.steering->publish(key, Steering::FlowKind::connection);
      if (!published) claimed = Errc::address_unavailable;
    }
  }
  if (claimed != Errc::ok) return claimed;
  Connection* made = tcp_.new_connection(key, hash, **path, o, now);
  if (made == nullptr || !tcp_.flows.insert(hash, FlowRef(FlowRef::Kind::connection, made->index))) {
    if (published) tcp_.steering->withdraw(key);
    if (tcp_.kernel_share != nullptr) tcp_.kernel_share->release_flow(key);
    if (made != nullptr) tcp_.destroy(*made);
    return Errc::no_buffers;
  }
  Connection& c = *made;
  c.published = published;
  tcp_.others.enter_table(c);
  c.holds_port = true;
  ports.hold(key.local_port);
  c.iss = isn ? *isn : tcp_.choose_isn(key, now);
  c.ts_offset = tcp_.choose_ts_offset(key);
  auto& h = c.hot;
  h.rcv_wscale = tcp_.receiver.choose_window_scale(o);
  h.snd_una = c.iss;
  h.snd_nxt = c.iss + 1;
  h.state = State::syn_sent;
  opening_.push_back(c);
  stats_.add(Counter::active_opens);
  probe::connect(c.key);
  start != nullptr ? send_fast_open_syn(c, *start, now) : tcp_.send_syn(c, now);
  tcp_.sender.arm_retransmit(c, now);
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

void ActiveOpens::on_syn_ack(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  ++c.segments_received;
  c.accept_hook.unlink();
  tcp_.wheel.cancel(c.retransmit_timer);
  h.snd_una = c.iss + 1;
  h.rcv_nxt = s.seq + 1;
  c.irs = s.seq;
  const bool ecn = (s.flags & (kEce | kCwr)) == kEce && tcp_.offers_ecn(c);
  tcp_.apply_syn_options(c, s.options, s.window, false, ecn, now);
  h.snd_wl1 = s.seq;
  h.snd_wl2 = s.ack;
  if ((s.packet->flags & kNotHome) != 0) [[unlikely]] tcp_.others.settle(c);
  if (c.fast_open) [[unlikely]] finish_fast_open(c, s, now);
  // RFC 6298 section 3 (Karn): no sample from a SYN that was sent again; timestamps tell (RFC 7323 section
  // 4).
  if (!h.retransmitting_syn) tcp_.sender.take_rtt_sample(c, now - c.created, now);
  recall_metrics(c, now);
  c.tx.backoff = 0;
  h.retransmitting_syn = false;
  // On the loopback wire the other end is to be there when connect() is over.
  c.path->local ? tcp_.send_ack(c, now) : tcp_.request_ack(c);
  tcp_.raise(c, SocketBase::kWriteEdge);
  if (c.tx.unsent != nullptr) tcp_.sender.push(c, now);  // what the SYN has not brought across
}

// RFC 9293 3.5: both sides opened at once.
void ActiveOpens::on_crossed_syn(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  c.accept_hook.unlink();
  h.rcv_nxt = s.seq + 1;
  c.irs = s.seq;
  const bool ecn = (s.flags & (kEce | kCwr)) == (kEce | kCwr) && tcp_.offers_ecn(c);
  tcp_.apply_syn_options(c, s.options, s.window, false, ecn, now);
  if (c.fast_open) tcp_.sender.rewind_syn_data(c);
  h.state = State::syn_received;
  c.tx.backoff = 0;
  tcp_.send_syn(c, now);
  tcp_.sender.arm_retransmit(c, now);
}

void ActiveOpens::on_syn_sent(Connection& c, Segment& s, Time now) {
  const bool ack_good = s.has(kAck) && acks_our_syn(c, s);
  // RFC 7323 section 3.2 and RFC 5961 section 5 leave nothing else that may be acknowledged: only our SYN was
  // sent.
  if (s.has(kAck) && !ack_good) {
    // The peer has a connection for this flow: another stack's, or one that is long gone, maybe of an earlier life of this
    // program. Our RST ends that one, and a new SYN finds the way free.
    if (tcp_.others.forward_unknown(s, now)) return;
    stats_.add(Counter::bad_ack);
    if (!s.has(kRst)) tcp_.send_reset_for(s, now);
    if (c.tx.retries == 0) tcp_.wheel.arm(c.retransmit_timer, now + kSynAgain);
  } else if (s.has(kAck) && !s.has(kRst) && echoes_another(c, s, now)) {
    stats_.add(Counter::paws_rejected);
    tcp_.send_reset_for(s, now);
  } else if (s.has(kRst)) {
    if (ack_good) {
      stats_.add(Counter::resets_received);
      tcp_.finish(c, Errc::connection_refused);
    } else {
      stats_.add(Counter::no_ack_flag);
    }
  } else if (s.has(kSyn) && !s.has(kAck)) {
    on_crossed_syn(c, s, now);
  } else if (s.has(kSyn)) {
    on_syn_ack(c, s, now);
    if (s.len > 0 ||
        s.has(kFin)) {  // RFC 9293 3.10.7.3: data and FIN of a SYN-ACK are processed as in ESTABLISHED
      s.flags = static_cast<std::uint8_t>(s.flags & ~kSyn);
      s.seq += 1;
      return tcp_.on_segment(c, s, now);
    }
  } else {
    stats_.add(Counter::out_of_window);
  }
}

// The neighbour does not answer: there is no ICMP error for what never left.
void ActiveOpens::on_unreachable(const IpAddress& next_hop) {
  for (Connection* c = opening_.front(); c != nullptr;) {
    Connection* next = opening_.next(*c);
    if (!c->path->local && c->path->next_hop(c->key.remote) == next_hop) tcp_.finish(*c, Errc::host_unreachable);
    c = next;
  }
}

}  // namespace mtcp::stack

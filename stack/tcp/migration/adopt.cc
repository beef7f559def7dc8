// Connections that another stack of the device hands over (handover.cc), as they arrive.
#include <algorithm>
#include <cstring>

#include "stack/port/port.hh"
#include "stack/tcp/migration/handover.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

constexpr std::uint32_t kMostBytes = 1U << 24;
constexpr std::uint8_t kMostScale = 14;  // RFC 7323 section 2.3
constexpr std::uint32_t kMostAge = 100'000'000;  // ms: far longer than anything waits for
constexpr std::uint32_t kMostWindow = 65535U << kMostScale;
// All messages of a connection are written at once; what is not here by then was lost for want of a packet.
constexpr Duration kDataPatience = seconds(1);

SynTerms terms_of(const HandoverTerms& t) {
  SynTerms terms;
  terms.peer_mss = t.peer_mss;
  terms.snd_wscale = std::min(t.snd_wscale, kMostScale);
  terms.wscale = t.wscale != 0;
  terms.timestamps = t.timestamps != 0;
  terms.sack = t.sack != 0;
  terms.ecn = (t.ecn & 1) != 0;
  return terms;
}

// The message in `p`, if it is one of that kind.
template <typename Message>
bool read(const Packet& p, Message& m) {
  if (p.len != sizeof m) return false;
  std::memcpy(&m, p.data, sizeof m);
  return true;
}

}  // namespace

void Migration::receive(Packet* p, Time now) {
  if ((p->flags & kPull) != 0) {
    serve_pull(*p, now);
    return tcp_.cache.free(p);
  }
  HandoverHead head;
  HandoverConnection connection;
  HandoverHalfOpen half_open;
  if (p->len < sizeof head) return tcp_.cache.free(p);
  std::memcpy(&head, p->data, sizeof head);
  if (head.version == kHandoverVersion && tcp_.network.is_local(head.key.local) && !tcp_.network.is_local(head.key.remote)) {
    if (head.kind == HandoverHead::data) {
      p->pull(sizeof head);
      adopt_data(head, p, now);
    } else if ((head.kind == HandoverHead::connection || head.kind == HandoverHead::passed) && read(*p, connection)) {
      adopt(connection, now);
    } else if (head.kind == HandoverHead::half_open && read(*p, half_open)) {
      adopt_half_open(half_open, now);
    }
  }
  if (p != nullptr) tcp_.cache.free(p);
}

// The listener for a flow of another stack: one that was left here, too, hands it over again.
Listener* Migration::find_adopter(const FlowKey& key, std::uint32_t hash) {
  const Endpoint local{key.local, key.local_port};
  Listener* l = tcp_.passive.find_listener(local, hash);
  return l != nullptr ? l : tcp_.passive.find_listener(local, hash, true);
}

// What stands in the way: nothing but another stack's half of an open, or what is left of a former connection.
bool Migration::make_way(const FlowKey& key, std::uint32_t hash) {
  const FlowRef ref = tcp_.find_flow(key, hash);
  if (ref.kind() == FlowRef::Kind::connection) return false;
  if (ref.kind() == FlowRef::Kind::syn_entry) tcp_.passive.drop(tcp_.passive.entries.at(ref.index()));
  if (ref.kind() == FlowRef::Kind::time_wait) tcp_.time_waits.drop(ref.index());
  return true;
}

void Migration::refuse_adoption(const HandoverConnection& m, Time now) {
  std::erase_if(expected_, [&](const Expected& e) { return e.key == m.head.key && e.arrived == nullptr; });
  (void)tcp_.steering->settle(m.head.key, false);
  stats_.add(Counter::adoptions_refused);
  const Result<const Path*> path = tcp_.network.path(m.head.key.remote, m.head.key.local);
  if (!path) return stats_.add(Counter::no_route);
  Tcp::Header h;
  h.key = m.head.key;
  h.seq = Seq(m.snd_nxt);
  h.ack = Seq(m.rcv_nxt);
  h.flags = kRst | kAck;
  stats_.add(Counter::resets_sent);
  tcp_.send_bare(h, **path, TxPriority::control, now);
}

// --- Worker::expect

Migration::Expected* Migration::find_expected(const FlowKey& key) {
  const auto at = std::ranges::find(expected_, key, &Expected::key);
  return at == expected_.end() ? nullptr : &*at;
}

void Migration::expect(const FlowKey& key) {
  if (find_expected(key) == nullptr) expected_.push_back({key});
}

Connection* Migration::take_expected(const FlowKey& key) {
  const Expected* e = find_expected(key);
  Connection* arrived = e != nullptr ? e->arrived : nullptr;
  if (arrived != nullptr) expected_.erase(expected_.begin() + (e - expected_.data()));
  return arrived;
}

void Migration::stop_expecting(const FlowKey& key, Time now) {
  if (Connection* c = take_expected(key); c != nullptr) return tcp_.abort(*c, now);
  std::erase_if(expected_, [&](const Expected& e) { return e.key == key; });
}

// --- a connection

void Migration::adopt(const HandoverConnection& m, Time now) {
  const FlowKey& key = m.head.key;
  const std::uint32_t hash = tcp_.flows.hash(key);
  const Result<const Path*> path = tcp_.network.path(key.remote, key.local);
  if (m.data > kMostBytes || !path || !make_way(key, hash)) {
    (void)tcp_.steering->settle(key, false);
    return stats_.add(Counter::adoptions_refused);
  }
  // Who expects it sets its options then.
  const bool passed = m.head.kind == HandoverHead::passed;
  Expected* expected = passed ? find_expected(key) : nullptr;
  Listener* l = passed ? nullptr : find_adopter(key, hash);
  const bool wanted = l != nullptr || (expected != nullptr && expected->arrived == nullptr);
  Connection* made = wanted ? tcp_.new_connection(key, hash, **path, l != nullptr ? l->options : SocketOptions{}, now) : nullptr;
  if (made == nullptr) return refuse_adoption(m, now);
  Connection& c = *made;
  if (!tcp_.flows.insert(hash, FlowRef(FlowRef::Kind::connection, c.index))) {
    tcp_.destroy(c);
    return refuse_adoption(m, now);
  }
  tcp_.others.enter_table(c);
  c.published = tcp_.steering->settle(key, true);
  restore(c, m, now);
  if (expected != nullptr)
    expected->arrived = &c;
  else
    tcp_.passive.queue_for_accept(*l, c);
  stats_.add(Counter::connections_adopted);
  probe::adopt(c.key);
  const Seq end = Seq(m.rcv_nxt) - (m.fin_received != 0 ? 1U : 0U);
  adopting_.push_back({c.index, key, end, m.fin_received != 0, now + kDataPatience});
  if (m.data == 0) complete_adoption(c, now);
}

// As it was when the peer's data had not come yet: that follows, as if from the wire.
void Migration::restore(Connection& c, const HandoverConnection& m, Time now) {
  auto& h = c.hot;
  c.was_passive = true;
  c.iss = Seq(m.terms.iss);
  c.irs = Seq(m.terms.irs);
  c.ts_offset = m.terms.ts_offset;
  c.created = now - milliseconds(std::min(m.terms.age_ms, kMostAge));
  h.snd_una = h.snd_nxt = Seq(m.snd_nxt);
  h.rcv_nxt = Seq(m.rcv_nxt) - m.data - (m.fin_received != 0 ? 1U : 0U);
  h.rcv_wscale = std::min(m.terms.rcv_wscale, kMostScale);
  h.ts_recent = m.terms.ts_recent;
  tcp_.apply_terms(c, terms_of(m.terms), std::min(m.snd_wnd, kMostWindow), false, now);
  c.recovery.ecn_echo = h.ecn && (m.terms.ecn & 2) != 0;
  c.recovery.ecn_seen = h.ecn && (m.terms.ecn & 4) != 0;
  h.mss = std::clamp<std::uint16_t>(m.mss, 1, h.mss);
  h.snd_wl1 = Seq(m.snd_wl1);
  h.snd_wl2 = Seq(m.snd_wl2);
  // What has been announced is not taken back; but no window is so large that sequence numbers lose their order.
  h.rcv_adv = later(h.rcv_adv, earlier(Seq(m.rcv_adv), h.rcv_nxt + kMostWindow));
  c.path_mtu = m.path_mtu == 0 ? 0 : std::clamp(m.path_mtu, 68U, 65535U);
  c.tx.max_window = std::clamp(m.max_window, h.snd_wnd, kMostWindow);
  const auto time_of = [this](std::int64_t ns) {
    return std::clamp(Duration(ns), Duration::zero(), options_.tcp.rto_max);
  };
  c.tx.srtt = time_of(m.srtt);
  c.tx.rttvar = c.tx.max_deviation = time_of(m.rttvar);
  c.tx.deviation = c.tx.rttvar;
  c.tx.rtt_round_end = c.hot.snd_nxt;
  c.tx.rto = time_of(m.rto);
  c.rx.ts_recent_age = Tcp::ts_clock(now) / 1000 - m.ts_recent_age;
  const Seq mark(m.urgent_seq);
  if (m.urgent_state != 0 && m.urgent_state <= static_cast<std::uint8_t>(Urgent::Byte::taken) && !before(mark, h.rcv_nxt))
    if (Urgent* u = Tcp::urgent_of(c); u != nullptr) *u = {static_cast<Urgent::Byte>(m.urgent_state), std::byte{m.urgent_byte}, mark, {}};
}

// --- data

// Its data is still in the message ring behind it.
bool Migration::is_arriving(const Connection& c) const {
  return std::ranges::any_of(adopting_, [&](const Migration::Adopting& a) { return a.index == c.index; });
}

void Migration::adopt_data(const HandoverHead& head, Packet*& p, Time now) {
  const auto is_it = [&](const Migration::Adopting& a) { return a.key == head.key; };
  const auto at = std::find_if(adopting_.begin(), adopting_.end(), is_it);
  if (at == adopting_.end()) return;
  Connection& c = tcp_.connections.at(at->index);
  auto& h = c.hot;
  p->seq = Seq(head.seq);
  if (c.detached && p->len != 0) {  // as on_payload(): closed before it could be read
    stats_.add(Counter::data_after_close);
    tcp_.send_reset(c, now);
    return tcp_.finish(c, Errc::connection_reset);
  }
  // Beyond RCV.NXT: one is missing, see abandon_adoptions(). Before it: the peer has sent that again, and was faster.
  const bool takes = can_receive(h.state) && !after(p->seq + p->len, at->end) && !after(p->seq, h.rcv_nxt);
  const std::uint32_t known = takes ? std::min(h.rcv_nxt - p->seq, p->len) : p->len;
  p->pull(known);
  p->seq += known;
  if (const std::uint32_t n = p->len; n != 0) {
    tcp_.receiver.enqueue_in_order(c, p);
    h.rcv_nxt += n;
    c.bytes_received += n;
    tcp_.raise(c, SocketBase::kReadEdge);
  }
  if (at_or_after(h.rcv_nxt, at->end)) complete_adoption(c, now);
}

// All is here that the other stack had: what came after it, the peer's FIN, and an ACK for all of it.
void Migration::complete_adoption(Connection& c, Time now) {
  const auto is_it = [&](const Migration::Adopting& a) { return a.index == c.index; };
  const auto at = std::find_if(adopting_.begin(), adopting_.end(), is_it);
  const Migration::Adopting a = *at;
  adopting_.erase(at);
  tcp_.receiver.drain_out_of_order(c);
  tcp_.request_ack(c);
  if (c.hot.fin_received) return;
  if (a.fin) {
    c.rx.fin_pending = true;
    c.rx.fin_seq = a.end;
  }
  if (c.rx.fin_pending && at_or_after(c.hot.rcv_nxt, c.rx.fin_seq)) (void)tcp_.receiver.accept_fin(c, now);
}

// The application has closed it, or the peer has reset it.
void Migration::erase_adoption(const Connection& c) {
  std::erase_if(adopting_, [&](const Migration::Adopting& a) { return a.index == c.index; });
}

// Data that the other stack had acknowledged did not arrive: nobody has it any more.
void Migration::abandon_adoptions(Time now) {
  while (!adopting_.empty() && adopting_.front().deadline <= now) {
    Connection& c = tcp_.connections.at(adopting_.front().index);
    adopting_.erase(adopting_.begin());
    stats_.add(Counter::connections_aborted);
    tcp_.send_reset(c, now);
    tcp_.finish(c, Errc::connection_reset);
  }
}

// --- half-open ones

void Migration::adopt_half_open(const HandoverHalfOpen& m, Time now) {
  const FlowKey& key = m.head.key;
  const std::uint32_t hash = tcp_.flows.hash(key);
  const Result<const Path*> path = tcp_.network.path(key.remote, key.local);
  const Time created = now - milliseconds(std::min(m.terms.age_ms, kMostAge));
  Listener* l = find_adopter(key, hash);
  // Of two answers to one peer the later one counts: it asked again because it had not seen the first.
  const FlowRef ref = tcp_.find_flow(key, hash);
  const bool older = ref.kind() == FlowRef::Kind::syn_entry && tcp_.passive.entries.at(ref.index()).created >= created;
  const bool possible = path && l != nullptr && !older && make_way(key, hash);
  (void)tcp_.steering->settle(key, false);  // it is not on its way any more
  if (!possible) return stats_.add(Counter::adoptions_refused);
  // Another stack has the connection by now: the peer has taken its answer, and this is the half of an open that it has not.
  if (!tcp_.steering->publish(key, Steering::FlowKind::half_open)) return stats_.add(Counter::half_open_lost);
  const std::uint32_t index = tcp_.passive.entries.create();
  if (index == Slab<SynEntry>::kNone) {
    tcp_.steering->withdraw(key);
    return stats_.add(Counter::syn_backlog_full);
  }
  SynEntry& e = tcp_.passive.entries.at(index);
  e.key = key;
  e.hash = hash;
  e.index = index;
  e.iss = Seq(m.terms.iss);
  e.irs = Seq(m.terms.irs);
  e.ts_recent = m.terms.ts_recent;
  e.ts_offset = m.terms.ts_offset;
  e.terms = terms_of(m.terms);
  e.rcv_wscale = std::min(m.terms.rcv_wscale, kMostScale);
  e.window = std::min<std::uint32_t>(m.window, 65535);
  e.acked = m.acked != 0;
  e.retries = std::max<std::uint8_t>(m.retries, 1);  // no RTT sample of a detour
  e.listener = l;
  e.path = *path;
  e.created = created;
  if (!tcp_.flows.insert(hash, FlowRef(FlowRef::Kind::syn_entry, index))) {
    tcp_.passive.entries.destroy(index);
    tcp_.steering->withdraw(key);
    return stats_.add(Counter::no_connection_slots);
  }
  ++l->syn_count;
  e.published = true;
  ++tcp_.passive.published;
  stats_.add(Counter::connections_adopted);
  probe::adopt(e.key);
  tcp_.passive.schedule(e, now);
}

}  // namespace mtcp::stack

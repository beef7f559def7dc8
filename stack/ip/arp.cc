#include "stack/ip/arp.hh"

#include <algorithm>

#include "stack/ip/route.hh"

namespace mtcp::stack {

using State = Neighbour::State;

Arp::Arp(Link& link, const RouteTable& routes) : link_(link), routes_(routes) {}

Arp::~Arp() {
  for (Neighbour& n : table_.all())
    while (Packet* p = n.queue.pop_front()) link_.release(p);
}

Neighbour* Arp::create(std::uint32_t address) {
  PacketList evicted;
  Neighbour* n = table_.insert(address, evicted);
  drop_waiting(evicted, Counter::neighbour_queue_full);
  return n;
}

void Arp::pin(std::uint32_t address) {
  Neighbour* n = table_.find(address);
  if (n == nullptr) n = create(address);
  if (n == nullptr) return;
  n->pinned = true;
  n->state = State::failed;  // nothing known, nothing asked
}

void Arp::drop_waiting(PacketList& list, Counter reason) {
  while (Packet* p = list.pop_front()) {
    --waiting_;
    link_.drop(p, reason);
  }
}

void Arp::send_slowly(Packet* p, Neighbour* n, std::uint32_t next_hop, TxPriority priority, Time now) {
  if (n == nullptr) {
    n = create(next_hop);
    if (n == nullptr) return link_.drop(p, Counter::neighbour_queue_full);
    start_probing(*n, State::incomplete, now);
  }
  switch (n->state) {
    case State::reachable:
    case State::stale:
      start_probing(*n, State::probe, now);
      return transmit(p, *n, priority);
    case State::probe:
      return transmit(p, *n, priority);
    case State::failed:
      start_probing(*n, State::incomplete, now);
      return wait(p, *n);
    case State::incomplete:
      return wait(p, *n);
  }
}

// As Linux's unres_qlen: the oldest gives way, since its sender is the first to try again.
void Arp::wait(Packet* p, Neighbour& n) {
  if (n.waiting == kMaxWaiting) {
    Packet* oldest = n.queue.pop_front();
    --n.waiting;
    --waiting_;
    link_.drop(oldest, Counter::neighbour_queue_full);
  }
  // Of a small pool no more than a part: others go on sending.
  const std::size_t most = std::min(kMaxWaitingInAll, link_.cache.pool().capacity() / 8);
  if (waiting_ >= most) return link_.drop(p, Counter::neighbour_queue_full);
  if ((p->flags & kKeep) != 0) {
    // Its link is in use (the sender's retransmission queue), and it may change before the answer comes.
    p = link_.copy(*p);
    if (p == nullptr) return;
  }
  n.queue.push_back(p);
  ++n.waiting;
  ++waiting_;
}

void Arp::start_probing(Neighbour& n, State state, Time now) {
  n.state = state;
  n.probes = 0;
  probe(n, now);
}

// A known MAC is asked directly first, so that confirming costs the others on the link nothing (RFC
// 1122 2.3.2.1).
void Arp::probe(Neighbour& n, Time now) {
  if (n.state == State::probe && n.probes < kProbes) {
    send_request(n.address, n.mac);
  } else if (requests_.take(now)) {
    send_request(n.address, kBroadcastMac);
  } else {
    link_.stats.add(Counter::arp_rate_limited);
  }
  ++n.probes;
  n.next_probe = now + kProbeInterval;
  due_ = std::min(due_, n.next_probe);
}

void Arp::fail(Neighbour& n) {
  n.state = State::failed;
  n.waiting = 0;
  drop_waiting(n.queue, Counter::neighbour_failed);
  if (failed_.size() < kMaxNeighbours) failed_.push_back(n.address);
}

void Arp::suspect(std::uint32_t address, Time now) {
  Neighbour* n = table_.find(address);
  if (n == nullptr || !n->resolved() || n->state == State::probe || now - n->updated < kLockTime) return;
  if (now < n->next_probe || !requests_.take(now)) return;
  n->next_probe = now + kProbeInterval;
  send_request(n->address, kBroadcastMac);
}

bool Arp::next_moved(std::uint32_t& address) {
  if (moved_.empty()) return false;
  address = moved_.front();
  moved_.pop_front();
  return true;
}

bool Arp::next_failed(std::uint32_t& address) {
  if (failed_.empty()) return false;
  address = failed_.front();
  failed_.pop_front();
  return true;
}

Time Arp::run_timers(Time now) {
  if (now >= next_announce_) {
    next_announce_ = kNever;
    send_announcements();
  }
  if (now >= due_) {
    due_ = kNever;
    for (Neighbour& n : table_.all()) {
      if (n.state != State::incomplete && n.state != State::probe) continue;
      if (now < n.next_probe) {
        due_ = std::min(due_, n.next_probe);
        continue;
      }
      const std::uint8_t limit = n.state == State::probe ? 2 * kProbes : kProbes;
      if (n.probes < limit)
        probe(n, now);
      else
        fail(n);
    }
  }
  return std::min(due_, next_announce_);
}

void Arp::input(Packet* p, Time now) {
  ArpPacket a;
  const ParseError e = parse_arp(p->bytes(), a);
  if (e != ParseError::none)
    return link_.drop(p, e == ParseError::too_short ? Counter::rx_short : Counter::rx_bad_arp);
  link_.release(p);
  if (a.sender_mac.is_multicast()) return link_.stats.add(Counter::rx_bad_arp);
  if (a.sender_mac == link_.mac) return link_.stats.add(Counter::rx_bad_source);
  if (routes_.is_own(a.sender)) return on_conflict(now);
  const bool for_us = routes_.is_own(a.target);
  // RFC 5227 section 2.1.1: a sender of 0.0.0.0 asks whether the address is taken. It gets an answer, and
  // teaches nothing.
  if (a.sender != 0) {
    if (routes_.is_bad_source(a.sender)) return link_.stats.add(Counter::rx_bad_source);
    learn(a, for_us, now);
  }
  if (a.operation != kArpRequest || !for_us) return;
  if (!replies_.take(now)) return link_.stats.add(Counter::arp_rate_limited);
  link_.stats.add(Counter::arp_replies_sent);
  send_packet({kArpReply, link_.mac, a.target, a.sender_mac, a.sender}, a.sender_mac);
}

// RFC 826, "Packet Reception", as Linux applies it: an entry that we have is updated, and only a request for
// one of our addresses from the link makes a new one. An answer that nobody asked for does not make a
// neighbour reachable, and a MAC that has just been learnt stands for a while.
void Arp::learn(const ArpPacket& a, bool for_us, Time now) {
  Neighbour* n = table_.find(a.sender);
  if (n == nullptr) {
    if (!for_us || a.operation != kArpRequest || !routes_.on_link(a.sender)) return;
    n = create(a.sender);
    if (n == nullptr) return;
    return confirm(*n, a.sender_mac, State::stale, now);
  }
  const bool asked = n->state == State::incomplete || n->state == State::probe;
  if (asked && for_us && a.operation == kArpReply) return confirm(*n, a.sender_mac, State::reachable, now);
  if (!n->resolved()) {
    // Not an answer, but it tells what we wanted to know. An unsolicited reply to a failed neighbour does
    // not.
    if (n->state == State::incomplete || a.operation == kArpRequest)
      confirm(*n, a.sender_mac, State::stale, now);
    return;
  }
  if (n->mac == a.sender_mac || now - n->updated < kLockTime) return;
  confirm(*n, a.sender_mac, State::stale, now);
}

void Arp::confirm(Neighbour& n, const MacAddress& mac, State state, Time now) {
  if (n.resolved() && n.mac != mac && moved_.size() < kMaxNeighbours) moved_.push_back(n.address);
  n.state = state;
  n.mac = mac;
  n.updated = now;
  n.probes = 0;
  write_ethernet(n.header.data(), {mac, link_.mac, kEtherIpv4});
  n.waiting = 0;
  while (Packet* p = n.queue.pop_front()) {
    --waiting_;
    transmit(p, n, TxPriority::control);  // one priority for all: their order stays
  }
}

// RFC 5227 section 2.4: another host uses our address. We defend it, but not in an endless duel.
void Arp::on_conflict(Time now) {
  link_.stats.add(Counter::address_conflict);
  if (now - defended_ < kDefendInterval) return;
  defended_ = now;
  send_announcements();
}

void Arp::announce(Time now) {
  // The frames in front of known neighbours carry our MAC, which a link that comes back may have changed.
  for (Neighbour& n : table_.all()) {
    if (n.resolved()) write_ethernet(n.header.data(), {n.mac, link_.mac, kEtherIpv4});
  }
  send_announcements();
  next_announce_ = now + kAnnounceInterval;
}

void Arp::send_announcements() {
  for (const std::uint32_t own : routes_.own())
    send_packet({kArpRequest, link_.mac, own, {}, own}, kBroadcastMac);
}

void Arp::send_request(std::uint32_t target, const MacAddress& to) {
  link_.stats.add(Counter::arp_requests_sent);
  send_packet({kArpRequest, link_.mac, routes_.source_towards(target), {}, target}, to);
}

void Arp::send_packet(const ArpPacket& a, const MacAddress& to) {
  Packet* p = link_.alloc();
  if (p == nullptr) return;
  p->len = kEthernetHeader + kArpPacket;
  write_ethernet(p->data, {to, link_.mac, kEtherArp});
  write_arp(p->data + kEthernetHeader, a);
  link_.send(p, TxPriority::control);
}

}  // namespace mtcp::stack

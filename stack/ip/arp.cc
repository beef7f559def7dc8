#include "stack/ip/arp.hh"

#include "stack/ip/route.hh"

namespace mtcp::stack {

using State = Neighbour::State;

Time Arp::run_timers(Time now) {
  if (now >= next_announce_) {
    next_announce_ = kNever;
    send_announcements();
  }
  return next_announce_;
}

void Arp::input(Packet* p, Resolver& resolver, Time now) {
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
    learn(a, for_us, resolver, now);
  }
  if (a.operation != kArpRequest || !for_us) return;
  if (!replies_.take(now)) return link_.stats.add(Counter::arp_rate_limited);
  link_.stats.add(Counter::arp_replies_sent);
  send_packet({kArpReply, link_.mac, a.target, a.sender_mac, a.sender}, a.sender_mac);
}

// RFC 826, "Packet Reception", as Linux applies it: an entry that we have is updated, and only a request for
// one of our addresses from the link makes a new one. An answer that nobody asked for does not make a
// neighbour reachable, and a MAC that has just been learnt stands for a while.
void Arp::learn(const ArpPacket& a, bool for_us, Resolver& resolver, Time now) {
  const IpAddress sender = IpAddress::v4(a.sender);
  Neighbour* n = resolver.find(sender);
  if (n == nullptr) {
    if (!for_us || a.operation != kArpRequest || !routes_.on_link(a.sender)) return;
    n = resolver.create(sender);
    if (n == nullptr) return;
    return resolver.confirm(*n, a.sender_mac, State::stale, now);
  }
  const bool asked = n->state == State::incomplete || n->state == State::probe;
  if (asked && for_us && a.operation == kArpReply) return resolver.confirm(*n, a.sender_mac, State::reachable, now);
  if (!n->resolved()) {
    // Not an answer, but it tells what we wanted to know. An unsolicited reply to a failed neighbour does
    // not.
    if (n->state == State::incomplete || a.operation == kArpRequest)
      resolver.confirm(*n, a.sender_mac, State::stale, now);
    return;
  }
  if (n->mac == a.sender_mac || now - n->updated < Resolver::kLockTime) return;
  resolver.confirm(*n, a.sender_mac, State::stale, now);
}

// RFC 5227 section 2.4: another host uses our address. We defend it, but not in an endless duel.
void Arp::on_conflict(Time now) {
  link_.stats.add(Counter::address_conflict);
  if (now - defended_ < kDefendInterval) return;
  defended_ = now;
  send_announcements();
}

void Arp::announce(Time now) {
  send_announcements();
  next_announce_ = now + kAnnounceInterval;
}

void Arp::send_announcements() {
  for (const std::uint32_t own : routes_.own())
    send_packet({kArpRequest, link_.mac, own, {}, own}, kBroadcastMac);
}

void Arp::ask(const IpAddress& target, const MacAddress& to) {
  link_.stats.add(Counter::arp_requests_sent);
  const std::uint32_t address = target.as_v4();
  send_packet({kArpRequest, link_.mac, routes_.source_towards(address), {}, address}, to);
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

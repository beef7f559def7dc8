// ARP (RFC 826): asks for the MAC of a neighbour, answers for our own addresses, and announces them (RFC 5227).
#pragma once

#include <cstdint>

#include "stack/ip/link.hh"
#include "stack/ip/resolver.hh"
#include "stack/ip/token_bucket.hh"
#include "stack/wire/arp.hh"

namespace mtcp::stack {

class RouteTable;

class Arp final : public Resolver::Asker {
 public:
  static constexpr Duration kAnnounceInterval = seconds(2);  // RFC 5227 section 1.1
  static constexpr Duration kDefendInterval = seconds(10);   // RFC 5227 section 1.1

  Arp(Link& link, const RouteTable& routes) : link_(link), routes_(routes) {}

  // A received ARP packet, from behind the Ethernet header. Takes the packet.
  void input(Packet* p, Resolver& resolver, Time now);
  Time run_timers(Time now);
  void announce(Time now);
  void ask(const IpAddress& target, const MacAddress& to) override;

 private:
  void learn(const ArpPacket& a, bool for_us, Resolver& resolver, Time now);
  void on_conflict(Time now);
  void send_packet(const ArpPacket& a, const MacAddress& to);
  void send_announcements();

  Link& link_;
  const RouteTable& routes_;
  TokenBucket replies_{1000, 1000};
  Time next_announce_ = kNever;
  Time defended_{Duration::min() / 2};
};

}  // namespace mtcp::stack

// Neighbour discovery (RFC 4861): asks for the MAC of a neighbour, answers for our own addresses. Addresses and routers are the
// configuration's, so router advertisements and redirects are not looked at.
#pragma once

#include <cstdint>

#include "stack/ip/link.hh"
#include "stack/ip/resolver.hh"
#include "stack/ip/token_bucket.hh"
#include "stack/wire/icmpv6.hh"

namespace mtcp::stack {

class RouteTable;

class NeighbourDiscovery final : public Resolver::Asker {
 public:
  NeighbourDiscovery(Link& link, const RouteTable& routes) : link_(link), routes_(routes) {}

  // The groups of our addresses (RFC 4291 section 2.7.1), as addresses and as MAC addresses (RFC 2464 section 7); and all nodes.
  [[nodiscard]] bool is_group(const IpAddress& a) const;
  [[nodiscard]] bool is_group(const MacAddress& mac) const;
  // A solicitation or an advertisement, `p` from the ICMPv6 header on; its checksum is right. Takes the packet.
  void input(Packet* p, const Ipv6Header& ip, const Icmpv6Header& icmp, Resolver& resolver, Time now);
  // Tells all nodes our addresses (RFC 4861 section 7.2.6).
  void announce();
  void ask(const IpAddress& target, const MacAddress& to) override;

 private:
  struct Message;
  void on_solicitation(const Message& m, const Ipv6Header& ip, Resolver& resolver, Time now);
  void on_advertisement(const Message& m, Resolver& resolver, Time now);
  void send(std::uint8_t type, std::uint32_t flags, const IpAddress& target, const IpAddress& source,
            const IpAddress& destination, const MacAddress& to);

  Link& link_;
  const RouteTable& routes_;
  TokenBucket replies_{1000, 1000};
};

}  // namespace mtcp::stack

// Frames from the device: whether they are for us, and for which protocol.
#include "stack/wire/ethernet.hh"

#include "stack/ip/network_impl.hh"

namespace mtcp::stack {

Network::Input Network::Impl::on_frame(Packet* p, Segment& segment, IcmpError& error, Time now) {
  link.stats.add(Counter::rx_packets);
  link.stats.add(Counter::rx_bytes, p->len);
  EthernetHeader h;
  if (parse_ethernet(p->bytes(), h) != ParseError::none) return drop(p, Counter::rx_short);
  // RFC 1122 3.3.6: a datagram for one host does not travel in a broadcast frame; no group concerns TCP (RFC
  // 9293 MUST-57). Only ARP and neighbour discovery are taken from there.
  if (h.destination != link.mac && (h.destination != kBroadcastMac || h.type != kEtherArp) &&
      (!nd.is_group(h.destination) || h.type != kEtherIpv6)) {
    return drop(p, Counter::rx_not_ours);
  }
  p->pull(kEthernetHeader);
  if (h.type == kEtherIpv4) return on_ipv4(p, segment, error, now, false);
  if (h.type == kEtherIpv6) return on_ipv6(p, segment, error, now, false);
  if (h.type != kEtherArp || kernel != nullptr) return drop(p, Counter::rx_unknown_protocol);
  arp.input(p, resolver, now);
  return Input::consumed;
}

}  // namespace mtcp::stack

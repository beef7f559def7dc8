// IPv6 input from the loopback wire: no extension headers, no ICMPv6.
#include "stack/wire/ipv6.hh"

#include "stack/ip/network_impl.hh"

namespace mtcp::stack {

Network::Input Network::Impl::on_ipv6(Packet* p, Segment& segment) {
  Ipv6Header h;
  const ParseError e = parse_ipv6(p->bytes(), h);
  if (e != ParseError::none) {
    return drop(p, e == ParseError::too_short ? Counter::rx_short : Counter::rx_bad_ip_header);
  }
  if (!routes.is_local(h.destination)) return drop(p, Counter::rx_not_ours);
  if (h.next_header != kProtocolTcp) return drop(p, Counter::rx_unknown_protocol);
  p->trim(kIpv6Header + h.payload_length);
  p->pull(kIpv6Header);
  return on_tcp(p, h.source, h.destination, h.traffic_class & 3, false, segment);
}

}  // namespace mtcp::stack

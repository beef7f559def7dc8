// IPv6 input (RFC 8200). Nothing is forwarded, nothing is put together from fragments.
#include "stack/wire/ipv6.hh"

#include "stack/ip/network_impl.hh"
#include "stack/wire/icmpv6.hh"

namespace mtcp::stack {

Network::Input Network::Impl::on_ipv6(Packet* p, Segment& segment, IcmpError& error, Time now,
                                      bool from_loopback) {
  Ipv6Header h;
  const ParseError e = parse_ipv6(p->bytes(), h);
  if (e != ParseError::none) {
    return drop(p, e == ParseError::too_short ? Counter::rx_short : Counter::rx_bad_ip_header);
  }
  if (from_loopback) {
    if (!routes.is_local(h.destination)) return drop(p, Counter::rx_not_ours);
  } else {
    const bool solicitation = h.next_header == kProtocolIcmpv6 && kernel == nullptr;  // in what it comes is checked there
    if (!routes.is_own_v6(h.destination) && !(solicitation && nd.is_group(h.destination)))
      return drop(p, Counter::rx_not_ours);
    if (routes.is_bad_source_v6(h.source) && !solicitation) return drop(p, Counter::rx_bad_source);
  }
  p->trim(kIpv6Header + h.payload_length);
  p->pull(kIpv6Header);
  const Ipv6Payload payload = skip_extension_headers(p->bytes(), h.next_header);
  if (payload.error != ParseError::none) return drop(p, Counter::rx_bad_ip_header);
  if (payload.fragment) return drop(p, Counter::rx_fragment);
  p->pull(payload.offset);
  if (payload.protocol == kProtocolTcp) {
    const bool verify = !from_loopback && (p->flags & kRxL4Good) == 0;
    return on_tcp(p, h.source, h.destination, h.traffic_class & 3, verify, segment);
  }
  if (payload.protocol == kProtocolIcmpv6 && !from_loopback) return on_icmpv6(p, h, error, now);
  return drop(p, Counter::rx_unknown_protocol);
}

}  // namespace mtcp::stack

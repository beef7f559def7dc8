// IPv4 input (RFC 791, RFC 1122 section 3.2.1). Nothing is forwarded, nothing is put together from fragments.
#include "stack/wire/ipv4.hh"

#include "stack/ip/network_impl.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

Counter reason_of_ip(ParseError e) {
  switch (e) {
    case ParseError::too_short:
      return Counter::rx_short;
    case ParseError::bad_checksum:
      return Counter::rx_bad_ip_checksum;
    default:
      return Counter::rx_bad_ip_header;
  }
}

Counter reason_of_tcp(ParseError e) {
  switch (e) {
    case ParseError::too_short:
      return Counter::rx_short;
    case ParseError::bad_checksum:
      return Counter::rx_bad_tcp_checksum;
    default:
      return Counter::rx_bad_tcp_header;
  }
}

}  // namespace

Network::Input Network::Impl::on_ipv4(Packet* p, Segment& segment, IcmpError& error, Time now,
                                      bool from_loopback) {
  Ipv4Header h;
  const ParseError e = parse_ipv4(p->bytes(), !from_loopback, h);
  if (e != ParseError::none) return drop(p, reason_of_ip(e));
  if (h.fragment) return drop(p, Counter::rx_fragment);
  const IpAddress source = IpAddress::v4(h.source), destination = IpAddress::v4(h.destination);
  if (from_loopback) {
    if (!routes.is_local(destination)) return drop(p, Counter::rx_not_ours);
  } else {
    // 127.0.0.0/8 is ours on the loopback wire only (RFC 1122 3.2.1.3).
    if (!routes.is_own(h.destination)) return drop(p, Counter::rx_not_ours);
    if (routes.is_bad_source(h.source)) return drop(p, Counter::rx_bad_source);
  }
  p->trim(h.total_length);
  p->pull(h.header_length);
  if (h.protocol == kProtocolTcp) {
    const bool verify = !from_loopback && (p->flags & kRxL4Good) == 0;
    return on_tcp(p, source, destination, h.tos & 3, verify, segment);
  }
  if (h.protocol == kProtocolIcmp) return on_icmp(p, h, error, now, from_loopback);
  return drop(p, Counter::rx_unknown_protocol);
}

Network::Input Network::Impl::on_tcp(Packet* p, const IpAddress& source, const IpAddress& destination,
                                     std::uint8_t ecn, bool verify, Segment& segment) {
  const ParseError e = parse_tcp(p, source, destination, verify, segment);
  if (e != ParseError::none) return drop(p, reason_of_tcp(e));
  segment.ecn = ecn;
  return Input::segment;
}

}  // namespace mtcp::stack

// ICMP (RFC 792, RFC 1122 section 3.2.2): answers echo requests, and hands errors about TCP up.
#include "stack/wire/icmp.hh"

#include "stack/ip/network_impl.hh"

namespace mtcp::stack {

Network::Input Network::Impl::on_icmp(Packet* p, const Ipv4Header& ip, IcmpError& error, Time now,
                                      bool from_loopback) {
  IcmpHeader h;
  if (parse_icmp(p->bytes(), !from_loopback, h) != ParseError::none) return drop(p, Counter::rx_bad_icmp);
  switch (h.type) {
    case kIcmpEchoRequest:
      if (kernel != nullptr) return drop(p, Counter::icmp_ignored);  // it answers itself
      answer_echo(p, ip, now);
      return Input::consumed;
    case kIcmpTimeExceeded:
      if (h.code == kIcmpReassemblyTime) return drop(p, Counter::icmp_ignored);  // some fragment was lost, no more
      return on_icmp_error(p, ip, h, error);
    case kIcmpUnreachable:
      // As Linux does: a code that nobody has defined ends no connect().
      if (h.code > kIcmpLastUnreachable) return drop(p, Counter::icmp_ignored);
      return on_icmp_error(p, ip, h, error);
    case kIcmpParameterProblem:
      return on_icmp_error(p, ip, h, error);
    default:
      // Redirects would let others choose our routes; source quench is obsolete (RFC 6633).
      return drop(p, Counter::icmp_ignored);
  }
}

// RFC 1122 3.2.2.6. The request becomes the reply, in place. It came whole in one frame, so the reply fits
// into one.
void Network::Impl::answer_echo(Packet* p, const Ipv4Header& ip, Time now) {
  if (!echo_limit.take(now)) return link.drop(p, Counter::icmp_rate_limited);
  link.stats.add(Counter::icmp_echo_replies);
  p->data[0] = std::byte{kIcmpEchoReply};
  p->data[2] = p->data[3] = std::byte{0};
  store_checksum(p->data + 2, partial_sum(p->data, p->len));
  p->flags = 0;
  Ipv4Header reply;
  reply.source = ip.destination;
  reply.destination = ip.source;
  reply.protocol = kProtocolIcmp;
  reply.total_length = static_cast<std::uint16_t>(kIpv4Header + p->len);
  output_ipv4(p, reply, now);
}

// What is quoted is the beginning of a packet that we have sent: its IP header and 8 bytes behind it. Whether
// the sequence number is one that we have in flight is for TCP to check (RFC 5927 section 4.1).
Network::Input Network::Impl::on_icmp_error(Packet* p, const Ipv4Header& ip, const IcmpHeader& icmp,
                                            IcmpError& error) {
  const auto quoted = std::span<const std::byte>(p->bytes()).subspan(kIcmpHeader);
  Ipv4Header h;
  if (parse_quoted_ipv4(quoted, h) != ParseError::none) return drop(p, Counter::rx_bad_icmp);
  const auto transport = quoted.subspan(h.header_length);
  if (transport.size() < 8) return drop(p, Counter::rx_bad_icmp);
  if (h.protocol != kProtocolTcp || h.fragment) return drop(p, Counter::icmp_ignored);
  if (h.source != ip.destination) return drop(p, Counter::rx_bad_icmp);
  error.type = icmp.type;
  error.code = icmp.code;
  const bool too_big = icmp.type == kIcmpUnreachable && icmp.code == kIcmpFragmentationNeeded;
  error.mtu = too_big ? icmp.mtu : 0;
  return hand_up(p, IpAddress::v4(h.source), IpAddress::v4(h.destination), transport.data(), error);
}

Network::Input Network::Impl::hand_up(Packet* p, const IpAddress& source, const IpAddress& destination, const std::byte* transport,
                                      IcmpError& error) {
  error.key.local = source;
  error.key.remote = destination;
  error.key.local_port = load_be<std::uint16_t>(transport);
  error.key.remote_port = load_be<std::uint16_t>(transport + 2);
  error.seq = Seq(load_be<std::uint32_t>(transport + 4));
  error.packet = p;
  return Input::icmp_error;
}

}  // namespace mtcp::stack

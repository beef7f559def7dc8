// ICMPv6 (RFC 4443): errors about TCP are handed up, in the numbers of ICMP for IPv4; answers echo requests. Where the
// addresses are the kernel's, everything but errors is the kernel's as well.
#include "stack/wire/icmpv6.hh"

#include <algorithm>

#include "stack/ip/network_impl.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kLeastMtu = 1280;  // RFC 8200 section 5: what every link carries

// The type and code that say the same in IPv4 (RFC 7915 section 5.2); false if it is no error that concerns us.
bool translate(const Icmpv6Header& h, IcmpError& error) {
  switch (h.type) {
    case kIcmpv6Unreachable: {
      // No route, prohibited, beyond scope, address, port, source address failed the policy, route rejected.
      static constexpr std::uint8_t kCodes[] = {0, 13, 1, 1, 3, 13, 13};
      error.type = kIcmpUnreachable;
      error.code = kCodes[std::min<std::size_t>(h.code, std::size(kCodes) - 1)];
      return true;
    }
    case kIcmpv6PacketTooBig:
      error.type = kIcmpUnreachable;
      error.code = kIcmpFragmentationNeeded;
      error.mtu = std::clamp(h.mtu, kLeastMtu, std::uint32_t{UINT16_MAX});  // RFC 8201 section 4: less counts as that
      return true;
    case kIcmpv6TimeExceeded:
      error.type = kIcmpTimeExceeded;
      error.code = 0;
      return h.code == 0;  // else some fragment was lost, no more
    case kIcmpv6ParameterProblem:
      error.type = kIcmpParameterProblem;
      error.code = 0;
      return true;
    default:
      return false;
  }
}

}  // namespace

// RFC 4443 section 4.2. The request becomes the reply, in place. It came whole in one frame, so the reply fits into one.
void Network::Impl::answer_echo_v6(Packet* p, const Ipv6Header& ip, Time now) {
  if (!echo_limit.take(now)) return link.drop(p, Counter::icmp_rate_limited);
  const auto path = routes.path(ip.source, ip.destination);
  if (!path || (*path)->local) return link.drop(p, Counter::no_route);
  link.stats.add(Counter::icmp_echo_replies);
  const auto length = static_cast<std::uint16_t>(p->len);
  p->data[0] = std::byte{kIcmpv6EchoReply};
  p->data[2] = p->data[3] = std::byte{0};
  store_checksum(p->data + 2, sum_of_pseudo_header(ip.destination, ip.source, false, kProtocolIcmpv6, length) +
                                  partial_sum(p->data, length));
  p->flags = 0;
  write_ipv6(p->push(kIpv6Header), {.source = ip.destination,
                                    .destination = ip.source,
                                    .payload_length = length,
                                    .next_header = kProtocolIcmpv6});
  resolver.send(p, (*path)->next_hop(ip.source), TxPriority::control, now);
}

Network::Input Network::Impl::on_icmpv6(Packet* p, const Ipv6Header& ip, IcmpError& error, Time now) {
  Icmpv6Header h;
  if (parse_icmpv6(p->bytes(), ip, h) != ParseError::none) return drop(p, Counter::rx_bad_icmp);
  if (kernel == nullptr && (h.type == kNeighbourSolicitation || h.type == kNeighbourAdvertisement)) {
    nd.input(p, ip, h, resolver, now);
    return Input::consumed;
  }
  if (!routes.is_own_v6(ip.destination)) return drop(p, Counter::rx_not_ours);
  if (routes.is_bad_source_v6(ip.source)) return drop(p, Counter::rx_bad_source);
  if (h.type == kIcmpv6EchoRequest && kernel == nullptr) {
    answer_echo_v6(p, ip, now);
    return Input::consumed;
  }
  error.mtu = 0;
  if (!translate(h, error)) return drop(p, Counter::icmp_ignored);
  // What is quoted is the beginning of a packet that we have sent, which has no extension headers.
  const auto quoted = std::span<const std::byte>(p->bytes()).subspan(kIcmpv6Header);
  Ipv6Header ours;
  if (parse_quoted_ipv6(quoted, ours) != ParseError::none || quoted.size() < kIpv6Header + 8)
    return drop(p, Counter::rx_bad_icmp);
  if (ours.next_header != kProtocolTcp) return drop(p, Counter::icmp_ignored);
  if (!(ours.source == ip.destination)) return drop(p, Counter::rx_bad_icmp);
  return hand_up(p, ours.source, ours.destination, quoted.data() + kIpv6Header, error);
}

}  // namespace mtcp::stack

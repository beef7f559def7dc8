#include "stack/ip/nd.hh"

#include <algorithm>
#include <cstring>

#include "stack/ip/route.hh"

namespace mtcp::stack {

using State = Neighbour::State;

namespace {

constexpr std::uint8_t kSourceOption = 1, kTargetOption = 2;  // link-layer addresses
constexpr std::size_t kMessage = kIcmpv6Header + 16;          // with the target
constexpr std::size_t kOption = 8;
constexpr std::uint8_t kHopLimit = 255;  // who is not on the link can't have that
constexpr std::uint32_t kSolicited = 1U << 30, kOverride = 1U << 29;

constexpr IpAddress kAllNodes{{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

IpAddress group_of(const IpAddress& a) {
  IpAddress group{{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff}};
  std::copy(a.bytes.begin() + 13, a.bytes.end(), group.bytes.begin() + 13);
  return group;
}

MacAddress mac_of_group(const IpAddress& group) {
  MacAddress mac{{0x33, 0x33}};
  std::copy(group.bytes.begin() + 12, group.bytes.end(), mac.bytes.begin() + 2);
  return mac;
}

}  // namespace

struct NeighbourDiscovery::Message {
  std::uint8_t type = 0;
  std::uint32_t flags = 0;
  IpAddress target;
  bool has_mac = false;
  MacAddress mac;  // of the option that belongs to the type
};

bool NeighbourDiscovery::is_group(const IpAddress& a) const {
  const auto own = routes_.own_v6();
  return !own.empty() && (a == kAllNodes || std::any_of(own.begin(), own.end(), [&](const IpAddress& o) { return group_of(o) == a; }));
}

bool NeighbourDiscovery::is_group(const MacAddress& mac) const {
  if (mac.bytes[0] != 0x33 || mac.bytes[1] != 0x33) return false;
  const auto own = routes_.own_v6();
  return !own.empty() && (mac == mac_of_group(kAllNodes) ||
                          std::any_of(own.begin(), own.end(), [&](const IpAddress& o) { return mac_of_group(group_of(o)) == mac; }));
}

// RFC 4861 sections 7.1.1 and 7.1.2.
void NeighbourDiscovery::input(Packet* p, const Ipv6Header& ip, const Icmpv6Header& icmp, Resolver& resolver, Time now) {
  const std::span<const std::byte> bytes = p->bytes();
  Message m{.type = icmp.type};
  bool good = ip.hop_limit == kHopLimit && icmp.code == 0 && bytes.size() >= kMessage;
  if (good) {
    m.flags = load_be<std::uint32_t>(bytes.data() + 4);
    std::memcpy(m.target.bytes.data(), bytes.data() + kIcmpv6Header, 16);
    const std::uint8_t wanted = icmp.type == kNeighbourSolicitation ? kSourceOption : kTargetOption;
    for (auto options = bytes.subspan(kMessage); good && !options.empty();) {
      const std::size_t length = options.size() < kOption ? 0 : std::to_integer<std::size_t>(options[1]) * kOption;
      good = length != 0 && length <= options.size();
      if (!good) break;
      if (std::to_integer<std::uint8_t>(options[0]) == wanted && length == kOption) {
        std::memcpy(m.mac.bytes.data(), options.data() + 2, m.mac.bytes.size());
        m.has_mac = true;
      }
      options = options.subspan(length);
    }
  }
  const bool group_target = m.target.bytes[0] == 0xff;
  link_.release(p);
  if (!good || group_target || (m.has_mac && m.mac.is_multicast())) return link_.stats.add(Counter::rx_bad_icmp);
  if (m.has_mac && m.mac == link_.mac) return link_.stats.add(Counter::rx_bad_source);
  m.type == kNeighbourSolicitation ? on_solicitation(m, ip, resolver, now) : on_advertisement(m, resolver, now);
}

// RFC 4861 section 7.2.3. From the unspecified address somebody asks whether the address is taken (RFC 4862 section 5.4).
void NeighbourDiscovery::on_solicitation(const Message& m, const Ipv6Header& ip, Resolver& resolver, Time now) {
  if (!routes_.is_own_v6(m.target)) return link_.stats.add(Counter::rx_not_ours);
  const bool probe = ip.source == IpAddress::any_v6();
  if (probe ? m.has_mac || !is_group(ip.destination) : routes_.is_bad_source_v6(ip.source))
    return link_.stats.add(Counter::rx_bad_source);
  if (!replies_.take(now)) return link_.stats.add(Counter::arp_rate_limited);
  link_.stats.add(Counter::nd_advertisements_sent);
  if (probe) return send(kNeighbourAdvertisement, kOverride, m.target, m.target, kAllNodes, mac_of_group(kAllNodes));
  Neighbour* n = resolver.find(ip.source);
  if (m.has_mac && routes_.on_link_v6(ip.source)) {
    if (n == nullptr) n = resolver.create(ip.source);
    const bool settled = n != nullptr && n->resolved() && (n->mac == m.mac || now - n->updated < Resolver::kLockTime);
    if (n != nullptr && !settled) resolver.confirm(*n, m.mac, State::stale, now);
  }
  if (n == nullptr || !n->resolved()) return;
  send(kNeighbourAdvertisement, kSolicited | kOverride, m.target, m.target, ip.source, n->mac);
}

// RFC 4861 section 7.2.5. One that nobody asked for does not make a neighbour reachable, and one that does not override only
// tells those who know nothing.
void NeighbourDiscovery::on_advertisement(const Message& m, Resolver& resolver, Time now) {
  if (routes_.is_own_v6(m.target)) return link_.stats.add(Counter::address_conflict);
  Neighbour* n = resolver.find(m.target);
  if (n == nullptr || (!m.has_mac && !n->resolved())) return;
  const MacAddress mac = m.has_mac ? m.mac : n->mac;  // an answer to who knows it already need not repeat it
  const bool solicited = (m.flags & kSolicited) != 0, override = (m.flags & kOverride) != 0;
  const State state = solicited ? State::reachable : State::stale;
  const bool asked = n->state == State::incomplete || n->state == State::probe;
  if (n->state == State::incomplete) return resolver.confirm(*n, mac, state, now);
  if (!n->resolved()) return;
  if (n->mac == mac) {
    if (asked && solicited) resolver.confirm(*n, mac, State::reachable, now);
  } else if (override && (asked || now - n->updated >= Resolver::kLockTime)) {
    resolver.confirm(*n, mac, asked ? state : State::stale, now);
  }
}

void NeighbourDiscovery::announce() {
  for (const IpAddress& own : routes_.own_v6()) {
    link_.stats.add(Counter::nd_advertisements_sent);
    send(kNeighbourAdvertisement, kOverride, own, own, kAllNodes, mac_of_group(kAllNodes));
  }
}

void NeighbourDiscovery::ask(const IpAddress& target, const MacAddress& to) {
  if (routes_.own_v6().empty()) return;
  link_.stats.add(Counter::nd_solicitations_sent);
  const bool all = to == kBroadcastMac;
  const IpAddress group = group_of(target);
  send(kNeighbourSolicitation, 0, target, routes_.source_towards_v6(target), all ? group : target, all ? mac_of_group(group) : to);
}

void NeighbourDiscovery::send(std::uint8_t type, std::uint32_t flags, const IpAddress& target, const IpAddress& source,
                              const IpAddress& destination, const MacAddress& to) {
  Packet* p = link_.alloc();
  if (p == nullptr) return;
  constexpr std::uint16_t kLength = kMessage + kOption;
  p->len = kEthernetHeader + kIpv6Header + kLength;
  write_ethernet(p->data, {to, link_.mac, kEtherIpv6});
  write_ipv6(p->data + kEthernetHeader, {.source = source,
                                         .destination = destination,
                                         .payload_length = kLength,
                                         .next_header = kProtocolIcmpv6,
                                         .hop_limit = kHopLimit});
  std::byte* message = p->data + kEthernetHeader + kIpv6Header;
  store_be(message, std::uint32_t{type} << 24);
  store_be(message + 4, flags);
  std::memcpy(message + kIcmpv6Header, target.bytes.data(), 16);
  std::byte* option = message + kMessage;
  option[0] = std::byte{type == kNeighbourSolicitation ? kSourceOption : kTargetOption};
  option[1] = std::byte{1};
  std::memcpy(option + 2, link_.mac.bytes.data(), 6);
  store_checksum(message + 2, sum_of_pseudo_header(source, destination, false, kProtocolIcmpv6, kLength) +
                                  partial_sum(message, kLength));
  link_.send(p, TxPriority::control);
}

}  // namespace mtcp::stack

#include "stack/kernel_net/messages.hh"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

namespace mtcp::stack::netlink {
namespace {

using Bytes = std::span<const std::byte>;

// A fixed structure at the front; false if there is not as much.
template <class T>
bool read(Bytes bytes, T& out) {
  if (bytes.size() < sizeof out) return false;
  std::memcpy(&out, bytes.data(), sizeof out);
  return true;
}

Bytes behind(Bytes bytes, std::size_t n) { return bytes.subspan(std::min(NLMSG_ALIGN(n), bytes.size())); }

// The first attribute, which is taken off the front.
bool next_attribute(Bytes& bytes, std::uint16_t& type, Bytes& value) {
  rtattr head;
  if (!read(bytes, head) || head.rta_len < sizeof head || head.rta_len > bytes.size()) return false;
  type = static_cast<std::uint16_t>(head.rta_type & ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER));
  value = bytes.subspan(sizeof head, head.rta_len - sizeof head);
  bytes = behind(bytes, head.rta_len);
  return true;
}

template <class Visit>
void for_each_attribute(Bytes bytes, Visit visit) {
  std::uint16_t type = 0;
  Bytes value;
  while (next_attribute(bytes, type, value)) visit(type, value);
}

std::uint32_t number_of(Bytes value) {
  std::uint32_t n = 0;
  return read(value, n) ? n : 0;
}

std::optional<IpAddress> address_of(int family, Bytes value) {
  IpAddress a;
  if (family == AF_INET && value.size() == 4) {
    a = IpAddress::any_v4();
    std::memcpy(&a.bytes[12], value.data(), 4);
    return a;
  }
  if (family != AF_INET6 || value.size() != 16) return std::nullopt;
  std::memcpy(a.bytes.data(), value.data(), 16);
  if (a.is_v4()) return std::nullopt;  // IPv4 in disguise
  return a;
}

IpAddress any_of(int family) { return family == AF_INET ? IpAddress::any_v4() : IpAddress::any_v6(); }

std::optional<std::uint8_t> prefix_length(int family, unsigned bits) {
  if (bits > (family == AF_INET ? 32U : 128U)) return std::nullopt;
  return static_cast<std::uint8_t>(family == AF_INET ? 96 + bits : bits);
}

bool is_ip(int family) { return family == AF_INET || family == AF_INET6; }

struct NextHop {
  std::uint32_t interface = 0;
  IpAddress gateway;
  bool usable = true;
};

void take_hop_attribute(int family, std::uint16_t type, Bytes value, NextHop& hop) {
  if (type == RTA_OIF) hop.interface = number_of(value);
  if (type == RTA_VIA) hop.usable = false;  // IPv4 by way of an IPv6 router
  if (type != RTA_GATEWAY) return;
  const auto a = address_of(family, value);
  if (a) hop.gateway = *a;
  hop.usable = hop.usable && a.has_value();
}

// Of several next hops the first that leads through `interface`, or the first.
NextHop choose_hop(int family, Bytes hops, std::uint32_t interface) {
  std::optional<NextHop> chosen;
  rtnexthop head;
  while (read(hops, head) && head.rtnh_len >= sizeof head && head.rtnh_len <= hops.size()) {
    NextHop hop{.interface = static_cast<std::uint32_t>(head.rtnh_ifindex), .gateway = any_of(family)};
    hop.usable = (head.rtnh_flags & RTNH_F_DEAD) == 0;
    for_each_attribute(hops.subspan(sizeof head, head.rtnh_len - sizeof head),
                       [&](std::uint16_t type, Bytes value) { take_hop_attribute(family, type, value, hop); });
    hops = behind(hops, head.rtnh_len);
    if (!chosen || (hop.interface == interface && hop.usable && chosen->interface != interface)) chosen = hop;
  }
  return chosen.value_or(NextHop{.interface = 0, .gateway = any_of(family), .usable = false});
}

std::uint32_t mtu_of(Bytes metrics) {
  std::uint32_t mtu = 0;
  for_each_attribute(metrics, [&](std::uint16_t type, Bytes value) {
    if (type == RTAX_MTU) mtu = number_of(value);
  });
  return mtu;
}

// The table of a route; 0 if the message is none, or about one that is a memory of ICMP.
std::uint32_t table_of(Bytes body) {
  rtmsg route;
  if (!read(body, route) || (route.rtm_flags & RTM_F_CLONED) != 0) return 0;
  std::uint32_t table = route.rtm_table;
  for_each_attribute(behind(body, sizeof route), [&](std::uint16_t type, Bytes value) {
    if (type == RTA_TABLE) table = number_of(value);
  });
  return table;
}

void append(std::vector<std::byte>& out, const void* p, std::size_t n) {
  const auto* bytes = static_cast<const std::byte*>(p);
  out.insert(out.end(), bytes, bytes + n);
  out.resize(NLMSG_ALIGN(out.size()));
}

// A request, as far as its header; finish() fills in the length.
std::vector<std::byte> begin(std::uint16_t type, std::uint16_t flags, std::uint32_t sequence) {
  std::vector<std::byte> out;
  const nlmsghdr head{.nlmsg_len = 0,
                      .nlmsg_type = type,
                      .nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags),
                      .nlmsg_seq = sequence,
                      .nlmsg_pid = 0};
  append(out, &head, sizeof head);
  return out;
}

std::vector<std::byte> finish(std::vector<std::byte> message) {
  const auto length = static_cast<std::uint32_t>(message.size());
  std::memcpy(message.data(), &length, sizeof length);
  return message;
}

// Of what follows a request's own header. The kernel complains of bytes behind it in its log.
std::size_t header_size(std::uint16_t type) {
  switch (type) {
    case RTM_GETADDR: return sizeof(ifaddrmsg);
    case RTM_GETROUTE: return sizeof(rtmsg);
    case RTM_GETRULE: return sizeof(fib_rule_hdr);
    case RTM_GETNEIGH: return sizeof(ndmsg);
    default: return sizeof(ifinfomsg);
  }
}

std::vector<std::byte> about_neighbour(std::vector<std::byte> out, const IpAddress& neighbour, std::uint32_t interface,
                                       std::uint8_t flags) {
  const bool v4 = neighbour.is_v4();
  ndmsg body{};
  body.ndm_family = v4 ? AF_INET : AF_INET6;
  body.ndm_ifindex = static_cast<int>(interface);
  body.ndm_state = NUD_NONE;
  body.ndm_flags = flags;
  append(out, &body, sizeof body);
  const std::uint16_t size = v4 ? 4 : 16;
  const rtattr attribute{.rta_len = static_cast<std::uint16_t>(sizeof(rtattr) + size), .rta_type = NDA_DST};
  append(out, &attribute, sizeof attribute);
  append(out, neighbour.bytes.data() + (16 - size), size);
  return finish(std::move(out));
}

}  // namespace

bool next_message(std::span<const std::byte>& datagram, Message& out) {
  nlmsghdr head;
  if (!read(datagram, head) || head.nlmsg_len < sizeof head || head.nlmsg_len > datagram.size()) return false;
  out = {head.nlmsg_type, head.nlmsg_flags, head.nlmsg_seq,
         datagram.subspan(sizeof head, head.nlmsg_len - sizeof head)};
  datagram = behind(datagram, head.nlmsg_len);
  return true;
}

void ViewBuilder::take(const Message& m) {
  if (m.type == RTM_NEWLINK) take_link(m.body);
  if (m.type == RTM_NEWADDR) take_address(m.body);
  if (m.type == RTM_NEWROUTE) take_route(m.body);
  if (m.type == RTM_NEWRULE) take_rule(m.body);
}

void ViewBuilder::take_link(Bytes body) {
  ifinfomsg link;
  if (!read(body, link) || link.ifi_family != AF_UNSPEC || static_cast<std::uint32_t>(link.ifi_index) != interface_) return;
  view_.link.exists = true;
  view_.link.index = interface_;
  view_.link.up = (link.ifi_flags & IFF_UP) != 0 && (link.ifi_flags & IFF_RUNNING) != 0;
  for_each_attribute(behind(body, sizeof link), [&](std::uint16_t type, Bytes value) {
    if (type == IFLA_MTU) view_.link.mtu = number_of(value);
    if (type == IFLA_ADDRESS && value.size() == 6) std::memcpy(view_.link.mac.bytes.data(), value.data(), 6);
  });
}

void ViewBuilder::take_address(Bytes body) {
  ifaddrmsg head;
  if (!read(body, head) || !is_ip(head.ifa_family)) return;
  std::optional<IpAddress> local, peer;
  std::uint32_t flags = head.ifa_flags;
  for_each_attribute(behind(body, sizeof head), [&](std::uint16_t type, Bytes value) {
    if (type == IFA_LOCAL) local = address_of(head.ifa_family, value);
    if (type == IFA_ADDRESS) peer = address_of(head.ifa_family, value);
    if (type == IFA_FLAGS) flags = number_of(value);
  });
  if (!local) local = peer;
  // With a peer the prefix is the peer's.
  const bool to_peer = peer && !(*peer == local);
  const auto length = prefix_length(head.ifa_family, to_peer ? (head.ifa_family == AF_INET ? 32 : 128) : head.ifa_prefixlen);
  if (!local || !length || local->is_any()) return;
  constexpr std::uint32_t kUnusable = IFA_F_TENTATIVE | IFA_F_DADFAILED;
  const bool usable = (flags & kUnusable) == 0 || (flags & IFA_F_OPTIMISTIC) != 0;
  if (head.ifa_index != interface_ || is_link_local(*local) || !usable || view_.owns(*local)) {
    view_.others.push_back(*local);
    return;
  }
  view_.own.push_back({*local, *length, (flags & IFA_F_DEPRECATED) != 0});
}

void ViewBuilder::take_route(Bytes body) {
  rtmsg head;
  if (!read(body, head) || !is_ip(head.rtm_family) || head.rtm_src_len != 0 || head.rtm_tos != 0) return;
  const auto length = prefix_length(head.rtm_family, head.rtm_dst_len);
  KernelRoute route;
  route.table = table_of(body);
  route.passes_on = head.rtm_type == RTN_THROW;
  if (!length || !uses(route.table) || (head.rtm_flags & RTNH_F_DEAD) != 0) return;
  NextHop hop{.interface = 0, .gateway = any_of(head.rtm_family)};
  std::optional<IpAddress> destination = any_of(head.rtm_family);
  for_each_attribute(behind(body, sizeof head), [&](std::uint16_t type, Bytes value) {
    if (type == RTA_DST) destination = address_of(head.rtm_family, value);
    if (type == RTA_PREFSRC) route.source = address_of(head.rtm_family, value).value_or(IpAddress{});
    if (type == RTA_PRIORITY) route.metric = number_of(value);
    if (type == RTA_METRICS) route.mtu = mtu_of(value);
    if (type == RTA_MULTIPATH) hop = choose_hop(head.rtm_family, value, interface_);
    take_hop_attribute(head.rtm_family, type, value, hop);
  });
  if (!destination) return;
  if (view_.routes().size() >= kMostRoutes) {
    view_.truncated = true;
    return;
  }
  route.destination = {*destination, *length};
  route.gateway = hop.gateway;
  route.ours = head.rtm_type == RTN_UNICAST && hop.usable && hop.interface == interface_;
  view_.add(route);
}

// A rule's selectors, one by one: each may only take something away from what it applies to.
static void take_selector(std::uint16_t type, Bytes value, KernelRule& rule) {
  using Applies = KernelRule::Applies;
  const auto only_if = [&](bool applies) { rule.applies = applies ? rule.applies : Applies::never; };
  const auto perhaps = [&] { rule.applies = std::max(rule.applies, Applies::perhaps); };
  const std::uint8_t first = value.empty() ? std::uint8_t{0} : std::to_integer<std::uint8_t>(value[0]);
  switch (type) {
    case FRA_IIFNAME:  // what comes from this host comes from lo
      return only_if(value.size() >= 3 && std::memcmp(value.data(), "lo", 3) == 0);
    case FRA_OIFNAME:
    case FRA_TUN_ID:
      return only_if(false);
    case FRA_L3MDEV:
      return only_if(first == 0);
    case FRA_IP_PROTO:
      return only_if(first == 0 || first == IPPROTO_TCP);
    case FRA_UID_RANGE:
    case FRA_SPORT_RANGE:
    case FRA_DPORT_RANGE:
    case FRA_SUPPRESS_IFGROUP:
      return perhaps();
    default:
      return;
  }
}

static KernelRule::Action action_of(std::uint8_t action) {
  if (action == FR_ACT_TO_TBL) return KernelRule::Action::look_up;
  return action == FR_ACT_NOP ? KernelRule::Action::nothing : KernelRule::Action::refuse;
}

void ViewBuilder::take_rule(Bytes body) {
  fib_rule_hdr head;
  if (!read(body, head) || !is_ip(head.family)) return;
  KernelRule rule;
  rule.v4 = head.family == AF_INET;
  rule.action = action_of(head.action);
  rule.table = head.table;
  rule.inverted = (head.flags & FIB_RULE_INVERT) != 0;
  // Where it goes on, and for which types of service, is not looked at.
  if (head.action == FR_ACT_GOTO || head.tos != 0) rule.applies = KernelRule::Applies::perhaps;
  std::optional<IpAddress> to = any_of(head.family), from = any_of(head.family);
  std::uint32_t mark = 0, mask = UINT32_MAX;
  for_each_attribute(behind(body, sizeof head), [&](std::uint16_t type, Bytes value) {
    if (type == FRA_DST) to = address_of(head.family, value);
    if (type == FRA_SRC) from = address_of(head.family, value);
    if (type == FRA_PRIORITY) rule.priority = number_of(value);
    if (type == FRA_TABLE) rule.table = number_of(value);
    if (type == FRA_FWMARK) mark = number_of(value);
    if (type == FRA_FWMASK) mask = number_of(value);
    if (type == FRA_SUPPRESS_PREFIXLEN) rule.shortest = std::clamp(static_cast<std::int32_t>(number_of(value)), -1, 128) + 1;
    take_selector(type, value, rule);
  });
  const auto to_length = prefix_length(head.family, head.dst_len), from_length = prefix_length(head.family, head.src_len);
  if (!to || !from || !to_length || !from_length) return;
  rule.to = {*to, *to_length};
  rule.from = {*from, *from_length};
  if ((mark & mask) != 0) rule.applies = KernelRule::Applies::never;  // of the stack's none is marked
  rules_.push_back(rule);
}

bool ViewBuilder::uses(std::uint32_t table) const {
  return table == RT_TABLE_MAIN || (table != RT_TABLE_LOCAL && std::ranges::any_of(rules_, [table](const KernelRule& r) {
                                      return r.table == table && r.action == KernelRule::Action::look_up;
                                    }));
}

KernelView ViewBuilder::finish() {
  view_.sort_routes();
  view_.set_rules(std::move(rules_));
  return std::move(view_);
}

bool changes_view(const Message& m, std::uint32_t interface) {
  switch (m.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      ifinfomsg link;
      return read(m.body, link) && link.ifi_family == AF_UNSPEC && static_cast<std::uint32_t>(link.ifi_index) == interface;
    }
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return true;
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const std::uint32_t table = table_of(m.body);
      return table != 0 && table != RT_TABLE_LOCAL;
    }
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return true;
    default:
      return false;
  }
}

bool read_neighbour(const Message& m, std::uint32_t interface, KernelNeighbour& out) {
  ndmsg head;
  if ((m.type != RTM_NEWNEIGH && m.type != RTM_DELNEIGH) || !read(m.body, head) || !is_ip(head.ndm_family)) return false;
  if (static_cast<std::uint32_t>(head.ndm_ifindex) != interface || (head.ndm_flags & NTF_PROXY) != 0) return false;
  std::optional<IpAddress> address;
  bool has_mac = false;
  out = {};
  for_each_attribute(behind(m.body, sizeof head), [&](std::uint16_t type, Bytes value) {
    if (type == NDA_DST) address = address_of(head.ndm_family, value);
    if (type != NDA_LLADDR || value.size() != out.mac.bytes.size()) return;
    std::memcpy(out.mac.bytes.data(), value.data(), out.mac.bytes.size());
    has_mac = true;
  });
  if (!address) return false;
  out.address = *address;
  constexpr int kKnown = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;
  if (m.type == RTM_DELNEIGH) return true;
  out.stale = (head.ndm_state & NUD_STALE) != 0;
  if ((head.ndm_state & kKnown) != 0 && has_mac && !out.mac.is_multicast()) out.state = KernelNeighbour::State::known;
  if ((head.ndm_state & NUD_FAILED) != 0) out.state = KernelNeighbour::State::failed;
  return true;
}

int read_error(const Message& m) {
  if (m.type != NLMSG_ERROR) return -1;
  std::int32_t error = 0;
  return read(m.body, error) && error <= 0 && error > -4096 ? -error : -1;
}

std::vector<std::byte> link_request(std::uint32_t interface, std::uint32_t sequence) {
  std::vector<std::byte> out = begin(RTM_GETLINK, 0, sequence);
  ifinfomsg body{};
  body.ifi_index = static_cast<int>(interface);
  append(out, &body, sizeof body);
  return finish(std::move(out));
}

std::vector<std::byte> dump_request(std::uint16_t type, std::uint32_t sequence) {
  std::vector<std::byte> out = begin(type, NLM_F_DUMP, sequence);
  const ifinfomsg body{};  // the longest of them; all zero is "everything" for each of them
  append(out, &body, header_size(type));
  return finish(std::move(out));
}

std::vector<std::byte> neighbour_request(const IpAddress& neighbour, std::uint32_t interface, std::uint32_t sequence) {
  return about_neighbour(begin(RTM_GETNEIGH, 0, sequence), neighbour, interface, 0);
}

std::vector<std::byte> use_request(const IpAddress& neighbour, std::uint32_t interface, std::uint32_t sequence) {
  return about_neighbour(begin(RTM_NEWNEIGH, NLM_F_CREATE, sequence), neighbour, interface, NTF_USE);
}

}  // namespace mtcp::stack::netlink

#include "stack/kernel_net/messages.hh"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>

using namespace mtcp::stack;
using namespace mtcp::stack::netlink;

namespace {

using Bytes = std::vector<std::byte>;
constexpr std::uint32_t kOurs = 7, kOther = 8;
const IpAddress kUs = IpAddress::v4(10, 9, 0, 2);

// A message that grows.
class Builder {
 public:
  template <class Head>
  Builder(std::uint16_t type, const Head& head) {
    nlmsghdr h{};
    h.nlmsg_type = type;
    put(&h, sizeof h);
    put(&head, sizeof head);
  }
  Builder& attribute(std::uint16_t type, const void* value, std::size_t n) {
    const rtattr a{static_cast<unsigned short>(sizeof(rtattr) + n), type};
    put(&a, sizeof a);
    put(value, n);
    return *this;
  }
  Builder& number(std::uint16_t type, std::uint32_t value) { return attribute(type, &value, sizeof value); }
  Builder& v4(std::uint16_t type, const IpAddress& a) { return attribute(type, a.bytes.data() + 12, 4); }
  Builder& v6(std::uint16_t type, const IpAddress& a) { return attribute(type, a.bytes.data(), 16); }
  Bytes done() {
    const auto n = static_cast<std::uint32_t>(bytes_.size());
    std::memcpy(bytes_.data(), &n, sizeof n);
    return bytes_;
  }

 private:
  void put(const void* p, std::size_t n) {
    const auto* b = static_cast<const std::byte*>(p);
    bytes_.insert(bytes_.end(), b, b + n);
    bytes_.resize((bytes_.size() + 3) / 4 * 4);
  }
  Bytes bytes_;
};

Bytes link(std::uint32_t index, unsigned flags = IFF_UP | IFF_RUNNING, unsigned char family = AF_UNSPEC) {
  ifinfomsg m{};
  m.ifi_family = family;
  m.ifi_index = static_cast<int>(index);
  m.ifi_flags = flags;
  const std::uint8_t mac[6] = {2, 0, 0, 0, 0, 5};
  return Builder(RTM_NEWLINK, m).number(IFLA_MTU, 1400).attribute(IFLA_ADDRESS, mac, 6).done();
}

Bytes address(const IpAddress& a, std::uint32_t index = kOurs, unsigned flags = 0, int bits = 24) {
  ifaddrmsg m{};
  m.ifa_family = a.is_v4() ? AF_INET : AF_INET6;
  m.ifa_prefixlen = static_cast<unsigned char>(bits);
  m.ifa_index = index;
  Builder b(RTM_NEWADDR, m);
  if (a.is_v4()) b.v4(IFA_LOCAL, a).v4(IFA_ADDRESS, a);
  else b.v6(IFA_ADDRESS, a);
  return b.number(IFA_FLAGS, flags).done();
}

rtmsg route_head(int bits, int family = AF_INET) {
  rtmsg m{};
  m.rtm_family = static_cast<unsigned char>(family);
  m.rtm_dst_len = static_cast<unsigned char>(bits);
  m.rtm_table = RT_TABLE_MAIN;
  m.rtm_type = RTN_UNICAST;
  return m;
}

Bytes route_with_metrics() {
  const struct {
    rtattr head{8, RTAX_MTU};
    std::uint32_t mtu = 1280;
  } metrics;
  return Builder(RTM_NEWROUTE, route_head(24))
      .v4(RTA_DST, IpAddress::v4(192, 0, 2, 0))
      .v4(RTA_GATEWAY, IpAddress::v4(10, 9, 0, 1))
      .number(RTA_OIF, kOurs)
      .number(RTA_PRIORITY, 5)
      .attribute(RTA_METRICS, &metrics, sizeof metrics)
      .done();
}

Bytes multipath_route() {
  struct Hop {
    rtnexthop head;
    rtattr attribute;
    std::uint8_t gateway[4];
  };
  const auto through = [](std::uint32_t oif) {
    return Hop{{sizeof(Hop), 0, 0, static_cast<int>(oif)}, {8, RTA_GATEWAY}, {10, 9, 0, static_cast<std::uint8_t>(oif)}};
  };
  const Hop hops[] = {through(kOther), through(kOurs)};
  return Builder(RTM_NEWROUTE, route_head(0)).attribute(RTA_MULTIPATH, hops, sizeof hops).done();
}

Bytes neighbour(std::uint16_t type, std::uint16_t state, std::uint32_t index = kOurs, bool with_mac = true) {
  ndmsg m{};
  m.ndm_family = AF_INET;
  m.ndm_ifindex = static_cast<int>(index);
  m.ndm_state = state;
  const std::uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
  Builder b(type, m);
  b.v4(NDA_DST, IpAddress::v4(10, 9, 0, 1));
  if (with_mac) b.attribute(NDA_LLADDR, mac, 6);
  return b.done();
}

KernelView view_of(std::initializer_list<Bytes> messages) {
  ViewBuilder builder(kOurs);
  for (const Bytes& bytes : messages) {
    std::span<const std::byte> rest(bytes);
    for (Message m; next_message(rest, m);) builder.take(m);
  }
  return builder.finish();
}

Message only(const Bytes& bytes) {
  std::span<const std::byte> rest(bytes);
  Message m;
  REQUIRE(next_message(rest, m));
  CHECK(rest.empty());
  return m;
}

// Everything that is done with what the kernel sends.
void swallow(std::span<const std::byte> bytes) {
  ViewBuilder builder(kOurs);
  for (Message m; next_message(bytes, m);) {
    builder.take(m);
    (void)changes_view(m, kOurs);
    (void)read_error(m);
    KernelNeighbour n;
    (void)read_neighbour(m, kOurs, n);
  }
  const KernelView view = builder.finish();
  (void)view.reaches(IpAddress::v4(192, 0, 2, 1));
}

std::vector<Bytes> one_of_each() {
  IpAddress six;
  six.bytes[0] = 0x20;
  six.bytes[15] = 1;
  rtmsg r6 = route_head(0, AF_INET6);
  return {link(kOurs),
          address(kUs),
          address(six, kOurs, 0, 64),
          route_with_metrics(),
          multipath_route(),
          Builder(RTM_NEWROUTE, r6).v6(RTA_GATEWAY, six).number(RTA_OIF, kOurs).done(),
          neighbour(RTM_NEWNEIGH, NUD_REACHABLE)};
}

}  // namespace

TEST_CASE("A link says its MTU, its MAC address, and whether it is up; one of a bridge's port is not meant") {
  const KernelView v = view_of({link(kOther, 0), link(kOurs)});
  CHECK(v.link.exists);
  CHECK(v.link.up);
  CHECK(v.link.mtu == 1400);
  CHECK(v.link.mac.bytes[5] == 5);
  CHECK_FALSE(view_of({link(kOurs, IFF_UP)}).link.up);
  CHECK_FALSE(view_of({link(kOurs, IFF_UP | IFF_RUNNING, AF_BRIDGE)}).link.exists);
}

TEST_CASE("Addresses of the interface are the stack's, but for those that cannot be used, and all others the kernel's") {
  IpAddress local, global;
  local.bytes[0] = 0xfe;
  local.bytes[1] = 0x80;
  local.bytes[15] = 1;
  global.bytes[0] = 0x20;
  const KernelView v = view_of({address(kUs), address(IpAddress::v4(172, 17, 0, 1), kOther), address(local, kOurs, 0, 64),
                                address(global, kOurs, IFA_F_TENTATIVE, 64)});
  REQUIRE(v.own.size() == 1);
  CHECK(v.own[0].address == kUs);
  CHECK(v.own[0].prefix_length == 120);
  CHECK(v.others.size() == 3);
  CHECK(view_of({address(global, kOurs, IFA_F_DEPRECATED, 64)}).own.at(0).deprecated);
}

TEST_CASE("A route has its gateway, metric and MTU; of several next hops ours is taken") {
  const KernelView v = view_of({address(kUs), route_with_metrics(), multipath_route()});
  const KernelRoute* r = v.route_to(IpAddress::v4(192, 0, 2, 9));
  REQUIRE(r != nullptr);
  CHECK(r->ours);
  CHECK(r->mtu == 1280);
  CHECK(r->metric == 5);
  CHECK(r->gateway == IpAddress::v4(10, 9, 0, 1));
  const KernelRoute* far = v.route_to(IpAddress::v4(8, 8, 8, 8));
  REQUIRE(far != nullptr);
  CHECK(far->ours);
  CHECK(far->gateway == IpAddress::v4(10, 9, 0, kOurs));
}

TEST_CASE("Routes of other tables, those that lead nowhere, and those that came from ICMP do not lead through ours") {
  rtmsg local = route_head(32), nowhere = route_head(24), cloned = route_head(32), through_v6 = route_head(0);
  local.rtm_table = RT_TABLE_LOCAL;
  nowhere.rtm_type = RTN_BLACKHOLE;
  cloned.rtm_flags = RTM_F_CLONED;
  const IpAddress to = IpAddress::v4(192, 0, 2, 0);
  const KernelView v = view_of({Builder(RTM_NEWROUTE, local).v4(RTA_DST, to).number(RTA_OIF, kOurs).done(),
                                Builder(RTM_NEWROUTE, cloned).v4(RTA_DST, to).number(RTA_OIF, kOurs).done(),
                                Builder(RTM_NEWROUTE, nowhere).v4(RTA_DST, to).done(),
                                Builder(RTM_NEWROUTE, through_v6).attribute(RTA_VIA, "\n\0abcdefghijklmnop", 18).number(RTA_OIF, kOurs).done()});
  CHECK(v.routes().size() == 2);
  CHECK_FALSE(v.route_to(to)->ours);
  CHECK_FALSE(v.route_to(IpAddress::v4(8, 8, 8, 8))->ours);
}

namespace {

Bytes a_rule(std::uint8_t action, std::uint32_t table, const std::function<void(Builder&)>& more = {}, int bits = 0, unsigned flags = 0) {
  fib_rule_hdr head{};
  head.family = AF_INET;
  head.dst_len = static_cast<unsigned char>(bits);
  head.action = action;
  head.flags = flags;
  Builder b(RTM_NEWRULE, head);
  b.number(FRA_PRIORITY, 10).number(FRA_TABLE, table).number(FRA_SUPPRESS_PREFIXLEN, UINT32_MAX);
  if (more) more(b);
  return b.done();
}

KernelRule read_rule(const Bytes& bytes) {
  const KernelView v = view_of({bytes});
  REQUIRE(v.rules().size() == 1);
  return v.rules()[0];
}

}  // namespace

TEST_CASE("A rule says what it applies to, as far as connections of the stack are concerned") {
  using Applies = KernelRule::Applies;
  const auto applies = [](std::uint16_t type, const auto& value) {
    return read_rule(a_rule(FR_ACT_TO_TBL, 100, [&](Builder& b) { b.attribute(type, &value, sizeof value); })).applies;
  };
  const KernelRule plain = read_rule(a_rule(FR_ACT_TO_TBL, 1000));
  CHECK(plain.v4);
  CHECK(plain.priority == 10);
  CHECK(plain.table == 1000);
  CHECK(plain.shortest == 0);
  CHECK(plain.applies == Applies::always);
  CHECK(applies(FRA_FWMARK, std::uint32_t{1}) == Applies::never);
  CHECK(applies(FRA_FWMASK, std::uint32_t{1}) == Applies::always);
  CHECK(applies(FRA_IIFNAME, "lo") == Applies::always);
  CHECK(applies(FRA_IIFNAME, "lo1") == Applies::never);
  CHECK(applies(FRA_OIFNAME, "eth0") == Applies::never);
  CHECK(applies(FRA_L3MDEV, std::uint8_t{1}) == Applies::never);
  CHECK(applies(FRA_IP_PROTO, std::uint8_t{17}) == Applies::never);
  CHECK(applies(FRA_IP_PROTO, std::uint8_t{6}) == Applies::always);
  CHECK(applies(FRA_UID_RANGE, std::uint64_t{0}) == Applies::perhaps);
  CHECK(applies(FRA_DPORT_RANGE, std::uint32_t{80}) == Applies::perhaps);
  CHECK(read_rule(a_rule(FR_ACT_GOTO, 0)).applies == Applies::perhaps);
  CHECK(read_rule(a_rule(FR_ACT_UNREACHABLE, 0)).action == KernelRule::Action::refuse);
  CHECK(read_rule(a_rule(FR_ACT_NOP, 0)).action == KernelRule::Action::nothing);
  CHECK(read_rule(a_rule(FR_ACT_TO_TBL, 100, {}, 0, FIB_RULE_INVERT)).inverted);
  CHECK(read_rule(a_rule(FR_ACT_TO_TBL, 254, [](Builder& b) { b.number(FRA_SUPPRESS_PREFIXLEN, 0); })).shortest == 1);
  const KernelRule to = read_rule(a_rule(FR_ACT_TO_TBL, 100, [](Builder& b) { b.v4(FRA_DST, IpAddress::v4(192, 0, 2, 0)); }, 24));
  CHECK(to.to.length == 120);
  CHECK(to.to.contains(IpAddress::v4(192, 0, 2, 9)));
}

TEST_CASE("Routes of a table that a rule names are kept, and changes of it, and of rules, are changes") {
  rtmsg elsewhere = route_head(0);
  elsewhere.rtm_table = 100;
  const Bytes route = Builder(RTM_NEWROUTE, elsewhere).number(RTA_OIF, kOther).done();
  CHECK(view_of({route}).routes().empty());
  const KernelView v = view_of({a_rule(FR_ACT_TO_TBL, 100), route});
  REQUIRE(v.routes().size() == 1);
  CHECK(v.routes()[0].table == 100);
  CHECK_FALSE(v.route_to(IpAddress::v4(8, 8, 8, 8))->ours);
  CHECK(changes_view(only(route), kOurs));
  CHECK(changes_view(only(a_rule(FR_ACT_TO_TBL, 100)), kOurs));
}

TEST_CASE("More routes than can be kept are said to be too many") {
  ViewBuilder builder(kOurs);
  const Bytes bytes = route_with_metrics();
  const Message m = only(bytes);
  for (std::size_t i = 0; i < ViewBuilder::kMostRoutes; ++i) builder.take(m);
  ViewBuilder with_one_more = builder;
  CHECK_FALSE(builder.finish().truncated);
  with_one_more.take(m);
  const KernelView view = with_one_more.finish();
  CHECK(view.truncated);
  CHECK(view.routes().size() == ViewBuilder::kMostRoutes);
}

TEST_CASE("A neighbour is known with a MAC address in a state that is good for sending") {
  KernelNeighbour n;
  using State = KernelNeighbour::State;
  const auto state = [&](std::uint16_t type, std::uint16_t s, bool mac = true) {
    const Bytes bytes = neighbour(type, s, kOurs, mac);
    REQUIRE(read_neighbour(only(bytes), kOurs, n));
    return n.state;
  };
  for (const std::uint16_t s : {NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT, NUD_NOARP})
    CHECK(state(RTM_NEWNEIGH, s) == State::known);
  CHECK(n.address == IpAddress::v4(10, 9, 0, 1));
  CHECK(n.mac.bytes[5] == 9);
  CHECK(state(RTM_NEWNEIGH, NUD_INCOMPLETE, false) == State::unknown);
  CHECK(state(RTM_NEWNEIGH, NUD_REACHABLE, false) == State::unknown);
  CHECK(state(RTM_NEWNEIGH, NUD_FAILED, false) == State::failed);
  CHECK(state(RTM_DELNEIGH, NUD_REACHABLE) == State::unknown);
  const Bytes other = neighbour(RTM_NEWNEIGH, NUD_REACHABLE, kOther);
  CHECK_FALSE(read_neighbour(only(other), kOurs, n));
}

TEST_CASE("Notifications change the view if they are about our link, an address, or a route of the main table") {
  rtmsg local = route_head(32);
  local.rtm_table = RT_TABLE_LOCAL;
  const auto changes = [](const Bytes& bytes) { return changes_view(only(bytes), kOurs); };
  CHECK(changes(link(kOurs)));
  CHECK_FALSE(changes(link(kOther)));
  CHECK_FALSE(changes(link(kOurs, 0, AF_BRIDGE)));
  CHECK(changes(address(kUs, kOther)));
  CHECK(changes(route_with_metrics()));
  CHECK_FALSE(changes(Builder(RTM_NEWROUTE, local).done()));
  CHECK_FALSE(changes(neighbour(RTM_NEWNEIGH, NUD_REACHABLE)));
}

TEST_CASE("Messages that end early, wherever, are read as far as they go and no further") {
  for (const Bytes& whole : one_of_each()) {
    for (std::size_t n = 0; n <= whole.size(); ++n) {
      // Of its own size on the heap, so that the address sanitizer sees what is read behind it.
      Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
      cut.shrink_to_fit();
      swallow(cut);
      if (n < sizeof(nlmsghdr)) continue;
      const auto length = static_cast<std::uint32_t>(n);
      std::memcpy(cut.data(), &length, sizeof length);
      swallow(cut);
    }
  }
}

TEST_CASE("Whatever the bytes are, reading them ends") {
  const char* given = std::getenv("MTCP_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  INFO("MTCP_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::vector<Bytes> seeds = one_of_each();
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes;
    for (std::size_t i = random() % 4; i < 4; ++i) {
      const Bytes& m = seeds[random() % seeds.size()];
      bytes.insert(bytes.end(), m.begin(), m.end());
    }
    for (std::size_t i = random() % 8; i < 8 && !bytes.empty(); ++i) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    bytes.resize(bytes.size() - std::min<std::size_t>(bytes.size(), random() % 5));
    bytes.shrink_to_fit();
    swallow(bytes);
  }
}

TEST_CASE("Questions say what they are about") {
  const Bytes use = use_request(IpAddress::v4(10, 9, 0, 1), kOurs, 77);
  nlmsghdr head;
  ndmsg body;
  std::memcpy(&head, use.data(), sizeof head);
  std::memcpy(&body, use.data() + sizeof head, sizeof body);
  CHECK(head.nlmsg_len == use.size());
  CHECK(head.nlmsg_seq == 77);
  CHECK((body.ndm_flags & NTF_USE) != 0);
  CHECK(body.ndm_ifindex == static_cast<int>(kOurs));
  CHECK(std::memcmp(use.data() + use.size() - 4, "\x0a\x09\x00\x01", 4) == 0);

  IpAddress v6;
  v6.bytes = {0xfd, 0x09};
  v6.bytes[15] = 2;
  const Bytes neighbour = neighbour_request(v6, kOurs, 78);
  std::memcpy(&head, neighbour.data(), sizeof head);
  std::memcpy(&body, neighbour.data() + sizeof head, sizeof body);
  CHECK(head.nlmsg_len == neighbour.size());
  CHECK(head.nlmsg_type == RTM_GETNEIGH);
  CHECK(head.nlmsg_flags == NLM_F_REQUEST);
  CHECK(head.nlmsg_seq == 78);
  CHECK((body.ndm_family == AF_INET6 && body.ndm_flags == 0 && body.ndm_state == 0));
  CHECK(body.ndm_ifindex == static_cast<int>(kOurs));
  CHECK(std::memcmp(neighbour.data() + neighbour.size() - 16, v6.bytes.data(), 16) == 0);

  const Bytes dump = dump_request(RTM_GETROUTE, 79);
  std::memcpy(&head, dump.data(), sizeof head);
  CHECK(head.nlmsg_len == dump.size());
  CHECK(head.nlmsg_type == RTM_GETROUTE);
  CHECK(head.nlmsg_flags == (NLM_F_REQUEST | NLM_F_DUMP));
  CHECK(head.nlmsg_seq == 79);
}

TEST_CASE("A question for all of a kind has just the header of that kind, or the kernel's log says that there is more") {
  CHECK(dump_request(RTM_GETLINK, 1).size() == NLMSG_LENGTH(sizeof(ifinfomsg)));
  CHECK(dump_request(RTM_GETADDR, 1).size() == NLMSG_LENGTH(sizeof(ifaddrmsg)));
  CHECK(dump_request(RTM_GETROUTE, 1).size() == NLMSG_LENGTH(sizeof(rtmsg)));
  CHECK(dump_request(RTM_GETRULE, 1).size() == NLMSG_LENGTH(sizeof(fib_rule_hdr)));
}

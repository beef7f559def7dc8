#include "stack/kernel_net/view.hh"

#include <catch2/catch.hpp>

using namespace mtcp::stack;

namespace {

IpAddress v6(std::uint8_t first, std::uint8_t last) {
  IpAddress a;
  a.bytes[0] = first;
  a.bytes[15] = last;
  return a;
}

const IpAddress kAny = IpAddress::any_v4();
const IpAddress kUs = IpAddress::v4(10, 9, 0, 2), kOther = IpAddress::v4(10, 9, 0, 3);

KernelView example() {
  KernelView v;
  v.own = {{kUs, 120}, {v6(0xfd, 2), 64}};
  v.others = {IpAddress::v4(172, 17, 0, 1), IpAddress::v4(10, 9, 0, 77)};
  v.add({{IpAddress::v4(0, 0, 0, 0), 96}, IpAddress::v4(10, 9, 0, 1), kAny, 0, 0, true});
  v.add({{IpAddress::v4(10, 9, 0, 0), 120}, kAny, kAny, 0, 0, true});
  v.add({{IpAddress::v4(172, 17, 0, 0), 112}, kAny, kAny, 0, 0, false});
  v.add({{IpAddress::v4(192, 0, 2, 0), 120}, IpAddress::v4(10, 9, 0, 5), kAny, 100, 1300, true});
  v.add({{IpAddress::v4(192, 0, 2, 0), 120}, IpAddress::v4(10, 9, 0, 6), kAny, 50, 1400, true});
  v.add({{v6(0, 0), 0}, v6(0xfe, 1), {}, 1024, 0, true});
  v.sort_routes();
  return v;
}

}  // namespace

TEST_CASE("The longest prefix decides, and of the same the least metric") {
  const KernelView v = example();
  REQUIRE(v.route_to(IpAddress::v4(10, 9, 0, 7)) != nullptr);
  CHECK(v.route_to(IpAddress::v4(10, 9, 0, 7))->gateway.is_any());
  CHECK(v.route_to(IpAddress::v4(198, 51, 100, 1))->gateway == IpAddress::v4(10, 9, 0, 1));
  CHECK(v.route_to(IpAddress::v4(192, 0, 2, 9))->gateway == IpAddress::v4(10, 9, 0, 6));
  CHECK(v.route_to(IpAddress::v4(192, 0, 2, 9))->mtu == 1400);
}

TEST_CASE("The default route of IPv6 is none of IPv4, whose addresses lie in it") {
  KernelView v;
  v.own = {{kUs, 120}, {v6(0xfd, 2), 64}};
  v.add({{v6(0, 0), 0}, v6(0xfe, 1), {}, 0, 0, true});
  v.sort_routes();
  CHECK(v.route_to(IpAddress::v4(198, 51, 100, 1)) == nullptr);
  CHECK(v.route_to(v6(0x20, 1)) != nullptr);
}

TEST_CASE("What another interface leads to, and every address of this host, is not reached through ours") {
  const KernelView v = example();
  CHECK(v.reaches(IpAddress::v4(198, 51, 100, 1)));
  CHECK(v.reaches(v6(0x20, 1)));
  CHECK_FALSE(v.reaches(IpAddress::v4(172, 17, 0, 9)));
  CHECK_FALSE(v.reaches(IpAddress::v4(10, 9, 0, 77)));
  CHECK_FALSE(v.reaches(kUs));
}

TEST_CASE("Without an address of a family nothing of it is reached") {
  KernelView v = example();
  v.own = {{kUs, 120}};
  CHECK_FALSE(v.reaches(v6(0x20, 1)));
}

TEST_CASE("The source is the route's, or the address next to the next hop, and a deprecated one last") {
  KernelView v = example();
  v.own = {{kOther, 120}, {IpAddress::v4(10, 20, 0, 2), 112}, {v6(0xfd, 2), 64}, {v6(0x20, 2), 64}};
  KernelRoute far{{IpAddress::v4(0, 0, 0, 0), 96}, IpAddress::v4(10, 20, 0, 1), kAny, 0, 0, true};
  CHECK(v.source_towards(IpAddress::v4(8, 8, 8, 8), far) == IpAddress::v4(10, 20, 0, 2));
  far.source = kOther;
  CHECK(v.source_towards(IpAddress::v4(8, 8, 8, 8), far) == kOther);
  far.source = IpAddress::v4(10, 1, 1, 1);  // of another interface: not the stack's to use
  CHECK(v.source_towards(IpAddress::v4(8, 8, 8, 8), far).is_any());
  const KernelRoute six{{v6(0, 0), 0}, v6(0xfe, 1), {}, 0, 0, true};
  CHECK(v.source_towards(v6(0x20, 9), six) == v6(0x20, 2));  // RFC 6724 rule 8
  v.own[3].deprecated = true;
  CHECK(v.source_towards(v6(0x20, 9), six) == v6(0xfd, 2));  // rule 3
}

namespace {

// Two ways to everything: the main table's through our interface, and table 100's through another one, a tunnel.
KernelView two_ways(std::vector<KernelRule> rules) {
  KernelView v;
  v.own = {{kUs, 120}};
  v.add({{IpAddress::v4(0, 0, 0, 0), 96}, IpAddress::v4(10, 9, 0, 1), kAny, 0, 0, true});
  v.add({{IpAddress::v4(10, 9, 0, 0), 120}, kAny, kAny, 0, 0, true});
  KernelRoute tunnel{{IpAddress::v4(0, 0, 0, 0), 96}, kAny, kAny, 0, 0, false};
  tunnel.table = 100;
  v.add(tunnel);
  v.sort_routes();
  rules.push_back({.priority = 0, .from = {kAny, 96}, .to = {kAny, 96}, .table = KernelRoute::kLocalTable});
  rules.push_back({.priority = 32766, .from = {kAny, 96}, .to = {kAny, 96}, .table = KernelRoute::kMainTable});
  rules.push_back({.priority = 32767, .from = {kAny, 96}, .to = {kAny, 96}, .table = KernelRoute::kDefaultTable});
  v.set_rules(std::move(rules));
  return v;
}

KernelRule rule(std::uint32_t priority, std::uint32_t table) {
  return {.priority = priority, .from = {kAny, 96}, .to = {kAny, 96}, .table = table};
}

const IpAddress kFar = IpAddress::v4(198, 51, 100, 1), kNear = IpAddress::v4(10, 9, 0, 7);

}  // namespace

TEST_CASE("Where there are the usual rules only, none are kept") {
  CHECK(two_ways({}).rules().empty());
  CHECK(two_ways({}).reaches(kFar));
  CHECK(two_ways({rule(10, KernelRoute::kMainTable)}).rules().empty());
  CHECK(two_ways({rule(10, 100)}).rules().size() == 4);
}

TEST_CASE("What a rule sends through another interface is not reached through ours") {
  KernelRule to = rule(10, 100);
  to.to = {IpAddress::v4(198, 51, 100, 0), 120};
  CHECK_FALSE(two_ways({to}).reaches(kFar));
  CHECK(two_ways({to}).reaches(IpAddress::v4(203, 0, 113, 1)));
  KernelRule late = rule(40000, 100);
  CHECK(two_ways({late}).reaches(kFar));  // the main table comes first
  KernelRule refuse = to;
  refuse.action = KernelRule::Action::refuse;
  CHECK_FALSE(two_ways({refuse}).reaches(kFar));
  CHECK(two_ways({refuse}).reaches(kNear));
}

TEST_CASE("A tunnel that takes all but its own packets, as wg-quick sets it up, has all but what the main table names") {
  KernelRule unmarked = rule(32765, 100);
  unmarked.applies = KernelRule::Applies::never;  // to marked ones
  unmarked.inverted = true;
  KernelRule main = rule(32764, KernelRoute::kMainTable);
  main.shortest = 1;
  const KernelView v = two_ways({unmarked, main});
  CHECK_FALSE(v.reaches(kFar));
  CHECK(v.reaches(kNear));
}

TEST_CASE("A rule for a source counts once the source is known, chosen or not") {
  KernelRule from = rule(10, 100);
  from.from = {kUs, 128};
  const KernelView v = two_ways({from});
  CHECK_FALSE(v.reaches(kFar));
  CHECK_FALSE(v.reaches(kFar, kUs));
  CHECK(v.route_to(kFar) != nullptr);
  CHECK_FALSE(v.route_to(kFar, kUs)->ours);
  CHECK(v.route_to(kFar, kOther)->ours);
}

TEST_CASE("What a rule may send elsewhere is not reached for sure, and an answer goes as if the rule were not there") {
  KernelRule user = rule(10, 100);
  user.applies = KernelRule::Applies::perhaps;
  const KernelView v = two_ways({user});
  CHECK_FALSE(v.reaches(kFar));
  CHECK(v.route_to(kFar, kUs)->ours);
  KernelRule nothing = user;
  nothing.to = {IpAddress::v4(203, 0, 113, 0), 120};
  CHECK(two_ways({nothing}).reaches(kFar));
}

TEST_CASE("A table that has nothing, or says throw, passes on to the next rule") {
  KernelView v = two_ways({});
  KernelRoute thrown{{kFar, 128}, kAny, kAny, 0, 0, false};
  thrown.table = 100;
  thrown.passes_on = true;
  v.add(thrown);
  v.sort_routes();
  std::vector<KernelRule> rules{rule(10, 100), rule(20, 77), rule(32766, KernelRoute::kMainTable)};
  v.set_rules(rules);
  CHECK(v.reaches(kFar));
  CHECK_FALSE(v.reaches(IpAddress::v4(203, 0, 113, 1)));
}

TEST_CASE("Of a table that is not whole nothing is reached") {
  KernelView v = example();
  v.truncated = true;
  CHECK_FALSE(v.reaches(IpAddress::v4(198, 51, 100, 1)));
}

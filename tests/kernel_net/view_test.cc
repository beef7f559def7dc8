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

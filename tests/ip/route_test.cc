#include "stack/ip/route.hh"

#include <catch2/catch.hpp>

using namespace mtcp::stack;

namespace {

Options two_networks() {
  Options o;
  o.interface.addresses = {{IpAddress::v4(10, 0, 0, 2), 96 + 8}, {IpAddress::v4(10, 9, 0, 2), 96 + 24}};
  o.interface.gateways = {IpAddress::v4(10, 9, 0, 1), IpAddress::v4(10, 0, 0, 1),
                          IpAddress::v4(192, 0, 2, 1)};
  return o;
}

IpAddress v6(std::uint8_t last) {
  IpAddress a;
  a.bytes[0] = 0xfd;
  a.bytes[15] = last;
  return a;
}

const IpAddress kAny = IpAddress::any_v4();

}  // namespace

TEST_CASE("The longest prefix decides the source address") {
  RouteTable t(two_networks(), 1500, 1960, true);
  const auto near = t.path(IpAddress::v4(10, 9, 0, 7), kAny);
  REQUIRE(near);
  CHECK((*near)->source == IpAddress::v4(10, 9, 0, 2));
  CHECK((*near)->next_hop(IpAddress::v4(10, 9, 0, 7)) == IpAddress::v4(10, 9, 0, 7));
  CHECK((*near)->mtu == 1500);
  const auto wide = t.path(IpAddress::v4(10, 8, 0, 7), kAny);
  REQUIRE(wide);
  CHECK((*wide)->source == IpAddress::v4(10, 0, 0, 2));
}

TEST_CASE("What is on no link goes to the gateway: the one of the chosen source address, or else the first") {
  RouteTable t(two_networks(), 1500, 1960, true);
  const IpAddress far = IpAddress::v4(198, 51, 100, 1);
  const auto path = t.path(far, kAny);
  REQUIRE(path);
  CHECK((*path)->next_hop(far) == IpAddress::v4(10, 9, 0, 1));
  CHECK((*path)->source == IpAddress::v4(10, 9, 0, 2));
  const auto other = t.path(far, IpAddress::v4(10, 0, 0, 2));
  REQUIRE(other);
  CHECK((*other)->next_hop(far) == IpAddress::v4(10, 0, 0, 1));
  CHECK((*other)->source == IpAddress::v4(10, 0, 0, 2));
  CHECK(t.gateways().size() == 2);  // the third is on no link of ours
}

TEST_CASE("Without a gateway what is on no link is unreachable") {
  Options o = two_networks();
  o.interface.gateways.clear();
  RouteTable t(o, 1500, 1960, true);
  CHECK(t.path(IpAddress::v4(198, 51, 100, 1), kAny).error() == Errc::network_unreachable);
}

TEST_CASE("There is no path to groups, broadcasts, reserved addresses, or IPv6 hosts") {
  RouteTable t(two_networks(), 1500, 1960, true);
  for (const auto a :
       {IpAddress::v4(224, 0, 0, 1), IpAddress::v4(255, 255, 255, 255), IpAddress::v4(10, 9, 0, 255),
        IpAddress::v4(0, 0, 0, 0), IpAddress::v4(127, 0, 0, 1), IpAddress::v4(240, 0, 0, 1)}) {
    CHECK(t.path(a, kAny).error() == Errc::network_unreachable);
  }
  CHECK(t.path(v6(1), IpAddress::any_v6()).error() == Errc::network_unreachable);
}

TEST_CASE("A source address that is not ours is refused") {
  RouteTable t(two_networks(), 1500, 1960, true);
  CHECK(t.path(IpAddress::v4(10, 9, 0, 7), IpAddress::v4(10, 9, 0, 3)).error() == Errc::address_unavailable);
  CHECK(t.path(IpAddress::v4(10, 9, 0, 7), IpAddress::v4(127, 0, 0, 1)).error() == Errc::address_unavailable);
}

TEST_CASE("Our own addresses are reached locally, and without a device nothing else is") {
  Options o = two_networks();
  o.interface.addresses.push_back({v6(2), 64});
  RouteTable t(o, 1500, 1960, false);
  const auto local = t.path(IpAddress::v4(10, 9, 0, 2), kAny);
  REQUIRE(local);
  CHECK((*local)->local);
  CHECK((*local)->source == IpAddress::v4(10, 9, 0, 2));
  CHECK((*local)->mtu == 1960);
  const auto six = t.path(v6(2), IpAddress::any_v6());
  REQUIRE(six);
  CHECK((*six)->local);
  CHECK(t.path(IpAddress::v4(10, 9, 0, 7), kAny).error() == Errc::network_unreachable);
  CHECK(t.path(IpAddress::v4(127, 0, 0, 1), kAny).error() == Errc::network_unreachable);
}

TEST_CASE("With the loopback option 127.0.0.0/8 and ::1 are local, and lead nowhere else") {
  Options o = two_networks();
  o.loopback = true;
  RouteTable t(o, 1500, 1960, true);
  IpAddress one;
  one.bytes[15] = 1;
  CHECK(t.is_local(one));
  CHECK(t.is_local(IpAddress::v4(127, 200, 3, 4)));
  const auto path = t.path(IpAddress::v4(127, 0, 0, 5), kAny);
  REQUIRE(path);
  CHECK((*path)->source == IpAddress::v4(127, 0, 0, 1));
  CHECK(t.path(IpAddress::v4(10, 9, 0, 7), IpAddress::v4(127, 0, 0, 1)).error() == Errc::network_unreachable);
}

TEST_CASE("The number of paths does not grow with the number of destinations") {
  Options o = two_networks();
  o.loopback = true;
  RouteTable t(o, 1500, 1960, true);
  const auto near = t.path(IpAddress::v4(10, 1, 0, 0), kAny),
             far = t.path(IpAddress::v4(198, 51, 0, 0), kAny);
  const auto local = t.path(IpAddress::v4(127, 1, 0, 1), kAny);
  for (std::uint32_t i = 1; i < 1000; ++i) {
    REQUIRE(*t.path(IpAddress::v4(0x0a010000 + i), kAny) == *near);
    REQUIRE(*t.path(IpAddress::v4(0xc6330000 + i), kAny) == *far);
    REQUIRE(*t.path(IpAddress::v4(0x7f010001 + i), kAny) == *local);
  }
}

TEST_CASE("rfc6890: addresses that no host on the wire may send from") {
  RouteTable t(two_networks(), 1500, 1960, true);
  for (const std::uint32_t a : {0U, 0x00000001U, 0x7f000001U, 0xe0000001U, 0xf0000001U, 0xffffffffU,
                                0x0a0900ffU, 0x0affffffU, 0x0a090002U, 0x0a000002U}) {
    CHECK(t.is_bad_source(a));
  }
  CHECK_FALSE(t.is_bad_source(0x0a090001));
  CHECK_FALSE(t.is_bad_source(0x08080808));
}

TEST_CASE("rfc3021: a /31 has no broadcast address") {
  Options o;
  o.interface.addresses = {{IpAddress::v4(10, 0, 0, 0), 96 + 31}};
  RouteTable t(o, 1500, 1960, true);
  CHECK_FALSE(t.is_bad_source(0x0a000001));
  CHECK(t.path(IpAddress::v4(10, 0, 0, 1), kAny));
}

TEST_CASE("A prefix of no bits puts the whole world on the link") {
  Options o;
  o.interface.addresses = {{IpAddress::v4(10, 0, 0, 1), 96}};
  RouteTable t(o, 1500, 1960, true);
  CHECK(t.on_link(0x08080808));
}

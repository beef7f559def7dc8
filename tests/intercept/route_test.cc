#include "intercept/sockets/route.hh"

#include <catch2/catch.hpp>

#include "stack/kernel_net/view.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using Owner = Router::Owner;

namespace {

Options on_one_network() {
  Options o;
  o.stack.interface.addresses.push_back({stack::IpAddress::v4(10, 9, 0, 2), 120});
  return o;
}
stack::Endpoint at(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d, std::uint16_t port = 80) {
  return {stack::IpAddress::v4(a, b, c, d), port};
}
const stack::Endpoint kAny{stack::IpAddress::any_v4(), 0};

Rule rule(Rule::Role role, bool to_stack) {
  Rule r;
  r.role = role;
  r.to_stack = to_stack;
  return r;
}

}  // namespace

TEST_CASE("without rules listening follows the addresses of the interface") {
  const Options o = on_one_network();
  const Router router(o, "/usr/sbin/nginx");
  CHECK(router.listen(at(10, 9, 0, 2)) == Owner::stack);
  CHECK(router.listen(at(10, 9, 0, 3)) == Owner::kernel);
  CHECK(router.listen(at(127, 0, 0, 1)) == Owner::kernel);
  CHECK(router.listen(at(0, 0, 0, 0)) == Owner::both);
  CHECK(router.listen({stack::IpAddress::any_v6(), 80}) == Owner::both);
}

TEST_CASE("without rules connecting follows the interface's network and gateway") {
  Options o = on_one_network();
  const Router router(o, "curl");
  CHECK(router.connect(kAny, at(10, 9, 0, 7)) == Owner::stack);
  CHECK(router.connect(kAny, at(10, 9, 0, 2)) == Owner::stack);
  CHECK(router.connect(kAny, at(127, 0, 0, 1)) == Owner::kernel);
  CHECK(router.connect(kAny, at(0, 0, 0, 0)) == Owner::kernel);
  CHECK(router.connect(kAny, at(192, 0, 2, 1)) == Owner::kernel);
  CHECK(router.connect(kAny, at(224, 0, 0, 1)) == Owner::kernel);
  CHECK(std::string_view(router.judge_connect(kAny, at(192, 0, 2, 1), nullptr).why) == "on no network of [interface], which has no gateway");
  o.stack.interface.gateways.push_back(stack::IpAddress::v4(10, 9, 0, 1));
  CHECK(router.connect(kAny, at(192, 0, 2, 1)) == Owner::stack);
  CHECK(router.connect(kAny, {stack::IpAddress{{0x20, 0x01}}, 80}) == Owner::kernel);  // no IPv6 gateway
  o.stack.interface.gateways.push_back(stack::IpAddress{{0xfe, 0x80, 0, 1}});
  CHECK(router.connect(kAny, {stack::IpAddress{{0x20, 0x01}}, 80}) == Owner::stack);
  CHECK(router.connect(kAny, {stack::IpAddress{{0xfe, 0x80}}, 80}) == Owner::kernel);
}

TEST_CASE("where the addresses are the kernel's, its routes say who connects, and listeners are for both") {
  Options o = on_one_network();
  o.stack.interface.from_kernel = true;
  o.device.port = "net_af_xdp0,iface=eth0,share=kernel";
  stack::KernelView view;
  view.own = {{stack::IpAddress::v4(10, 9, 0, 2), 120}};
  view.others = {stack::IpAddress::v4(172, 17, 0, 1)};
  view.add({{stack::IpAddress::any_v4(), 96}, stack::IpAddress::v4(10, 9, 0, 1), {}, 0, 0, true});
  view.add({{stack::IpAddress::v4(172, 18, 0, 0), 112}, {}, {}, 0, 0, false});
  view.sort_routes();
  const Router router(o, "nginx");
  CHECK(router.connect(kAny, at(192, 0, 2, 1)) == Owner::kernel);  // nothing is known yet
  CHECK(router.connect(kAny, at(192, 0, 2, 1), &view) == Owner::stack);
  CHECK(router.connect(kAny, at(172, 18, 0, 9), &view) == Owner::kernel);   // by way of another interface
  CHECK(router.connect(kAny, at(172, 17, 0, 1), &view) == Owner::kernel);   // another address of this host
  CHECK(router.connect(kAny, at(10, 9, 0, 2), &view) == Owner::kernel);     // and this one
  CHECK(router.connect(kAny, at(169, 254, 0, 1), &view) == Owner::kernel);  // link-local
  CHECK(router.listen(at(10, 9, 0, 2), &view) == Owner::both);
  CHECK(router.listen(at(0, 0, 0, 0), &view) == Owner::both);
  o.stack.interface.addresses.clear();  // there may be one some time
  CHECK(router.listen(at(0, 0, 0, 0), &view) == Owner::both);
  CHECK(router.may_use_stack());
}

TEST_CASE("where the address is the kernel's as well, that serves who connects on this machine") {
  Options o = on_one_network();
  o.device.port = "net_af_xdp0,iface=eth0,share=kernel";
  const Router router(o, "curl");
  CHECK(router.listen(at(10, 9, 0, 2)) == Owner::both);
  CHECK(router.listen(at(10, 9, 0, 3)) == Owner::kernel);
  CHECK(router.connect(kAny, at(10, 9, 0, 2)) == Owner::kernel);
  CHECK(router.connect(kAny, at(10, 9, 0, 7)) == Owner::stack);
}

TEST_CASE("a socket bound to an address of the kernel connects there") {
  const Options o = on_one_network();
  const Router router(o, "curl");
  CHECK(router.connect(at(10, 9, 0, 2, 0), at(10, 9, 0, 7)) == Owner::stack);
  CHECK(router.connect(at(192, 168, 0, 1, 0), at(10, 9, 0, 7)) == Owner::kernel);
}

TEST_CASE("loopback is the stack's only where the configuration says so") {
  Options o = on_one_network();
  o.stack.loopback = true;
  const Router router(o, "x");
  CHECK(router.listen(at(127, 0, 0, 1)) == Owner::both);
  CHECK(router.connect(kAny, at(127, 0, 0, 5)) == Owner::stack);
  CHECK(router.connect(kAny, at(0, 0, 0, 0)) == Owner::stack);
}

TEST_CASE("the first rule that matches by role, address, port and program decides") {
  Options o = on_one_network();
  Rule ssh = rule(Rule::Role::listen, false);
  ssh.port_first = ssh.port_last = 22;
  Rule dns = rule(Rule::Role::connect, false);
  dns.has_address = true;
  dns.address = {stack::IpAddress::v4(10, 9, 0, 53), 128};
  Rule others = rule(Rule::Role::any, false);
  others.program = "wrk*";
  o.rules = {ssh, dns, others};
  const Router nginx(o, "/usr/sbin/nginx");
  CHECK(nginx.listen(at(10, 9, 0, 2, 22)) == Owner::kernel);
  CHECK(nginx.listen(at(10, 9, 0, 2, 80)) == Owner::stack);
  CHECK(nginx.connect(kAny, at(10, 9, 0, 53)) == Owner::kernel);
  CHECK(nginx.connect(kAny, at(10, 9, 0, 54)) == Owner::stack);
  const Router wrk(o, "/usr/bin/wrk2");
  CHECK(wrk.connect(kAny, at(10, 9, 0, 54)) == Owner::kernel);
  CHECK(wrk.listen(at(10, 9, 0, 2, 80)) == Owner::kernel);
}

TEST_CASE("a program that can never reach the stack is recognised") {
  Options o;
  CHECK_FALSE(Router(o, "x").may_use_stack());  // no address at all
  o = on_one_network();
  CHECK(Router(o, "x").may_use_stack());
  Rule none = rule(Rule::Role::any, false);
  none.program = "sshd";
  o.rules = {none};
  CHECK_FALSE(Router(o, "/usr/sbin/sshd").may_use_stack());
  CHECK(Router(o, "/usr/sbin/nginx").may_use_stack());
  o.rules = {rule(Rule::Role::listen, false)};
  CHECK(Router(o, "x").may_use_stack());  // it may still connect
  o.rules.push_back(rule(Rule::Role::connect, false));
  CHECK_FALSE(Router(o, "x").may_use_stack());
}

#include "conf/check_rules.hh"

#include <algorithm>

#include "conf/text.hh"

namespace mtcp::conf {
namespace {

using intercept::Options;
using intercept::Rule;
using stack::IpAddress;
using stack::Prefix;

constexpr Prefix kMulticastAndBroadcast{IpAddress::v4(224, 0, 0, 0), 96 + 3};
constexpr Prefix kLoopback4{IpAddress::v4(127, 0, 0, 0), 96 + 8};

bool is_within(const Prefix& inner, const Prefix& outer) {
  return inner.length >= outer.length && outer.contains(inner.address);
}

bool is_loopback(const Prefix& p) {
  return is_within(p, kLoopback4) || (p.length == 128 && p.address.is_loopback());
}

bool has_own_address(const Rule& rule, const Options& options) {
  const auto& own = options.stack.interface.addresses;
  return std::ranges::any_of(own, [&](const auto& a) { return rule.address.contains(a.address); });
}

// A listener on an address is the stack's if the address is, one on the wildcard always.
bool can_listen(const Rule& rule, const Options& options) {
  if (rule.address.contains(IpAddress::any_v4()) || rule.address.contains(IpAddress::any_v6())) return true;
  if (options.stack.interface.from_kernel && !is_loopback(rule.address)) return true;  // it may be one some time
  const bool loopback = is_loopback(rule.address) || is_within(kLoopback4, rule.address);
  return (loopback && options.stack.loopback) || has_own_address(rule, options);
}

bool can_connect(const Rule& rule, const Options& options) {
  if (is_loopback(rule.address)) return options.stack.loopback;
  if (is_within(rule.address, kMulticastAndBroadcast)) return false;
  if (options.stack.interface.from_kernel) return true;
  const auto& own = options.stack.interface.addresses;
  const bool v4 = rule.address.address.is_v4();
  return has_own_address(rule, options) || std::ranges::any_of(own, [&](const auto& a) { return a.address.is_v4() == v4; });
}

}  // namespace

std::string why_impossible(const Rule& rule, const Options& options) {
  if (!rule.to_stack || !rule.has_address) return {};
  if (rule.role != Rule::Role::connect && can_listen(rule, options)) return {};
  if (rule.role != Rule::Role::listen && can_connect(rule, options)) return {};
  const std::string address = rule.address.length == 128 ? to_text(rule.address.address) : to_text(rule.address);
  if (is_loopback(rule.address)) return address + " is the kernel's: expected loopback = true in [stack]";
  if (is_within(rule.address, kMulticastAndBroadcast)) return address + ": nobody connects to multicast or broadcast by TCP";
  if (rule.role == Rule::Role::connect) return address + " is out of reach: no address of that family in [interface]";
  return address + " is no address of the stack: nothing can listen there but on an address of [interface]";
}

}  // namespace mtcp::conf

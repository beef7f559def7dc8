#include "intercept/sockets/route.hh"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

#include "stack/kernel_net/view.hh"

namespace mtcp::intercept {
namespace {

bool is_broadcast_or_multicast(const stack::IpAddress& a) {
  if (!a.is_v4()) return a.bytes[0] == 0xff;
  return a.bytes[12] >= 224;  // 224/4 multicast, 240/4 reserved and broadcast
}

// Reasons for the log.
constexpr const char* kLoopback = "loopback is the kernel's (loopback = false in [stack])";
constexpr const char* kByRule = "by a rule";
constexpr const char* kOwn = "an address of the stack";
constexpr const char* kShared = "an address of the kernel's and the stack's";

bool covers(Rule::Role rule, Rule::Role role) { return rule == Rule::Role::any || rule == role; }

// Not what is link-local: that means nothing without the interface's name.
Router::Verdict judge_by_kernel(Router::View kernel, const stack::IpAddress& local, const stack::IpAddress& remote) {
  if (kernel == nullptr || stack::is_link_local(remote)) return {Router::Owner::kernel, "link-local"};
  if (!kernel->reaches(remote, local)) return {Router::Owner::kernel, "the kernel's route to it is not through the interface"};
  return {Router::Owner::stack, "the kernel's route to it is through the interface"};
}

}  // namespace

Router::Router(const Options& options, Program program)
    : options_(options), program_(std::move(program)) {}

bool Router::program_matches(const Rule& rule) const {
  if (rule.program.empty()) return true;
  // A pattern with a slash is about whole paths, one without about names.
  const bool whole = rule.program.find('/') != std::string::npos;
  return std::ranges::any_of(whole ? program_.paths : program_.names, [&](const std::string& name) {
    return ::fnmatch(rule.program.c_str(), name.c_str(), whole ? FNM_PATHNAME : 0) == 0;
  });
}

const Rule* Router::match(Rule::Role role, const stack::Endpoint& e) const {
  for (const Rule& rule : options_.rules) {
    if (!covers(rule.role, role)) continue;
    if (rule.has_address && !rule.address.contains(e.address)) continue;
    if (e.port < rule.port_first || e.port > rule.port_last) continue;
    if (program_matches(rule)) return &rule;
  }
  return nullptr;
}

bool Router::owns(const stack::IpAddress& a, View kernel) const {
  if (a.is_loopback()) return options_.stack.loopback;
  const auto is_it = [&](const auto& own) { return own.address == a; };
  return kernel != nullptr ? std::ranges::any_of(kernel->own, is_it) : std::ranges::any_of(options_.stack.interface.addresses, is_it);
}

Router::Verdict Router::judge_listen(const stack::Endpoint& local, View kernel) const {
  const bool wildcard = local.address.is_any();
  // An address that is not the stack's can't be listened on there, whatever a rule says.
  const auto& interface = options_.stack.interface;
  const bool possible = wildcard ? options_.stack.loopback || interface.from_kernel || !interface.addresses.empty()
                                 : owns(local.address, kernel);
  if (!possible) return {Owner::kernel, local.address.is_loopback() ? kLoopback : "no address of [interface]"};
  const Rule* rule = match(Rule::Role::listen, local);
  if (rule != nullptr && !rule->to_stack) return {Owner::kernel, kByRule};
  if (wildcard) return {Owner::both, rule != nullptr ? kByRule : "on the wildcard address"};
  if (local.address.is_loopback()) return {Owner::both, rule != nullptr ? kByRule : "on loopback"};
  // Who connects from this machine comes by the kernel's loopback.
  if (options_.device.is_shared_with_kernel()) return {Owner::both, rule != nullptr ? kByRule : kShared};
  return {Owner::stack, rule != nullptr ? kByRule : kOwn};
}

Router::Verdict Router::judge_connect(const stack::Endpoint& local, const stack::Endpoint& remote, View kernel) const {
  if (is_broadcast_or_multicast(remote.address)) return {Owner::kernel, "multicast or broadcast"};
  // 0.0.0.0 and :: mean this host, that is, loopback.
  if ((remote.address.is_loopback() || remote.address.is_any()) && !options_.stack.loopback)
    return {Owner::kernel, kLoopback};
  if (!local.address.is_any() && !owns(local.address, kernel)) return {Owner::kernel, "bound to an address of the kernel"};
  // That means nothing without the name of an interface.
  if (!remote.address.is_v4() && stack::is_link_local(remote.address)) return {Owner::kernel, "link-local"};
  if (const Rule* rule = match(Rule::Role::connect, remote); rule != nullptr) {
    return {rule->to_stack ? Owner::stack : Owner::kernel, kByRule};
  }
  const bool own = owns(remote.address, kernel);
  if (own && !remote.address.is_loopback() && options_.device.is_shared_with_kernel())
    return {Owner::kernel, kShared};
  if (own || remote.address.is_any()) return {Owner::stack, kOwn};
  const auto& interface = options_.stack.interface;
  if (interface.from_kernel) return judge_by_kernel(kernel, local.address, remote.address);
  for (const auto& ours : interface.addresses) {
    if (stack::Prefix{ours.address, ours.prefix_length}.contains(remote.address))
      return {Owner::stack, "on a network of [interface]"};
  }
  for (const auto& gateway : interface.gateways) {
    if (gateway.is_v4() == remote.address.is_v4()) return {Owner::stack, "through the gateway of [interface]"};
  }
  return {Owner::kernel, "on no network of [interface], which has no gateway"};
}

bool Router::names_as_listener() const {
  return std::any_of(options_.rules.begin(), options_.rules.end(), [&](const Rule& rule) {
    return rule.to_stack && !rule.program.empty() && covers(rule.role, Rule::Role::listen) &&
           program_matches(rule);
  });
}

bool Router::may_use_stack() const {
  const auto& interface = options_.stack.interface;
  if (!options_.stack.loopback && !interface.from_kernel && interface.addresses.empty()) return false;
  // Whatever the first rule that covers everything of a role says is the end of that role.
  bool listen_open = true, connect_open = true;
  for (const Rule& rule : options_.rules) {
    if (!program_matches(rule)) continue;
    const bool of_listen = listen_open && covers(rule.role, Rule::Role::listen);
    const bool of_connect = connect_open && covers(rule.role, Rule::Role::connect);
    if (!of_listen && !of_connect) continue;
    if (rule.to_stack) return true;
    if (rule.has_address || rule.port_first > 0 || rule.port_last < 65535) continue;
    if (of_listen) listen_open = false;
    if (of_connect) connect_open = false;
  }
  return listen_open || connect_open;
}

}  // namespace mtcp::intercept

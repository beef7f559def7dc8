#include "stack/kernel_net/view.hh"

#include <algorithm>
#include <tuple>
#include <utility>

namespace mtcp::stack {
namespace {

IpAddress masked(IpAddress a, unsigned length) {
  for (unsigned i = 0; i < a.bytes.size(); ++i) {
    const unsigned bits = length > 8 * i ? std::min(length - 8 * i, 8U) : 0U;
    a.bytes[i] = static_cast<std::uint8_t>(a.bytes[i] & (0xff00U >> bits));
  }
  return a;
}

unsigned common_bits(const IpAddress& a, const IpAddress& b) {
  for (unsigned i = 0; i < a.bytes.size(); ++i) {
    const auto differ = static_cast<std::uint8_t>(a.bytes[i] ^ b.bytes[i]);
    if (differ != 0) return 8 * i + static_cast<unsigned>(std::countl_zero(differ));
  }
  return 128;
}

using Applies = KernelRule::Applies;

bool is_any(const Prefix& p) { return p.length == (p.address.is_v4() ? 96 : 0); }
int length_of(const KernelRoute& r) { return r.destination.length - (r.destination.address.is_v4() ? 96 : 0); }

Applies does_apply(const KernelRule& r, const IpAddress& destination, const IpAddress& source) {
  const bool matches = r.to.contains(destination) && (is_any(r.from) || (!source.is_any() && r.from.contains(source)));
  const Applies applies = matches ? r.applies : Applies::never;
  if (!r.inverted || applies == Applies::perhaps) return applies;
  return applies == Applies::never ? Applies::always : Applies::never;
}

}  // namespace

void KernelView::sort_routes() {
  const auto key = [](const KernelRoute& r) {
    return std::tuple(r.table, -int{r.destination.length}, r.destination.address.is_v4(), r.destination.address.bytes, r.metric);
  };
  for (KernelRoute& r : routes_) r.destination.address = masked(r.destination.address, r.destination.length);
  std::stable_sort(routes_.begin(), routes_.end(),
                   [&](const KernelRoute& a, const KernelRoute& b) { return key(a) < key(b); });
  groups_.clear();
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    const bool v4 = routes_[i].destination.address.is_v4();
    const std::uint8_t length = routes_[i].destination.length;
    const std::uint32_t table = routes_[i].table;
    if (groups_.empty() || groups_.back().table != table || groups_.back().v4 != v4 || groups_.back().length != length)
      groups_.push_back({table, v4, length, i, i});
    groups_.back().end = i + 1;
  }
}

const KernelRoute* KernelView::route_in(std::uint32_t table, const IpAddress& destination) const {
  for (const Group& g : groups_) {
    if (g.table != table || g.v4 != destination.is_v4()) continue;
    const IpAddress wanted = masked(destination, g.length);
    const auto begin = routes_.begin() + static_cast<std::ptrdiff_t>(g.begin);
    const auto end = routes_.begin() + static_cast<std::ptrdiff_t>(g.end);
    const auto at = std::lower_bound(begin, end, wanted, [](const KernelRoute& r, const IpAddress& a) {
      return r.destination.address.bytes < a.bytes;
    });
    if (at != end && at->destination.address == wanted) return &*at;
  }
  return nullptr;
}

bool KernelView::owns(const IpAddress& a) const {
  return std::any_of(own.begin(), own.end(), [&](const KernelAddress& o) { return o.address == a; });
}

void KernelView::set_rules(std::vector<KernelRule> rules) {
  std::stable_sort(rules.begin(), rules.end(), [](const KernelRule& a, const KernelRule& b) { return a.priority < b.priority; });
  // A table of the kernel's own, asked for everything; of the default one only if there is nothing in it.
  const auto usual = [&](const KernelRule& r, bool& main) {
    const bool plain = is_any(r.from) && is_any(r.to) && r.applies == Applies::always && !r.inverted && r.shortest == 0 &&
                       r.action == KernelRule::Action::look_up;
    main = main || (plain && r.table == KernelRoute::kMainTable);
    const bool empty = std::ranges::none_of(routes_, [](const KernelRoute& route) { return route.table == KernelRoute::kDefaultTable; });
    return plain && (r.table == KernelRoute::kMainTable || r.table == KernelRoute::kLocalTable ||
                     (r.table == KernelRoute::kDefaultTable && empty));
  };
  for (const bool v4 : {true, false}) {
    bool main = false, other = false;
    for (const KernelRule& r : rules) other = (r.v4 == v4 && !usual(r, main)) || other;
    if (!other && main) std::erase_if(rules, [v4](const KernelRule& r) { return r.v4 == v4; });
  }
  rules_ = std::move(rules);
}

// As net/core/fib_rules.c does it. Addresses of this host, the local table, have been looked at.
KernelView::Choice KernelView::choose(const IpAddress& destination, const IpAddress& source) const {
  Choice chosen;
  bool ruled = false;
  for (const KernelRule& r : rules_) {
    if (r.v4 != destination.is_v4()) continue;
    ruled = true;
    const Applies applies = does_apply(r, destination, source);
    chosen.certain = chosen.certain && applies != Applies::perhaps;
    if (applies != Applies::always || r.action == KernelRule::Action::nothing || r.table == KernelRoute::kLocalTable) continue;
    if (r.action == KernelRule::Action::refuse) return chosen;
    const KernelRoute* route = route_in(r.table, destination);
    if (route == nullptr || route->passes_on || length_of(*route) < r.shortest) continue;
    chosen.route = route;
    return chosen;
  }
  if (!ruled) chosen.route = route_in(KernelRoute::kMainTable, destination);
  if (chosen.route != nullptr && chosen.route->passes_on) chosen.route = nullptr;
  return chosen;
}

// Linux, too, asks again once the source has been chosen (ip_route_connect).
bool KernelView::reaches(const IpAddress& destination, const IpAddress& source) const {
  if (truncated || owns(destination) || std::find(others.begin(), others.end(), destination) != others.end()) return false;
  const Choice first = choose(destination, source);
  if (!first.certain || first.route == nullptr || !first.route->ours) return false;
  const IpAddress from = source.is_any() ? source_towards(destination, *first.route) : source;
  if (from.is_any() || rules_.empty()) return !from.is_any();
  const Choice second = choose(destination, from);
  return second.certain && second.route != nullptr && second.route->ours;
}

// RFC 6724 section 5, rules 3 and 8; of IPv4 the address in the network of the next hop, or the first, as Linux does.
IpAddress KernelView::source_towards(const IpAddress& destination, const KernelRoute& route) const {
  const bool v4 = destination.is_v4();
  if (!route.source.is_any()) return owns(route.source) ? route.source : IpAddress{};
  const IpAddress& next_hop = route.gateway.is_any() ? destination : route.gateway;
  const KernelAddress* best = nullptr;
  const auto rank = [&](const KernelAddress& a) {
    const bool near = Prefix{a.address, a.prefix_length}.contains(v4 ? next_hop : destination);
    return std::tuple(!a.deprecated, near, v4 ? 0U : common_bits(a.address, destination));
  };
  for (const KernelAddress& a : own) {
    if (a.address.is_v4() != v4) continue;
    if (best == nullptr || rank(a) > rank(*best)) best = &a;
  }
  return best == nullptr ? IpAddress{} : best->address;
}

}  // namespace mtcp::stack

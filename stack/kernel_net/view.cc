#include "stack/kernel_net/view.hh"

#include <algorithm>
#include <tuple>

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

}  // namespace

void KernelView::sort_routes() {
  const auto key = [](const KernelRoute& r) {
    return std::tuple(-int{r.destination.length}, r.destination.address.is_v4(), r.destination.address.bytes, r.metric);
  };
  for (KernelRoute& r : routes_) r.destination.address = masked(r.destination.address, r.destination.length);
  std::stable_sort(routes_.begin(), routes_.end(),
                   [&](const KernelRoute& a, const KernelRoute& b) { return key(a) < key(b); });
  groups_.clear();
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    const bool v4 = routes_[i].destination.address.is_v4();
    const std::uint8_t length = routes_[i].destination.length;
    if (groups_.empty() || groups_.back().v4 != v4 || groups_.back().length != length)
      groups_.push_back({v4, length, i, i});
    groups_.back().end = i + 1;
  }
}

const KernelRoute* KernelView::route_to(const IpAddress& destination) const {
  for (const Group& g : groups_) {
    if (g.v4 != destination.is_v4()) continue;
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

bool KernelView::reaches(const IpAddress& destination) const {
  if (owns(destination) || std::find(others.begin(), others.end(), destination) != others.end()) return false;
  const KernelRoute* route = route_to(destination);
  return route != nullptr && route->ours && !source_towards(destination, *route).is_any();
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

#include "stack/ip/route.hh"

#include <algorithm>

#include "stack/kernel_net/view.hh"

namespace mtcp::stack {
namespace {

std::uint32_t mask_of(unsigned bits) { return bits == 0 ? 0 : 0xffffffffU << (32 - bits); }

// Loopback, groups, reserved, "this network" (RFC 6890).
bool never_on_the_wire(std::uint32_t a) { return a >> 24 == 0 || a >> 24 == 127 || a >= 0xe0000000; }

}  // namespace

RouteTable::RouteTable(const Options& options, std::uint32_t mtu, std::uint32_t local_mtu, bool device,
                       const KernelView* kernel)
    : mtu_(mtu), local_mtu_(local_mtu), kernel_(kernel), loopback_(options.loopback), device_(device) {
  if (kernel_ != nullptr) {
    follow_kernel();
    return;
  }
  set_addresses(options.interface.addresses);
  for (const IpAddress& g : options.interface.gateways) {
    if (g.is_v4() && on_link(g.as_v4())) gateways_.push_back(g.as_v4());
    if (!g.is_v4() && on_link_v6(g)) gateways_v6_.push_back(g);
  }
}

void RouteTable::set_addresses(std::span<const InterfaceOptions::Address> addresses) {
  networks_.clear();
  own_.clear();
  own_v6_.clear();
  networks_v6_.clear();
  for (const auto& [address, length] : addresses) {
    if (!address.is_v4()) {
      own_v6_.push_back(address);
      networks_v6_.push_back({address, length});
      continue;
    }
    const unsigned bits = length < 96 ? 0U : std::min(length - 96U, 32U);
    networks_.push_back({address.as_v4(), mask_of(bits)});
    own_.push_back(address.as_v4());
  }
  std::stable_sort(networks_.begin(), networks_.end(),
                   [](const Network& a, const Network& b) { return a.mask > b.mask; });
  std::stable_sort(networks_v6_.begin(), networks_v6_.end(),
                   [](const Prefix& a, const Prefix& b) { return a.length > b.length; });
  std::sort(own_.begin(), own_.end());
  own_.erase(std::unique(own_.begin(), own_.end()), own_.end());
}

void RouteTable::follow_kernel() {
  std::vector<InterfaceOptions::Address> addresses;
  for (const KernelAddress& a : kernel_->own) addresses.push_back({a.address, a.prefix_length});
  set_addresses(addresses);
}

bool RouteTable::is_one_of_own(std::uint32_t a) const {
  return std::binary_search(own_.begin(), own_.end(), a);
}

bool RouteTable::is_own_v6(const IpAddress& a) const {
  return std::find(own_v6_.begin(), own_v6_.end(), a) != own_v6_.end();
}

// What is link-local is on the link, which there is only one of.
bool RouteTable::on_link_v6(const IpAddress& a) const {
  return is_link_local(a) || std::any_of(networks_v6_.begin(), networks_v6_.end(), [&](const Prefix& p) { return p.contains(a); });
}

bool RouteTable::is_bad_source_v6(const IpAddress& a) const {
  return a.is_any() || a.is_loopback() || a.bytes[0] == 0xff || a.is_v4() || is_own_v6(a);
}

const IpAddress& RouteTable::source_towards_v6(const IpAddress& a) const {
  for (const Prefix& p : networks_v6_)
    if (p.contains(a)) return p.address;
  return networks_v6_.front().address;
}

bool RouteTable::is_local_v6(const IpAddress& a) const { return (loopback_ && a.is_loopback()) || is_own_v6(a); }

const RouteTable::Network* RouteTable::network_of(std::uint32_t a) const {
  for (const Network& n : networks_)
    if (n.contains(a)) return &n;
  return nullptr;
}

bool RouteTable::on_link(std::uint32_t a) const { return network_of(a) != nullptr; }

bool RouteTable::is_bad_source(std::uint32_t a) const {
  if (never_on_the_wire(a) || is_own(a)) return true;
  return std::any_of(networks_.begin(), networks_.end(), [a](const Network& n) { return n.is_broadcast(a); });
}

std::uint32_t RouteTable::source_towards(std::uint32_t a) const {
  const Network* n = network_of(a);
  if (n != nullptr) return n->address;
  return networks_.empty() ? 0 : networks_.front().address;
}

Result<const Path*> RouteTable::path(const IpAddress& remote, const IpAddress& from) {
  const bool chosen = !from.is_any();
  if (chosen && (!is_local(from) || from.is_v4() != remote.is_v4())) return Errc::address_unavailable;
  if (is_local(remote)) return local_path(remote, from);
  if (device_ && kernel_ != nullptr) return path_of_kernel(remote, from);
  if (!device_ || (chosen && from.is_loopback())) return Errc::network_unreachable;
  if (!remote.is_v4()) return path_v6(remote, from);
  const std::uint32_t to = remote.as_v4();
  if (never_on_the_wire(to)) return Errc::network_unreachable;
  Path wanted;
  wanted.mtu = mtu_;
  const Network* network = network_of(to);
  if (network == nullptr) {
    if (gateways_.empty()) return Errc::network_unreachable;
    const std::uint32_t gateway = chosen ? gateway_for(from.as_v4()) : gateways_.front();
    wanted.on_link = false;
    wanted.gateway = IpAddress::v4(gateway);
    network = network_of(gateway);
  } else if (network->is_broadcast(to)) {
    return Errc::network_unreachable;
  }
  wanted.source = chosen ? from : IpAddress::v4(network->address);
  return find_or_add(wanted);
}

// The first gateway in the network of a source address, or else the first of all.
std::uint32_t RouteTable::gateway_for(std::uint32_t source) const {
  for (const std::uint32_t g : gateways_)
    if (network_of(g)->contains(source)) return g;
  return gateways_.front();
}

// Linux's "local" table: to 127.0.0.0/8 from 127.0.0.1, to any other address of ours from that address.
const Path* RouteTable::local_path(const IpAddress& remote, const IpAddress& from) {
  Path wanted;
  wanted.local = true;
  wanted.mtu = local_mtu_;
  const IpAddress& source = from.is_any() ? remote : from;
  wanted.source = source.is_v4() && source.is_loopback() ? IpAddress::v4(127, 0, 0, 1) : source;
  return find_or_add(wanted);
}

Result<const Path*> RouteTable::path_v6(const IpAddress& remote, const IpAddress& from) {
  if (own_v6_.empty() || is_bad_source_v6(remote)) return Errc::network_unreachable;
  Path wanted;
  wanted.mtu = mtu_;
  wanted.on_link = on_link_v6(remote);
  if (!wanted.on_link) {
    if (gateways_v6_.empty()) return Errc::network_unreachable;
    wanted.gateway = gateways_v6_.front();
  }
  wanted.source = !from.is_any() ? from : source_towards_v6(wanted.on_link ? remote : wanted.gateway);
  return find_or_add(wanted);
}

Result<const Path*> RouteTable::path_of_kernel(const IpAddress& remote, const IpAddress& from) {
  const bool chosen = !from.is_any();
  const bool no_host = remote.is_v4() ? is_bad_source(remote.as_v4()) : is_bad_source_v6(remote);
  if (no_host || (chosen && from.is_loopback())) return Errc::network_unreachable;
  const KernelRoute* route = kernel_->route_to(remote, from);
  if (route == nullptr || !route->ours) return Errc::network_unreachable;
  Path wanted;
  wanted.source = chosen ? from : kernel_->source_towards(remote, *route);
  if (wanted.source.is_any()) return Errc::address_unavailable;
  // With rules the source may have a way of its own.
  if (!chosen && !kernel_->rules().empty()) route = kernel_->route_to(remote, wanted.source);
  if (route == nullptr || !route->ours) return Errc::network_unreachable;
  wanted.on_link = route->gateway.is_any();
  wanted.gateway = route->gateway;
  if (route->mtu != 0) wanted.route_mtu = route->mtu;
  wanted.mtu = std::min(mtu_, wanted.route_mtu);
  return find_or_add(wanted);
}

const Path* RouteTable::path_again(const Path& before, const IpAddress& remote, const IpAddress& local) {
  if (before.local) return &before;
  const Result<const Path*> now = path(remote, local);
  if (now && !(*now)->local) return *now;
  Path broken = before;
  broken.broken = true;
  return find_or_add(broken);
}

const Path* RouteTable::find_or_add(const Path& wanted) {
  for (const auto& p : paths_) {
    if (p->source == wanted.source && p->local == wanted.local && p->broken == wanted.broken &&
        p->on_link == wanted.on_link && p->gateway == wanted.gateway && p->route_mtu == wanted.route_mtu)
      return p.get();
  }
  paths_.push_back(std::make_unique<Path>(wanted));
  paths_.back()->plain = wanted.source.is_v4() && !wanted.local && !wanted.broken;
  return paths_.back().get();
}

void RouteTable::set_mtu(std::uint32_t mtu) {
  mtu_ = mtu;
  for (const auto& p : paths_)
    if (!p->local) p->mtu = std::min(mtu, p->route_mtu);
}

}  // namespace mtcp::stack

#include "stack/ip/route.hh"

#include <algorithm>

namespace mtcp::stack {
namespace {

std::uint32_t mask_of(unsigned bits) { return bits == 0 ? 0 : 0xffffffffU << (32 - bits); }

// Loopback, groups, reserved, "this network" (RFC 6890).
bool never_on_the_wire(std::uint32_t a) { return a >> 24 == 0 || a >> 24 == 127 || a >= 0xe0000000; }

}  // namespace

RouteTable::RouteTable(const Options& options, std::uint32_t mtu, std::uint32_t local_mtu, bool device)
    : mtu_(mtu), local_mtu_(local_mtu), loopback_(options.loopback), device_(device) {
  for (const auto& [address, length] : options.interface.addresses) {
    if (!address.is_v4()) {
      own_v6_.push_back(address);
      continue;
    }
    const unsigned bits = length < 96 ? 0U : std::min(length - 96U, 32U);
    networks_.push_back({address.as_v4(), mask_of(bits)});
    own_.push_back(address.as_v4());
  }
  std::stable_sort(networks_.begin(), networks_.end(),
                   [](const Network& a, const Network& b) { return a.mask > b.mask; });
  std::sort(own_.begin(), own_.end());
  own_.erase(std::unique(own_.begin(), own_.end()), own_.end());
  for (const IpAddress& g : options.interface.gateways)
    if (g.is_v4() && on_link(g.as_v4())) gateways_.push_back(g.as_v4());
}

bool RouteTable::is_one_of_own(std::uint32_t a) const {
  return std::binary_search(own_.begin(), own_.end(), a);
}

bool RouteTable::is_local_v6(const IpAddress& a) const {
  return (loopback_ && a.is_loopback()) || std::find(own_v6_.begin(), own_v6_.end(), a) != own_v6_.end();
}

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
  if (!device_ || !remote.is_v4() || (chosen && from.is_loopback())) return Errc::network_unreachable;
  const std::uint32_t to = remote.as_v4();
  if (never_on_the_wire(to)) return Errc::network_unreachable;
  Path wanted;
  wanted.mtu = mtu_;
  const Network* network = network_of(to);
  if (network == nullptr) {
    if (gateways_.empty()) return Errc::network_unreachable;
    const std::uint32_t gateway = chosen ? gateway_for(from.as_v4()) : gateways_.front();
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

const Path* RouteTable::find_or_add(const Path& wanted) {
  for (const auto& p : paths_) {
    if (p->source == wanted.source && p->local == wanted.local && p->gateway == wanted.gateway)
      return p.get();
  }
  paths_.push_back(std::make_unique<Path>(wanted));
  return paths_.back().get();
}

void RouteTable::set_mtu(std::uint32_t mtu) {
  mtu_ = mtu;
  for (const auto& p : paths_)
    if (!p->local) p->mtu = mtu;
}

}  // namespace mtcp::stack

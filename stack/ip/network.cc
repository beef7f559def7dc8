#include "stack/ip/network.hh"

#include <algorithm>

#include "stack/ip/network_impl.hh"
#include "stack/port/port.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kIpAndTcp = kIpv4Header + 20;

// The largest IPv4 packet whose TCP payload fits into one buffer of this pool.
std::uint32_t mtu_of_buffers(PacketCache& cache) {
  Packet* p = cache.alloc();
  if (p == nullptr) return InterfaceOptions{}.mtu;
  const std::uint32_t room = p->capacity - static_cast<std::uint32_t>(kHeadroom);
  cache.free(p);
  return std::min<std::uint32_t>(room + kIpAndTcp, UINT16_MAX);
}

std::uint32_t mtu_of(const Options& options, const Port* port, std::uint32_t buffers) {
  const std::uint32_t wanted = std::min(options.interface.mtu, buffers);
  return port == nullptr ? wanted : std::min(wanted, port->mtu());
}

}  // namespace

Network::Impl::Impl(const Options& options, Port* the_port, PacketCache& cache, TxQueue& tx, Stats& stats)
    : port(the_port),
      link{cache, tx, stats, the_port == nullptr ? MacAddress{} : the_port->mac()},
      offload(the_port != nullptr && the_port->tx_checksum_offload()),
      routes(options, mtu_of(options, the_port, mtu_of_buffers(cache)), mtu_of_buffers(cache),
             the_port != nullptr),
      arp(link, routes),
      largest_mtu(mtu_of(options, the_port, mtu_of_buffers(cache))),
      port_mtu(the_port == nullptr ? 0 : the_port->mtu()),
      loopback_bound(std::max<std::size_t>(cache.pool().capacity() / 4, 64)) {
  for (const std::uint32_t gateway : routes.gateways()) arp.pin(gateway);
}

Network::Impl::~Impl() {
  while (Packet* p = loopback.pop_front()) link.release(p);
}

Network::Network(const Options& options, Port* port, PacketCache& cache, TxQueue& tx, Stats& stats)
    : impl_(std::make_unique<Impl>(options, port, cache, tx, stats)) {}

Network::~Network() = default;

Network::Input Network::input(Packet* p, Segment& segment, IcmpError& error, Time now) {
  return impl_->on_frame(p, segment, error, now);
}

Network::Input Network::input_ip(Packet* p, Segment& segment, IcmpError& error, Time now,
                                 bool from_loopback) {
  if (p->len == 0) return impl_->drop(p, Counter::rx_short);
  if (from_loopback && std::to_integer<unsigned>(p->data[0]) >> 4 == 6) return impl_->on_ipv6(p, segment);
  return impl_->on_ipv4(p, segment, error, now, from_loopback);
}

Packet* Network::next_loopback() {
  Packet* p = impl_->loopback.pop_front();
  if (p != nullptr) --impl_->loopback_count;
  return p;
}

bool Network::loopback_waiting() const { return !impl_->loopback.empty(); }

Result<const Path*> Network::path(const IpAddress& remote, const IpAddress& from) {
  return impl_->routes.path(remote, from);
}

bool Network::is_local(const IpAddress& a) const { return impl_->routes.is_local(a); }

void Network::output_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, const Path& path,
                         TxPriority priority, Time now) {
  impl_->output_tcp(p, source, destination, path, priority, now);
}

Time Network::run_timers(Time now) { return impl_->arp.run_timers(now); }

void Network::announce(Time now) {
  if (impl_->port == nullptr) return;
  impl_->link.mac = impl_->port->mac();
  impl_->arp.announce(now);
}

bool Network::follow_mtu(std::uint32_t& mtu) {
  if (impl_->port == nullptr || impl_->port->mtu() == impl_->port_mtu) return false;
  impl_->port_mtu = impl_->port->mtu();
  mtu = std::min(impl_->largest_mtu, impl_->port_mtu);
  impl_->routes.set_mtu(mtu);
  return true;
}

void Network::suspect(const Path& path, const IpAddress& remote, Time now) {
  if (!path.local && remote.is_v4()) impl_->arp.suspect(path.next_hop(remote).as_v4(), now);
}

bool Network::next_moved(IpAddress& next_hop) {
  std::uint32_t address = 0;
  if (!impl_->arp.next_moved(address)) return false;
  next_hop = IpAddress::v4(address);
  return true;
}

bool Network::next_unreachable(IpAddress& next_hop) {
  std::uint32_t address = 0;
  if (!impl_->arp.next_failed(address)) return false;
  next_hop = IpAddress::v4(address);
  return true;
}

}  // namespace mtcp::stack

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

Network::Impl::Impl(const Options& options, Port* the_port, PacketCache& cache, TxQueue& tx, Stats& stats,
                    KernelNetwork* the_kernel)
    : port(the_port),
      link{cache, tx, stats, the_port == nullptr ? MacAddress{} : the_port->mac()},
      offload(the_port != nullptr && the_port->tx_checksum_offload()),
      kernel(the_port == nullptr ? nullptr : the_kernel),
      kernel_generation(kernel == nullptr ? 0 : kernel->view().generation),
      routes(options, mtu_of(options, the_port, mtu_of_buffers(cache)), mtu_of_buffers(cache),
             the_port != nullptr, kernel == nullptr ? nullptr : &kernel->view()),
      arp(link, routes),
      nd(link, routes),
      resolver(link, arp, nd, kernel),
      largest_mtu(mtu_of(options, the_port, mtu_of_buffers(cache))),
      port_mtu(largest_mtu),
      loopback_bound(std::max<std::size_t>(cache.pool().capacity() / 4, 64)) {
  for (const std::uint32_t gateway : routes.gateways()) resolver.pin(IpAddress::v4(gateway));
  for (const IpAddress& gateway : routes.gateways_v6()) resolver.pin(gateway);
}

Network::Impl::~Impl() {
  while (Packet* p = loopback.pop_front()) link.release(p);
}

Network::Network(const Options& options, Port* port, PacketCache& cache, TxQueue& tx, Stats& stats,
                 KernelNetwork* kernel)
    : impl_(std::make_unique<Impl>(options, port, cache, tx, stats, kernel)) {}

Network::~Network() = default;

Network::Input Network::input(Packet* p, Segment& segment, IcmpError& error, Time now) {
  return impl_->on_frame(p, segment, error, now);
}

Network::Input Network::input_ip(Packet* p, Segment& segment, IcmpError& error, Time now,
                                 bool from_loopback) {
  if (p->len == 0) return impl_->drop(p, Counter::rx_short);
  if (std::to_integer<unsigned>(p->data[0]) >> 4 == 6) return impl_->on_ipv6(p, segment, error, now, from_loopback);
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

Time Network::run_timers(Time now) { return std::min(impl_->arp.run_timers(now), impl_->resolver.run_timers(now)); }

void Network::announce(Time now) {
  if (impl_->port == nullptr) return;
  const KernelLink* said = impl_->kernel == nullptr ? nullptr : &impl_->kernel->view().link;
  impl_->link.mac = said != nullptr && said->exists ? said->mac : impl_->port->mac();
  impl_->resolver.refresh_headers();
  if (said != nullptr) return;
  impl_->arp.announce(now);
  impl_->nd.announce();
}

std::uint32_t Network::Impl::device_mtu() const {
  const std::uint32_t device = std::min(largest_mtu, port->mtu());
  return kernel == nullptr || kernel->view().link.mtu == 0 ? device : std::min(device, kernel->view().link.mtu);
}

bool Network::follow_mtu(std::uint32_t& mtu) {
  if (impl_->port == nullptr || impl_->device_mtu() == impl_->port_mtu) return false;
  impl_->port_mtu = mtu = impl_->device_mtu();
  impl_->routes.set_mtu(mtu);
  return true;
}

bool Network::Impl::follow_kernel(Time now) {
  kernel->update(now);
  for (KernelNeighbour n; kernel->next_change(n);) resolver.follow(n, now);
  const KernelView& view = kernel->view();
  if (view.generation == kernel_generation) return false;
  kernel_generation = view.generation;
  routes.follow_kernel();
  if (view.link.exists && view.link.mac != link.mac) {
    link.mac = view.link.mac;
    resolver.refresh_headers();
  }
  return true;
}

bool Network::follow_kernel(Time now) { return impl_->kernel != nullptr && impl_->follow_kernel(now); }

const Path* Network::path_again(const Path& before, const IpAddress& remote, const IpAddress& local) {
  return impl_->routes.path_again(before, remote, local);
}

void Network::suspect(const Path& path, const IpAddress& remote, Time now) {
  if (!path.local && !path.broken) impl_->resolver.suspect(path.next_hop(remote), now);
}

bool Network::next_moved(IpAddress& next_hop) { return impl_->resolver.next_moved(next_hop); }

bool Network::next_unreachable(IpAddress& next_hop) { return impl_->resolver.next_failed(next_hop); }

}  // namespace mtcp::stack

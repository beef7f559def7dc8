// The inside of Network. Each group of functions is in the file named above it.
#pragma once

#include "stack/ip/arp.hh"
#include "stack/ip/link.hh"
#include "stack/ip/nd.hh"
#include "stack/ip/network.hh"
#include "stack/ip/resolver.hh"
#include "stack/ip/token_bucket.hh"
#include "stack/kernel_net/kernel_network.hh"
#include "stack/wire/icmp.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/ipv6.hh"

namespace mtcp::stack {

struct Network::Impl {
  // --- network.cc
  Impl(const Options& options, Port* port, PacketCache& cache, TxQueue& tx, Stats& stats, KernelNetwork* kernel);
  [[nodiscard]] std::uint32_t device_mtu() const;
  bool follow_kernel(Time now);
  ~Impl();
  Input drop(Packet* p, Counter reason) {
    link.drop(p, reason);
    return Input::consumed;
  }

  // --- ethernet.cc
  Input on_frame(Packet* p, Segment& segment, IcmpError& error, Time now);

  // --- ipv4.cc, ipv6.cc
  Input on_ipv4(Packet* p, Segment& segment, IcmpError& error, Time now, bool from_loopback);
  Input on_ipv6(Packet* p, Segment& segment, IcmpError& error, Time now, bool from_loopback);
  Input on_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, std::uint8_t ecn,
               bool verify, Segment& segment);

  // --- icmp.cc
  Input on_icmp(Packet* p, const Ipv4Header& ip, IcmpError& error, Time now, bool from_loopback);
  void answer_echo(Packet* p, const Ipv4Header& ip, Time now);
  Input on_icmp_error(Packet* p, const Ipv4Header& ip, const IcmpHeader& icmp, IcmpError& error);
  // Hands up an error whose type, code and MTU are there already. `transport`: what it quotes from behind the IP header, 8 bytes
  // at least.
  static Input hand_up(Packet* p, const IpAddress& source, const IpAddress& destination, const std::byte* transport, IcmpError& error);

  // --- icmpv6.cc
  Input on_icmpv6(Packet* p, const Ipv6Header& ip, IcmpError& error, Time now);
  void answer_echo_v6(Packet* p, const Ipv6Header& ip, Time now);

  // --- output.cc
  void output_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, const Path& path,
                  TxPriority priority, Time now);
  void output_ipv4(Packet* p, const Ipv4Header& header, Time now);
  void put_on_loopback(Packet* p);
  void output_tcp_otherwise(Packet* p, const IpAddress& source, const IpAddress& destination, const Path& path,
                            TxPriority priority, Time now);
  std::uint64_t fill_checksum(Packet& p, const IpAddress& source, const IpAddress& destination, bool v4);
  void output_tcp_locally(Packet* p, const IpAddress& source, const IpAddress& destination);

  Port* port;
  Link link;
  bool offload = false;  // the device computes TCP checksums
  KernelNetwork* kernel;  // null: addresses, routes and neighbours are our own
  std::uint32_t kernel_generation = 0;  // of its view, as last seen
  RouteTable routes;
  Arp arp;
  NeighbourDiscovery nd;
  Resolver resolver;
  const std::uint32_t largest_mtu;  // as at the start
  std::uint32_t port_mtu;           // as last seen
  TokenBucket echo_limit{1000, 1000};
  PacketList loopback;
  std::size_t loopback_count = 0;
  std::size_t loopback_bound;  // packets; never so many that the pool runs dry
};

}  // namespace mtcp::stack

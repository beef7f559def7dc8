// The inside of Network. Each group of functions is in the file named above it.
#pragma once

#include "stack/ip/arp.hh"
#include "stack/ip/link.hh"
#include "stack/ip/network.hh"
#include "stack/ip/token_bucket.hh"
#include "stack/wire/icmp.hh"
#include "stack/wire/ipv4.hh"

namespace mtcp::stack {

struct Network::Impl {
  // --- network.cc
  Impl(const Options& options, Port* port, PacketCache& cache, TxQueue& tx, Stats& stats);
  ~Impl();
  Input drop(Packet* p, Counter reason) {
    link.drop(p, reason);
    return Input::consumed;
  }

  // --- ethernet.cc
  Input on_frame(Packet* p, Segment& segment, IcmpError& error, Time now);

  // --- ipv4.cc, ipv6.cc
  Input on_ipv4(Packet* p, Segment& segment, IcmpError& error, Time now, bool from_loopback);
  Input on_ipv6(Packet* p, Segment& segment);  // from the loopback wire only
  Input on_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, std::uint8_t ecn,
               bool verify, Segment& segment);

  // --- icmp.cc
  Input on_icmp(Packet* p, const Ipv4Header& ip, IcmpError& error, Time now, bool from_loopback);
  void answer_echo(Packet* p, const Ipv4Header& ip, Time now);
  Input on_icmp_error(Packet* p, const Ipv4Header& ip, const IcmpHeader& icmp, IcmpError& error);

  // --- output.cc
  void output_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, const Path& path,
                  TxPriority priority, Time now);
  void output_ipv4(Packet* p, const Ipv4Header& header, Time now);
  void put_on_loopback(Packet* p);
  void output_tcp_locally(Packet* p, const IpAddress& source, const IpAddress& destination);

  Port* port;
  Link link;
  bool offload = false;  // the device computes TCP checksums
  RouteTable routes;
  Arp arp;
  const std::uint32_t largest_mtu;  // as at the start
  std::uint32_t port_mtu;           // as last seen
  TokenBucket echo_limit{1000, 1000};
  PacketList loopback;
  std::size_t loopback_count = 0;
  std::size_t loopback_bound;  // packets; never so many that the pool runs dry
};

}  // namespace mtcp::stack

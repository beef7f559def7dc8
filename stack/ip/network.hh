// Everything below TCP for one worker: Ethernet, ARP, neighbour discovery, IPv4 and IPv6, ICMP, routes, and the loopback wire.
#pragma once

#include <cstdint>
#include <memory>

#include "stack/base/result.hh"
#include "stack/ip/route.hh"
#include "stack/options.hh"
#include "stack/packet/packet.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/stats.hh"
#include "stack/wire/segment.hh"

namespace mtcp::stack {

class KernelNetwork;
class Port;

// An ICMP error that names one of our flows, handed up by Network::input().
struct IcmpError {
  FlowKey key;
  Seq seq;                // of the segment that was rejected
  std::uint8_t type = 0;  // RFC 792; v4 numbering
  std::uint8_t code = 0;
  std::uint32_t mtu = 0;  // next-hop MTU of "fragmentation needed", 0 if unknown
  Packet* packet = nullptr;  // that said so, as Steering::forward_unknown() wants it
};

class Network {
 public:
  enum class Input : std::uint8_t {
    consumed,    // handled or dropped (and counted); the packet is gone
    segment,     // `segment` is filled in and owns the packet
    icmp_error,  // `error` is filled in and owns the packet
  };

  // `port` may be null: then only the loopback wire exists. `kernel`: whose addresses, routes and neighbours are ours as
  // well, or null; it speaks for us then: no ARP, no echo replies. All references outlive the Network.
  // Nothing is sent before announce().
  Network(const Options& options, Port* port, PacketCache& cache, TxQueue& tx, Stats& stats,
          KernelNetwork* kernel = nullptr);
  ~Network();

  // One received frame; takes the packet. Counts it as received.
  Input input(Packet* p, Segment& segment, IcmpError& error, Time now);
  // One packet from the loopback wire (it starts at the IP header), or null when none waits. To be handed to
  // input_ip().
  Packet* next_loopback();
  [[nodiscard]] bool loopback_waiting() const;
  // The same for a packet that starts at the IP header.
  Input input_ip(Packet* p, Segment& segment, IcmpError& error, Time now, bool from_loopback);

  // How to reach `remote`. `from` may be any: then the path chooses. network_unreachable without a route;
  // address_unavailable if `from` is not ours. The Path stays; there are only as many as routes times own
  // addresses.
  Result<const Path*> path(const IpAddress& remote, const IpAddress& from);
  // True for an address that this stack answers for.
  [[nodiscard]] bool is_local(const IpAddress& a) const;

  // Sends a TCP segment: p->data is the TCP header, complete but for the checksum, and p->payload_* say where
  // the payload lies. Puts IP and Ethernet in front. Takes the packet as TxQueue::add() does (with kKeep it
  // stays the caller's, in any case). A packet that can't be sent (queue full, neighbour unknown for long) is
  // dropped and counted: TCP will send it again.
  void output_tcp(Packet* p, const IpAddress& source, const IpAddress& destination, const Path& path,
                  TxPriority priority, Time now);

  // ARP retries and ageing. Returns when it wants to be called again.
  Time run_timers(Time now);
  // Announces our addresses (gratuitous ARP, RFC 5227 section 3); at start and when the link comes back.
  void announce(Time now);
  // The device carries other packets than before: adjusts the paths and returns true. `mtu`: what they may have now.
  bool follow_mtu(std::uint32_t& mtu);
  // Takes up what has changed in the kernel's networking. True if addresses or routes have: paths in use are to be asked for
  // again with path_again(), which gives one that is broken if there is no way.
  bool follow_kernel(Time now);
  const Path* path_again(const Path& before, const IpAddress& remote, const IpAddress& local);
  // Nobody answers at the other end of `path`: its neighbour is asked whether it is still there.
  void suspect(const Path& path, const IpAddress& remote, Time now);
  // Neighbours that have another MAC address than before, one at a time: what path.next_hop(remote) would be. What was sent
  // to the old one is lost.
  bool next_moved(IpAddress& next_hop);
  // Neighbours that did not answer, one at a time: what path.next_hop(remote) would be. As if ICMP had said
  // "host unreachable".
  bool next_unreachable(IpAddress& next_hop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mtcp::stack

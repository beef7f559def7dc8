// Finds the MAC address of a neighbour and lets packets wait for it: the states of RFC 4861 section 7.3 for IPv4 and IPv6
// alike. Asking and answering is for ARP (arp.hh) and neighbour discovery, or for the kernel where the addresses are its own.
#pragma once

#include <cstdint>
#include <deque>

#include "stack/ip/link.hh"
#include "stack/ip/neighbour.hh"
#include "stack/ip/token_bucket.hh"

namespace mtcp::stack {

class KernelNetwork;
struct KernelNeighbour;

class Resolver {
 public:
  static constexpr std::size_t kMaxNeighbours = 1024;    // as Linux's gc_thresh3
  static constexpr std::uint16_t kMaxWaiting = 101;      // per neighbour: Linux's unres_qlen
  static constexpr std::size_t kMaxWaitingInAll = 1024;  // packets
  static constexpr std::uint8_t kProbes = 3;             // unicast, and again as many to all
  static constexpr Duration kProbeInterval = seconds(1);
  static constexpr Duration kReachableTime = seconds(30);
  static constexpr Duration kLockTime = seconds(1);  // a MAC just learnt is not overwritten

  // Sends one question, to one neighbour or (kBroadcastMac) to all that may answer.
  class Asker {
   public:
    virtual ~Asker() = default;
    virtual void ask(const IpAddress& target, const MacAddress& to) = 0;
  };

  // `kernel`: asks instead of ARP and neighbour discovery, if there is one. What is given outlives the resolver.
  Resolver(Link& link, Asker& v4, Asker& v6, KernelNetwork* kernel) : link_(link), v4_(v4), v6_(v6), kernel_(kernel) {}
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // Sends an IP packet (it starts at the IP header) to a neighbour: now, or when its MAC is known. Takes the packet.
  void send(Packet* p, const IpAddress& next_hop, TxPriority priority, Time now) {
    Neighbour* n = table_.find(next_hop);
    if (n == nullptr || n->state != Neighbour::State::reachable || now - n->updated >= kReachableTime) {
      return send_slowly(p, n, next_hop, priority, now);
    }
    transmit(p, *n, priority);
  }
  Time run_timers(Time now);
  // The entry of a gateway: kept whatever happens.
  void pin(const IpAddress& address);
  // Our own MAC address may have changed: it stands in the frames in front of known neighbours.
  void refresh_headers();
  // What is sent to this neighbour is not answered. It may have another MAC address by now: all are asked, once a second. No
  // answer changes nothing: it is as good as it was.
  void suspect(const IpAddress& address, Time now);
  // A neighbour that has told another MAC address since the last call.
  bool next_moved(IpAddress& address);
  // A neighbour that has failed since the last call.
  bool next_failed(IpAddress& address);

  // --- for the protocols
  [[nodiscard]] Neighbour* find(const IpAddress& address) { return table_.find(address); }
  Neighbour* create(const IpAddress& address);  // null: all entries are pinned
  void confirm(Neighbour& n, const MacAddress& mac, Neighbour::State state, Time now);
  // What the kernel says.
  void follow(const KernelNeighbour& said, Time now);

 private:
  void transmit(Packet* p, Neighbour& n, TxPriority priority) {
    n.used = true;
    std::memcpy(p->push(kEthernetHeader), n.header.data(), kEthernetHeader);
    link_.send(p, priority);
  }
  void send_slowly(Packet* p, Neighbour* n, const IpAddress& next_hop, TxPriority priority, Time now);
  void wait(Packet* p, Neighbour& n);
  bool known_to_kernel(Neighbour& n, Time now);
  void ask(const Neighbour& n, const MacAddress& to) { (n.address.is_v4() ? v4_ : v6_).ask(n.address, to); }
  void write_header(Neighbour& n) const;
  void start_probing(Neighbour& n, Neighbour::State state, Time now);
  void probe(Neighbour& n, Time now);
  void fail(Neighbour& n);
  void drop_waiting(PacketList& list, Counter reason);

  Link& link_;
  Asker& v4_;
  Asker& v6_;
  KernelNetwork* kernel_;
  NeighbourTable table_{kMaxNeighbours};
  TokenBucket requests_{1000, 1000};  // to all on the link: spoofed sources do not make us shout
  std::size_t waiting_ = 0;           // packets in all queues
  std::deque<IpAddress> failed_, moved_;
  Time due_ = kNever;  // the earliest next_probe
};

}  // namespace mtcp::stack

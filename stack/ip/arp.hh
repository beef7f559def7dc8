// ARP (RFC 826): finds the MAC of a neighbour, lets packets wait for it, answers for our own addresses, and
// announces them (RFC 5227).
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "stack/ip/link.hh"
#include "stack/ip/neighbour.hh"
#include "stack/ip/token_bucket.hh"
#include "stack/wire/arp.hh"

namespace mtcp::stack {

class RouteTable;

class Arp {
 public:
  static constexpr std::size_t kMaxNeighbours = 1024;    // as Linux's gc_thresh3
  static constexpr std::uint16_t kMaxWaiting = 101;      // per neighbour: Linux's unres_qlen
  static constexpr std::size_t kMaxWaitingInAll = 1024;  // packets
  static constexpr std::uint8_t kProbes = 3;             // unicast, and again as many broadcast
  static constexpr Duration kProbeInterval = seconds(1);
  static constexpr Duration kReachableTime = seconds(30);
  static constexpr Duration kLockTime = seconds(1);          // a MAC just learnt is not overwritten
  static constexpr Duration kAnnounceInterval = seconds(2);  // RFC 5227 section 1.1
  static constexpr Duration kDefendInterval = seconds(10);   // RFC 5227 section 1.1

  Arp(Link& link, const RouteTable& routes);
  ~Arp();
  Arp(const Arp&) = delete;
  Arp& operator=(const Arp&) = delete;

  // Sends an IPv4 packet (it starts at the IP header) to a neighbour: now, or when its MAC is known. Takes
  // the packet.
  void send(Packet* p, std::uint32_t next_hop, TxPriority priority, Time now) {
    Neighbour* n = table_.find(next_hop);
    if (n == nullptr || n->state != Neighbour::State::reachable || now - n->updated >= kReachableTime) {
      return send_slowly(p, n, next_hop, priority, now);
    }
    transmit(p, *n, priority);
  }
  // A received ARP packet, from behind the Ethernet header. Takes the packet.
  void input(Packet* p, Time now);

  Time run_timers(Time now);
  void announce(Time now);
  // The entry of a gateway: kept whatever happens.
  void pin(std::uint32_t address);
  // What is sent to this neighbour is not answered. It may have another MAC address by now: all are asked, once a second. No
  // answer changes nothing: it is as good as it was.
  void suspect(std::uint32_t address, Time now);
  // A neighbour that has told another MAC address since the last call.
  bool next_moved(std::uint32_t& address);
  // A neighbour that has failed since the last call.
  bool next_failed(std::uint32_t& address);
  [[nodiscard]] const Neighbour* find(std::uint32_t address) { return table_.find(address); }

 private:
  void transmit(Packet* p, Neighbour& n, TxPriority priority) {
    n.used = true;
    std::memcpy(p->push(kEthernetHeader), n.header.data(), kEthernetHeader);
    link_.send(p, priority);
  }
  void send_slowly(Packet* p, Neighbour* n, std::uint32_t next_hop, TxPriority priority, Time now);
  Neighbour* create(std::uint32_t address);
  void wait(Packet* p, Neighbour& n);
  void start_probing(Neighbour& n, Neighbour::State state, Time now);
  void probe(Neighbour& n, Time now);
  void fail(Neighbour& n);
  void drop_waiting(PacketList& list, Counter reason);
  void confirm(Neighbour& n, const MacAddress& mac, Neighbour::State state, Time now);
  void learn(const ArpPacket& a, bool for_us, Time now);
  void on_conflict(Time now);
  void send_request(std::uint32_t target, const MacAddress& to);
  void send_packet(const ArpPacket& a, const MacAddress& to);
  void send_announcements();

  Link& link_;
  const RouteTable& routes_;
  NeighbourTable table_{kMaxNeighbours};
  TokenBucket requests_{1000, 1000};  // broadcasts: spoofed sources on the link do not make us shout
  TokenBucket replies_{1000, 1000};
  std::size_t waiting_ = 0;  // packets in all queues
  std::deque<std::uint32_t> failed_, moved_;
  Time due_ = kNever;  // the earliest next_probe
  Time next_announce_ = kNever;
  Time defended_{Duration::min() / 2};
};

}  // namespace mtcp::stack

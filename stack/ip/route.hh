// Our addresses and the routes: those that follow from the configuration, which are the networks on the link and the
// gateways, or the kernel's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/base/result.hh"
#include "stack/options.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class KernelView;

// How to send to a destination. One per route and source address: however many destinations (or spoofed
// sources) there are, there are no more paths than the configuration has combinations. Lives as long as the
// Network.
struct Path {
  IpAddress source;          // our address towards it, for those who have not chosen one
  std::uint32_t mtu = 1500;  // IP packet size; such a packet fits into one buffer
  bool local = false;        // our own address: the loopback wire
  bool broken = false;       // there is no way any more, or the source is no address of ours: nothing is sent
  bool plain = true;         // IPv4, over the device
  bool on_link = true;       // the destination itself is on the link; else behind `gateway`
  IpAddress gateway;
  std::uint32_t route_mtu = UINT32_MAX;  // what the route says

  [[nodiscard]] const IpAddress& next_hop(const IpAddress& destination) const {
    return on_link ? destination : gateway;
  }
};

class RouteTable {
 public:
  // `mtu` and `local_mtu`: what device and buffers allow. Without a `device` there are local paths only. `kernel`: whose
  // addresses and routes are ours as well, instead of those of the options, or null; outlives the table.
  RouteTable(const Options& options, std::uint32_t mtu, std::uint32_t local_mtu, bool device,
             const KernelView* kernel = nullptr);

  // The kernel's addresses or routes are not what they were. Paths that are in use stay as they are: see path_again().
  void follow_kernel();
  // Where a connection's packets go from now on; a path that is broken if nowhere.
  const Path* path_again(const Path& before, const IpAddress& remote, const IpAddress& local);

  // What the device allows from now on; for all paths, those that are in use included.
  void set_mtu(std::uint32_t mtu);
  // See Network::path().
  Result<const Path*> path(const IpAddress& remote, const IpAddress& from);
  [[nodiscard]] bool is_local(const IpAddress& a) const {
    return a.is_v4() ? is_own(a.as_v4()) || (loopback_ && a.is_loopback()) : is_local_v6(a);
  }
  // --- IPv6
  // An address of the interface.
  [[nodiscard]] bool is_own_v6(const IpAddress& a) const;
  [[nodiscard]] std::span<const IpAddress> own_v6() const { return own_v6_; }
  [[nodiscard]] bool on_link_v6(const IpAddress& a) const;
  // No host on the wire may send from this: unspecified, loopback, group, IPv4 in disguise, or our own.
  [[nodiscard]] bool is_bad_source_v6(const IpAddress& a) const;
  // Which of our addresses to ask with (neighbour discovery); there is one.
  [[nodiscard]] const IpAddress& source_towards_v6(const IpAddress& a) const;
  [[nodiscard]] std::span<const IpAddress> gateways_v6() const { return gateways_v6_; }

  // --- IPv4

  // The rest is IPv4 in host order.
  // An address of the interface.
  [[nodiscard]] bool is_own(std::uint32_t a) const {
    if (own_.size() == 1) return own_[0] == a;  // the common case
    return is_one_of_own(a);
  }
  [[nodiscard]] std::span<const std::uint32_t> own() const { return own_; }
  [[nodiscard]] bool on_link(std::uint32_t a) const;
  // No host on the wire may send from this: unspecified, loopback, group, reserved, broadcast, or our own.
  [[nodiscard]] bool is_bad_source(std::uint32_t a) const;
  // Which of our addresses to ask with (ARP).
  [[nodiscard]] std::uint32_t source_towards(std::uint32_t a) const;
  // Gateways on the link.
  [[nodiscard]] std::span<const std::uint32_t> gateways() const { return gateways_; }

 private:
  struct Network {
    std::uint32_t address = 0;  // ours in it
    std::uint32_t mask = 0;
    [[nodiscard]] bool contains(std::uint32_t a) const { return ((a ^ address) & mask) == 0; }
    // RFC 3021: a /31 has no broadcast address, nor has a /32.
    [[nodiscard]] bool is_broadcast(std::uint32_t a) const {
      return mask < 0xfffffffe && contains(a) && (a | mask) == 0xffffffff;
    }
  };
  [[nodiscard]] bool is_one_of_own(std::uint32_t a) const;
  [[nodiscard]] bool is_local_v6(const IpAddress& a) const;
  [[nodiscard]] const Network* network_of(std::uint32_t a) const;
  [[nodiscard]] std::uint32_t gateway_for(std::uint32_t source) const;
  void set_addresses(std::span<const InterfaceOptions::Address> addresses);
  Result<const Path*> path_v6(const IpAddress& remote, const IpAddress& from);
  Result<const Path*> path_of_kernel(const IpAddress& remote, const IpAddress& from);
  const Path* local_path(const IpAddress& remote, const IpAddress& from);
  const Path* find_or_add(const Path& wanted);

  std::vector<Network> networks_;   // longest prefix first
  std::vector<std::uint32_t> own_;  // sorted
  std::vector<IpAddress> own_v6_;
  std::vector<Prefix> networks_v6_;  // longest prefix first; with our address in each
  std::vector<IpAddress> gateways_v6_;
  std::vector<std::uint32_t> gateways_;
  std::uint32_t mtu_;
  std::uint32_t local_mtu_;
  const KernelView* kernel_;
  bool loopback_;
  bool device_;
  std::vector<std::unique_ptr<Path>> paths_;
};

}  // namespace mtcp::stack

// Which ports of which addresses are the stacks' on an interface that the kernel has as well: in the maps of the XDP program
// there, which every process of the device has in its memory.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/port/dpdk/share/layout.h"
#include "stack/wire/address.hh"

namespace mtcp::stack::dpdk {

class SharedPorts {
 public:
  // For the process that opens the device, or null (errno): maps of no port yet, for up to so many addresses.
  static std::unique_ptr<SharedPorts> create(std::uint32_t room);
  // The same in a process that has been given maps(), which stay the caller's. Null if they are no such maps.
  static std::unique_ptr<SharedPorts> adopt(std::span<const int> maps, std::uint32_t room);
  static constexpr std::size_t kMaps = 2;
  ~SharedPorts();
  SharedPorts(const SharedPorts&) = delete;
  SharedPorts& operator=(const SharedPorts&) = delete;

  // The descriptors of the maps of state and of ports: for the program that looks at them, and for other processes.
  [[nodiscard]] const std::array<int, kMaps>& maps() const { return maps_; }
  [[nodiscard]] std::uint32_t room() const { return room_; }

  // A stack of the calling process begins: what an earlier one under its number had is withdrawn.
  void join(std::uint32_t stack);
  void leave(std::uint32_t stack);
  // Looks whether the processes of two stacks that have joined live: the one after `stack`, so that somebody looks
  // at each however many there are, and the next one with each call. What a dead one had is withdrawn.
  void look_for_the_dead(std::uint32_t stack);

  // This stack has a listener at a port, or no longer. An address that is none of the stack's has no ports; 0.0.0.0
  // has those of all IPv4 addresses, :: those of all, or (`v6_only`) of all IPv6 addresses.
  void set_listener(std::uint32_t stack, const Endpoint& local, bool on, bool v6_only = false);
  // It has a connection at a port (by number, see endpoint()) with this peer. forget_flows(): it has had none there for a while.
  void add_flow(std::uint32_t stack, std::uint32_t port, const Endpoint& remote);
  void forget_flows(std::uint32_t stack, std::uint32_t port);
  // Connections to this port number wait for a stack that will have their listener: what comes for them is the stacks' until then,
  // though none of them has the port. What opens connections is not.
  void keep(std::uint16_t port, bool on);
  // Addresses of the stack beyond those that are there, as far as there is room. One stack at a time: is_first().
  void add(std::span<const IpAddress> addresses);
  [[nodiscard]] bool is_first(std::uint32_t stack) const;
  // Where the address is in the table of addresses; -1: nowhere.
  [[nodiscard]] int index_of(const IpAddress& address) const;
  [[nodiscard]] std::uint32_t addresses() const;
  // A port by its number among those of all addresses: index * MTCP_SHARE_PORTS + number.
  [[nodiscard]] Endpoint endpoint(std::uint32_t port) const;
  // Connections that this peer opens are the kernel's, until forget_left(): of peers with the same entry the last one's.
  void leave_opens_of(const IpAddress& remote);
  void forget_left();
  // For tests: whether the segments of somebody's connections to this port come to the stack.
  [[nodiscard]] bool owned(const Endpoint& local) const;

 private:
  SharedPorts(std::uint32_t room, std::array<int, kMaps> maps, bool made) : room_(room), maps_(maps), made_(made) {}
  bool map_memory();
  void withdraw(std::uint32_t stack);
  static void forget_flows(mtcp_share_port& port, std::uint64_t bit);
  [[nodiscard]] std::uint32_t next_joined(std::uint32_t stack) const;
  bool withdraw_if_dead(std::uint32_t stack);
  mtcp_share_port& port(std::uint32_t index, std::uint16_t number) const {
    return ports_[std::size_t{index} * MTCP_SHARE_PORTS + number];
  }

  const std::uint32_t room_;
  const std::array<int, kMaps> maps_;
  const bool made_;  // here, and the descriptors are this object's
  mtcp_share_state* state_ = nullptr;
  std::span<mtcp_share_port> ports_;
  std::atomic<std::uint32_t> looked_at_ = 0;  // last
};

}  // namespace mtcp::stack::dpdk

// What a port string says of a network interface of the kernel, and what the kernel says of it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "stack/wire/address.hh"

namespace mtcp::stack::dpdk {

// The interface that a device string names; empty if none.
std::string interface_of(const std::string& port);

// How a process gets them, for a message: file capabilities (setcap) make the dynamic linker ignore LD_PRELOAD.
std::string with_capabilities(std::initializer_list<const char*> names);

// Looks before DPDK does, because its own words ("ioctl failed") help nobody: false and `message` if the port
// names no interface, or one that does not exist or is down. Lowers `mtu` to the interface's.
bool check_interface(const std::string& port, std::uint32_t& mtu, std::string& message);

// For an interface that exists:
// How many queues it receives on, and how many of them have one to send with (ethtool -l); 1 and 1 if it does not tell.
struct Channels {
  std::uint32_t receive = 1, combined = 1;
};
Channels channels_of(const std::string& interface);
// Its addresses that mean the same on every interface: not the link-local ones of IPv6.
std::vector<IpAddress> addresses_of(const std::string& interface);
// No hardware behind it: a veth, bridge, tunnel.
bool is_virtual(const std::string& interface);

}  // namespace mtcp::stack::dpdk

// How an AF_XDP port uses its interface: what the port string says, and what is chosen where it says nothing.
#pragma once

#include <string>

#include "stack/port/device.hh"

namespace mtcp::stack::dpdk {

struct Sharing {
  bool shared = false;   // share=kernel: with the kernel, whose address is the stack's as well
  bool tagged = false;   // by packet sockets and a classifier, without XDP
  bool generic = false;  // XDP above the driver; frames may come in pieces
  bool native = false;   // in it, or not at all
  bool automatic = false;  // which of these it is has been chosen here
  std::string summary;
};

// Whether an interface is to be shared without XDP: it has no hardware, or `port` says so.
[[nodiscard]] bool shares_without_xdp(const std::string& port);
// The port string of the device that serves it: where an interface has no hardware, one of packet sockets, if the kernel lets us.
[[nodiscard]] std::string port_for_sharing(const std::string& port);
// The same whatever the interface is.
[[nodiscard]] std::string port_of_packet_sockets(const std::string& port);

// Of "net_af_xdp0,iface=NAME[,share=kernel][,xdp=native|generic|no]", or the same with net_af_packet0, which uses no XDP. `on_virtual`: the interface has no hardware. False and
// `message` if a value is wrong.
bool read_sharing(const DeviceConfig& config, bool on_virtual, Sharing& sharing, std::string& message);
// The port string without that, as the driver wants it.
[[nodiscard]] std::string without_sharing(std::string port);

}  // namespace mtcp::stack::dpdk

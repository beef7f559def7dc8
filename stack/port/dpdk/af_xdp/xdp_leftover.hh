// XDP programs that other software has put on an interface, and left there when it was killed: libxdp's and
// DPDK's are attached by netlink, and stay.
#pragma once

#include <cstdint>
#include <string>

namespace mtcp::stack::dpdk {

// "the XDP program xsk_def_prog (id 7)" of the interface, or as much of it as can be known.
std::string program_on(std::uint32_t ifindex);
// Takes a program off that does nothing but give frames to AF_XDP sockets, when there are none of others on
// the interface any more (the caller has bound its own). False if there is no such program, or it does not
// go.
bool remove_leftover_program(std::uint32_t ifindex);

}  // namespace mtcp::stack::dpdk

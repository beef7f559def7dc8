// What all ports of a device share. Private memory, the same in each process after fork, but for `link`.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "stack/port/dpdk/claims.hh"
#include "stack/port/dpdk/interface/interface_watch.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack::dpdk {

struct DeviceState {
  std::uint16_t port = 0;  // DPDK's number
  std::uint32_t mtu = 1500;
  MacAddress mac;
  bool tx_checksum = false;
  std::uint32_t ring_packets = 0;  // of a queue's pool, at most, in its rings; 0: they hold copies
  bool started = false;  // otherwise the driver must not be called
  std::unique_ptr<Claims> claims;
  std::mutex link_lock;           // stacks of one process ask at the same time
  std::weak_ptr<LinkWatch> link;  // of the process that has asked last
  // Of the interface, for the calling process: as long as one of its ports has it, the same one. The child of a fork, which may
  // have its parent's ports in memory still, gets one of its own.
  std::shared_ptr<LinkWatch> watch(const std::string& interface);
};

}  // namespace mtcp::stack::dpdk

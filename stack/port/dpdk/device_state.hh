// What all ports of a device share. Private memory, the same in each process after fork.
#pragma once

#include <cstdint>
#include <memory>

#include "stack/port/dpdk/claims.hh"
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
};

}  // namespace mtcp::stack::dpdk

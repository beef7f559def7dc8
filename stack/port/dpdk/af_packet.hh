// Ports on a network interface of the kernel, through packet sockets.
#pragma once

#include <atomic>
#include <span>
#include <string>

#include "stack/port/device.hh"
#include "stack/port/dpdk/ethdev_port.hh"
#include "stack/port/dpdk/libc_calls.hh"

namespace mtcp::stack::dpdk {

// The device string with what the user left out: queues, ring and frame sizes.
std::string af_packet_arguments(const DeviceConfig& config, std::uint32_t queues);
// Looks before DPDK does, because its own words ("ioctl failed") help nobody: false and `message` if the
// interface does not exist, is down, or may not be opened. Lowers `mtu` to the interface's.
bool af_packet_check(const DeviceConfig& config, std::uint32_t& mtu, std::string& message);

// Sets what the driver does not: large packets come whole, and what the kernel itself sends does not come at
// all.
void af_packet_prepare(const PacketRing& ring);

// Receives straight from the socket's ring: the driver would not say that a checksum is still to be filled in
// (packets from this machine) and would pass on large packets cut off. Sends through the driver.
class AfPacketPort final : public EthdevPort {
 public:
  // `ring` is the one of this queue. `inherited`: the former owner of the queue died.
  AfPacketPort(DeviceState& state, std::uint16_t index, MbufPool& pool, unsigned thread_number,
               const PacketRing& ring, bool inherited);
  ~AfPacketPort() override;

  std::size_t rx(Packet** out, std::size_t max) override;
  // The socket is readable while there is a frame that has not been taken; what has been taken already is not
  // seen.
  bool arm() override;
  [[nodiscard]] std::span<const int> pollable() const override { return {&ring_.fd, 1}; }
  [[nodiscard]] Duration max_sleep() const override { return Duration::max(); }
  [[nodiscard]] std::uint64_t rx_dropped() const override { return dropped_; }

 private:
  [[nodiscard]] tpacket2_hdr* frame(std::uint32_t n) const;
  [[nodiscard]] bool ready(std::uint32_t n) const;
  [[nodiscard]] std::size_t count_ready(std::size_t most) const;
  void release_frame();
  bool take(const tpacket2_hdr& header, Packet* p);
  void take_large(const tpacket2_hdr& header);

  const PacketRing ring_;
  std::atomic<std::uint32_t>& cursor_;  // the next frame
  PacketList cut_;                      // pieces of large packets, not yet given out
  std::uint64_t dropped_ = 0;
};

}  // namespace mtcp::stack::dpdk

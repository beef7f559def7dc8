// Ports on a network interface of the kernel, through packet sockets.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stack/port/device.hh"
#include "stack/port/dpdk/af_packet/packet_sender.hh"
#include "stack/port/dpdk/device_state.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/interface/interface_watch.hh"

namespace mtcp::stack::dpdk {

// The device string with what the user left out: queues, ring and frame sizes.
std::string af_packet_arguments(const DeviceConfig& config, std::uint32_t queues);
// Bytes of a ring's slot.
[[nodiscard]] std::uint32_t af_packet_slot(const DeviceConfig& config);
// False and `message` if the interface does not exist, is down, or may not be opened. Lowers `mtu` to the
// interface's.
bool af_packet_check(const DeviceConfig& config, std::uint32_t& mtu, std::string& message);

// Sets what the driver does not: large packets come whole, what the kernel itself sends does not come at all, and
// there is room for `tx_ring` packets on their way out.
void af_packet_prepare(const PacketRing& ring, std::uint32_t tx_ring);

// Receives from the socket's ring without the driver, which would not say that a checksum is still to be filled in
// (packets from this machine), would pass on large packets cut off, and keeps its place in the ring where the
// successor of a dead process cannot rely on it. Sends by sendmmsg(), not through a ring: the kernel copies out of the
// packets straight away, 64 KB at a time, and whoever dies leaves nothing half done. Packets are copied on both ways: they
// are the stack's own.
class AfPacketPort final : public Port {
 public:
  // `index` has been claimed for this process; the destructor releases it. `ring` is the one of this queue.
  // `inherited`: the former owner of the queue died. `addresses`: the stack's, to be looked after by the first queue's port;
  // IPv4, host order. `guarded`: XdpProgram::attach_guard() has kept the kernel from what comes for them. `state` and `pool` outlive the port.
  AfPacketPort(DeviceState& state, std::uint16_t index, PacketPool& pool, const PacketRing& ring,
               bool inherited, const std::vector<std::uint32_t>& addresses, bool guarded);
  ~AfPacketPort() override;
  AfPacketPort(const AfPacketPort&) = delete;
  AfPacketPort& operator=(const AfPacketPort&) = delete;

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] bool busy(const Packet&) const override { return false; }
  [[nodiscard]] TxState tx_state() const override { return {.congested = sender_.congested()}; }
  void service(Time now) override;
  // The socket is readable while there is a frame that has not been taken; what has been taken already is not
  // seen.
  bool arm() override;
  void disarm() override { slept_ = true; }
  [[nodiscard]] std::span<const int> pollable() const override { return {&ring_.fd, 1}; }
  [[nodiscard]] Duration max_sleep() const override { return sender_.congested() ? milliseconds(1) : Duration::max(); }
  [[nodiscard]] Link link() const override { return {state_.started && link_->up()}; }
  [[nodiscard]] MacAddress mac() const override { return state_.mac; }
  [[nodiscard]] std::uint32_t mtu() const override { return std::min(state_.mtu, link_->mtu()); }
  [[nodiscard]] bool tx_checksum_offload() const override { return ring_.offload; }
  [[nodiscard]] PacketPool& pool() override { return pool_; }
  [[nodiscard]] bool takes_external() const override { return sender_.gathers(); }
  [[nodiscard]] std::size_t packets_held() const override { return 0; }
  [[nodiscard]] Status status() const override {
    return {.rx_dropped = dropped_, .tx_dropped = sender_.dropped(), .tx_merged = sender_.merged(), .by = "packet-socket", .packets_free = pool_.available()};
  }
  Notice notice() override {
    Notice gone = link_->notice();
    return gone.text.empty() && addresses_ ? addresses_->notice() : gone;
  }

 private:
  static constexpr std::size_t kBurst = 64;
  static constexpr Duration kErrorLook = milliseconds(2);

  void repair();
  void take_error();
  [[nodiscard]] std::uint32_t after(std::uint32_t n) const {
    return n + 1 == ring_.frames.tp_frame_nr ? 0 : n + 1;
  }
  [[nodiscard]] std::uint32_t position() const {
    const std::uint32_t n = next_.load(std::memory_order_relaxed);
    return n < ring_.frames.tp_frame_nr ? n : 0;
  }
  [[nodiscard]] std::uint32_t before(std::uint32_t n) const {
    return (n == 0 ? ring_.frames.tp_frame_nr : n) - 1;
  }
  [[nodiscard]] tpacket2_hdr* frame(std::uint32_t n) const;
  [[nodiscard]] bool ready(std::uint32_t n) const;
  [[nodiscard]] std::size_t count_ready(std::size_t most) const;
  void release_frame();
  // What the kernel says of a frame; it lies in memory that other processes of this program have, too.
  struct Frame {
    std::uint32_t status, length, present;  // bytes of it in the slot
    const std::byte* data;
  };
  [[nodiscard]] Frame look_at(std::uint32_t n) const;
  bool take(const Frame& frame, Packet* p);
  void take_large(const Frame& frame);
  std::size_t read_beginning(const Frame& frame, std::span<std::byte> out) const;
  void discard(std::size_t frames);
  void count_lost();
  bool take_next(Packet* p);
  void make_room();

  DeviceState& state_;
  const std::uint16_t index_;
  PacketPool& pool_;
  const pid_t owner_;
  const PacketRing ring_;
  std::atomic<std::uint32_t>& next_;  // frame to receive
  PacketSender sender_;
  const std::shared_ptr<LinkWatch> link_;
  std::optional<AddressWatch> addresses_;
  bool slept_ = false;     // and no frame has come since
  Time next_error_look_{};
  PacketList cut_;         // pieces of large packets, and what had no room in the ring: not yet given out
  bool ahead_ = false;     // the next large packet has left the socket's queue already
  std::uint64_t dropped_ = 0;
};

}  // namespace mtcp::stack::dpdk

// Ports on a network interface of the kernel, through AF_XDP sockets.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stack/port/device.hh"
#include "stack/port/dpdk/af_packet/packet_sender.hh"
#include "stack/port/dpdk/af_xdp/umem_frames.hh"
#include "stack/port/dpdk/device_state.hh"
#include "stack/port/dpdk/interface/interface_watch.hh"

namespace mtcp::stack::dpdk {

// Frames of a queue: so many for receiving the driver takes by itself, and as many as the ring has entries
// are for sending.
inline constexpr std::uint32_t kXdpReceiveFrames = 2048;
[[nodiscard]] std::uint32_t af_xdp_ring(const DeviceConfig& config);
// The kernel's own part of a frame, in front of the data (XDP_PACKET_HEADROOM).
inline constexpr std::uint32_t kXdpHeadroom = 256;

// The device string with what the user left out.
std::string af_xdp_arguments(const DeviceConfig& config);
// Looks before DPDK does: false and `message` if the interface does not exist, is down, or cannot be used.
// Lowers `mtu` to the interface's; sets `queues` to the interface's if it is 0.
bool af_xdp_check(const DeviceConfig& config, std::uint32_t& queues, std::uint32_t& mtu,
                  std::string& message);
// Sets what the driver does not: room for all that is on its way out.
void af_xdp_prepare(const Xsk& socket);

// Receives and sends on the socket's rings without the driver, which keeps its place in them, and which
// frames are free, where the successor of a dead process cannot rely on it. Packets are copied on both ways:
// they are the stack's own.
class AfXdpPort final : public Port {
 public:
  // `index` has been claimed for this process; the destructor releases it. What is passed outlives the port.
  // `on_virtual`: packets may come whose checksum their sender on this machine has left to the hardware that
  // there is not. `pieces`: a frame may come in several (xsk_use_pieces()). `sending_socket`: what is sent goes through it
  // (open_sending_socket()); -1: through the socket's own ring.
  AfXdpPort(DeviceState& state, std::uint16_t index, PacketPool& pool, UmemFrames& frames, bool on_virtual, bool pieces,
            int sending_socket, const DeviceConfig& config);
  ~AfXdpPort() override;
  AfXdpPort(const AfXdpPort&) = delete;
  AfXdpPort& operator=(const AfXdpPort&) = delete;

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] bool busy(const Packet&) const override { return false; }
  // Asks the kernel once more to send what it had no room for.
  void service(Time now) override;
  bool arm() override { return cut_.empty() && waiting() == 0; }
  void disarm() override {}
  [[nodiscard]] std::span<const int> pollable() const override { return {&socket_.fd, 1}; }
  [[nodiscard]] Duration max_sleep() const override {
    return tx_state().congested || (unsent() > 0 && link_->up()) ? milliseconds(1) : Duration::max();
  }
  [[nodiscard]] Link link() const override { return {state_.started && link_->up()}; }
  [[nodiscard]] MacAddress mac() const override { return state_.mac; }
  [[nodiscard]] std::uint32_t mtu() const override { return std::min(state_.mtu, link_->mtu()); }
  [[nodiscard]] bool tx_checksum_offload() const override { return sender_.has_value(); }
  [[nodiscard]] TxState tx_state() const override { return {.congested = sender_ && sender_->congested()}; }
  [[nodiscard]] PacketPool& pool() override { return pool_; }
  [[nodiscard]] bool takes_external() const override { return sender_ && sender_->gathers(); }
  [[nodiscard]] std::size_t packets_held() const override { return 0; }
  // Dropped: frames that did not fit, and those for which the kernel had no frame or no room in the ring.
  [[nodiscard]] Status status() const override;
  Notice notice() override { return link_->notice(); }

 private:
  static constexpr std::size_t kBurst = 64;

  [[nodiscard]] std::uint32_t waiting() const;
  [[nodiscard]] const char* way() const;  // Status::by
  [[nodiscard]] std::uint32_t unsent() const;
  bool take(const xdp_desc& descriptor, Packet* p) const;
  void put(const Packet& p, std::uint32_t place);
  void kick() const;
  void wake_driver();
  // A received frame: its descriptors, and what they describe.
  struct Chain;
  bool read_chain(std::uint32_t from, std::uint32_t available, Chain& chain) const;
  void take_chain(const Chain& chain);
  std::size_t rx_pieces(Packet** out, std::size_t max);

  DeviceState& state_;
  const std::uint16_t index_;
  PacketPool& pool_;
  const pid_t owner_;
  UmemFrames& frames_;
  Xsk& socket_;
  const bool on_virtual_;
  const bool pieces_;
  const std::shared_ptr<LinkWatch> link_;
  std::optional<PacketSender> sender_;
  PacketList cut_;  // received, and not given out yet
  std::vector<std::uint32_t> free_;  // frames to send in
  std::uint64_t dropped_ = 0;
  Time next_control_{};
};

// Whether a frame is a TCP segment that carries only its pseudo-header's sum in the place of its checksum:
// the kernel leaves the rest to the hardware, and between two processes of one machine there is none.
[[nodiscard]] bool has_partial_checksum(std::span<const std::byte> frame);

}  // namespace mtcp::stack::dpdk

// Sending through a packet socket: a burst in one system call, segments of a flow that follow each other as
// one frame.
#pragma once

#include <linux/if_packet.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "stack/packet/packet.hh"

namespace mtcp::stack::dpdk {

// What a frame has in front of it on a socket with PACKET_VNET_HDR: virtio_net_hdr of linux/virtio_net.h,
// which is not C++. In the machine's byte order.
struct VirtioHeader {
  std::uint8_t flags = 0, gso_type = 0;
  std::uint16_t hdr_len = 0, gso_size = 0, csum_start = 0, csum_offset = 0;
};
static_assert(sizeof(VirtioHeader) == 10);

// A packet socket for sending alone on an interface, with PACKET_VNET_HDR and room for `tx_ring` packets on their way out; -1 if
// it can't be had.
int open_sending_socket(int ifindex, std::uint32_t tx_ring);
// How many bytes of them SO_SNDBUF is to have: the kernel doubles the number, and counts its own memory for a frame.
[[nodiscard]] int sending_room(std::uint32_t tx_ring);

class PacketSender {
 public:
  // `offload`: the socket has PACKET_VNET_HDR, so that a frame can say what is still to be done to it.
  PacketSender(int fd, bool offload) : fd_(fd), offload_(offload), merges_(offload) {}
  // The socket receives another protocol than it is to send: the kernel looks into the frames.
  void send_any_protocol();

  // As Port::tx. What the kernel refuses for good is dropped, as on a wire.
  std::size_t send(Packet* const* packets, std::size_t n);

  // Takes packets with kExternal.
  [[nodiscard]] bool gathers() const { return offload_ && merges_; }
  // The kernel had no room the last time; until then, or until try_again().
  [[nodiscard]] bool congested() const { return congested_; }
  void try_again() { congested_ = false; }
  // The last time there was no link, or frames were too large for it.
  [[nodiscard]] bool lost_link() const { return lost_link_; }
  // Frames since the start that the kernel refused, and those that several segments went in.
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }
  [[nodiscard]] std::uint64_t merged() const { return merged_; }

 private:
  struct Burst;
  void describe(std::span<Packet* const> packets, Burst& burst);
  long send_frames(Burst& burst, std::size_t from) const;
  long send_copy(Burst& burst, std::size_t frame, std::span<Packet* const> packets) const;
  bool refused(bool merged);

  const int fd_;
  const bool offload_;
  std::optional<sockaddr_ll> to_;
  bool merges_;  // until the kernel refuses one
  bool congested_ = false, lost_link_ = false;
  std::uint64_t dropped_ = 0, merged_ = 0;
};

}  // namespace mtcp::stack::dpdk

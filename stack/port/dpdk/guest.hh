// A device that another process has opened, in a process that has not inherited it: it was forked before that, or is another
// program's. It has no part in DPDK. Its stacks are members of the control block like all others. Of a device whose queues are
// sockets (af_packet, af_xdp) it can poll some; of others it has none: then its packets come and go by way of stacks that have some.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/port/device.hh"
#include "stack/port/dpdk/af_packet/packet_fanout.hh"
#include "stack/port/dpdk/af_xdp/xdp_queues.hh"
#include "stack/port/dpdk/device_state.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/pid_watch.hh"
#include "stack/port/dpdk/share/shared_ports.hh"
#include "stack/port/dpdk/shared.hh"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack::dpdk {

// What a guest is told, along with the descriptors: that of the claims, what SharedState has, the locks, the maps of SharedPorts
// if the interface is shared with the kernel, what XdpQueues has, the sockets that its queues send through, and one packet socket for
// each ring.
struct GuestTerms {
  std::uint32_t version, queues, mtu, packets, slots, entries;
  std::uint32_t rings, spare;   // packet sockets, and how many of them, the last ones, have fewer slots
  std::uint32_t frames, spare_frames;  // how many slots the first have, and the last ones ...
  std::uint32_t frame_size;     // of so many bytes
  std::uint32_t block_size;     // of so many such slots in one piece
  std::uint32_t locks;          // descriptors that only need to stay open
  std::uint32_t xdp, senders;   // descriptors of XdpQueues, and one for each of its queues, or none
  std::uint64_t frame;          // ControlBlock::Shape::frame
  std::uint64_t program;        // whose the process is that gives this out
  MacAddress mac;
  std::uint8_t tx_checksum, offload;  // PacketRing::offload
  std::uint32_t addresses;            // SharedPorts::room(); 0: there are no maps
  std::uint8_t follows;               // SharingPort
  std::uint8_t on_virtual, pieces;    // AfXdpPort
  std::array<char, 16> interface;     // with a zero at its end
  std::uint8_t fanout;                // 1: the last descriptor is PacketFanout's
};

// The terms as Device::invite() gives them out.
[[nodiscard]] DeviceInvitation invitation(const GuestTerms& terms, std::vector<int> descriptors);

class GuestDevice final : public Device, public SharedDevice {
 public:
  // Null, and all descriptors closed, if it makes no sense or there is no memory.
  // `program`, `cpus`: the calling process's.
  static std::unique_ptr<GuestDevice> create(const DeviceInvitation& invitation, std::uint64_t program, std::uint32_t cpus);
  ~GuestDevice() override;

  // --- Device
  [[nodiscard]] std::uint32_t queues() const override { return fanout_ != nullptr ? fanout_->queues(rings_.size()) : terms_.queues; }
  OwnedAttachment join() override;
  [[nodiscard]] bool points_flows() const override { return fanout_ != nullptr && ports_ == nullptr; }
  [[nodiscard]] bool has_room() const override { return shared_->has_room(rings_.size()); }
  [[nodiscard]] std::optional<std::array<std::uint64_t, 4>> secrets() const override { return shared_->control().secrets(); }
  [[nodiscard]] bool unclaimed(const Endpoint& local) const override { return shared_->control().unclaimed(local); }
  [[nodiscard]] bool any_unclaimed() const override { return shared_->control().any_unclaimed(); }
  std::unique_ptr<Port> claim(std::uint32_t queue, std::uint32_t stack) override;
  [[nodiscard]] std::span<const int> descriptors() const override { return descriptors_; }
  void tell_descriptors(std::function<void(int fd, bool opened)> tell) override { tell_ = std::move(tell); }
  bool end_of_family() override { return shared_->end_of_family(); }
  [[nodiscard]] DeviceInvitation invite() const override { return invitation(terms_, descriptors_); }

  // --- SharedDevice
  [[nodiscard]] ControlBlock& control() override { return shared_->control(); }
  [[nodiscard]] std::uint64_t self() const override { return own_identity(); }
  [[nodiscard]] std::uint64_t program() const override { return terms_.program; }
  [[nodiscard]] bool alive(std::uint64_t process) const override { return is_alive(process); }
  [[nodiscard]] std::unique_ptr<DeathWatch> watch_deaths() override { return std::make_unique<PidWatch>(tell_); }
  [[nodiscard]] std::uint32_t cpus() const override { return cpus_; }
  bool add_queue() override;
  bool redirect(std::span<const std::uint8_t> queues) override;
  void point_flow(std::uint32_t hash, std::uint32_t queue) override {
    if (fanout_ != nullptr) fanout_->point_flow(hash, queue);
  }
  void unpoint_flow(std::uint32_t hash, std::uint32_t queue) override {
    if (fanout_ != nullptr) fanout_->unpoint_flow(hash, queue);
  }
  void keep_port(std::uint16_t port, bool on) override {
    if (ports_ != nullptr) ports_->keep(port, on);
  }
  std::unique_ptr<Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override;
  PacketPool* pool(std::uint32_t stack) override;
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const override { return shared_->wake_descriptor(stack); }
  void wake(std::uint32_t stack) override { shared_->wake(stack); }
  void clear_wake(std::uint32_t stack) override { shared_->clear_wake(stack); }
  [[nodiscard]] MacAddress mac() const override { return state_.mac; }
  [[nodiscard]] std::uint32_t mtu() const override { return state_.mtu; }
  [[nodiscard]] bool tx_checksum_offload() const override { return state_.tx_checksum; }

 private:
  GuestDevice(const GuestTerms& terms, std::vector<int> descriptors, std::uint32_t cpus)
      : terms_(terms), cpus_(cpus), descriptors_(std::move(descriptors)) {}
  bool open(std::uint64_t program);
  bool open_rings();
  void open_xdp_queues(std::span<const int> descriptors);

  GuestTerms terms_;
  const std::uint32_t cpus_;
  std::vector<int> descriptors_;  // in the order of GuestTerms
  DeviceState state_;
  std::unique_ptr<SharedState> shared_;
  std::function<void(int fd, bool opened)> tell_;
  std::unique_ptr<SharedPorts> ports_;  // null: not shared with the kernel
  std::vector<PacketRing> rings_;
  std::unique_ptr<PacketFanout> fanout_;
  std::unique_ptr<XdpQueues> xdp_queues_;
  std::vector<int> senders_;
  void leave_parents_pools();
  std::array<std::unique_ptr<HeapPool>, kMaxStacks> pools_;
  pid_t process_ = 0;  // that has made them
  std::mutex queues_lock_;  // stacks of one process take queues and add them at the same time
};

}  // namespace mtcp::stack::dpdk

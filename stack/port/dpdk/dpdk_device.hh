// A device of DPDK's: device.cc opens it, joining.cc gives its queues to stacks, spreading.cc has it spread packets
// over them.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/port/device.hh"
#include "stack/port/dpdk/af_packet/packet_fanout.hh"
#include "stack/port/dpdk/af_xdp/xdp_queues.hh"
#include "stack/port/dpdk/af_xdp/xdp_program.hh"
#include "stack/port/dpdk/device_state.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/interface/card_lock.hh"
#include "stack/port/dpdk/interface/interface_lock.hh"
#include "stack/port/dpdk/pid_watch.hh"
#include "stack/port/dpdk/pool.hh"
#include "stack/port/dpdk/share/shared_ports.hh"
#include "stack/port/dpdk/share/sharing.hh"
#include "stack/port/dpdk/shared.hh"
#include "stack/steering/flow_hash.hh"
#include "stack/steering/shared_device.hh"

struct rte_eth_conf;
struct rte_eth_dev_info;

namespace mtcp::stack::dpdk {

enum class Kind { af_packet, af_xdp, memif, pci, other };

class DpdkDevice final : public Device, public SharedDevice {
 public:
  DpdkDevice(Kind kind, DeviceConfig config);
  ~DpdkDevice() override;

  bool open(std::string& message);
  bool check(std::string& message);
  // open() has failed, and with packet sockets it may not.
  [[nodiscard]] bool wants_packet_sockets() const { return sharing_.shared && sharing_.native && sharing_.automatic && program_.refused_by_driver(); }

  // --- Device
  [[nodiscard]] std::uint32_t queues() const override { return fanout_ != nullptr ? fanout_->queues(rings_.size()) : config_.queues; }
  OwnedAttachment join() override;
  // Where the kernel has part of the interface's ports, they are their listeners'.
  [[nodiscard]] bool points_flows() const override { return fanout_ != nullptr && shared_ports_ == nullptr; }
  [[nodiscard]] bool has_room() const override { return shared_ != nullptr && shared_->has_room(rings_.size()); }
  [[nodiscard]] std::optional<std::array<std::uint64_t, 4>> secrets() const override;
  [[nodiscard]] bool unclaimed(const Endpoint& local) const override;
  [[nodiscard]] bool any_unclaimed() const override;
  std::unique_ptr<Port> claim(std::uint32_t queue, std::uint32_t stack) override;
  [[nodiscard]] std::span<const int> descriptors() const override { return open_descriptors(); }
  void tell_descriptors(std::function<void(int fd, bool opened)> tell) override { tell_ = std::move(tell); }
  [[nodiscard]] std::string summary() const override { return sharing_.summary.empty() ? spreading_ : sharing_.summary; }
  bool end_of_family() override { return shared_ == nullptr || shared_->end_of_family(); }
  [[nodiscard]] DeviceInvitation invite() const override;
  void tidy() override;
  void abandon() override;

  // --- SharedDevice
  [[nodiscard]] ControlBlock& control() override { return shared_->control(); }
  [[nodiscard]] std::uint64_t self() const override { return own_identity(); }
  [[nodiscard]] std::uint64_t program() const override { return config_.program; }
  [[nodiscard]] bool alive(std::uint64_t process) const override { return is_alive(process); }
  [[nodiscard]] std::unique_ptr<DeathWatch> watch_deaths() override { return std::make_unique<PidWatch>(tell_); }
  [[nodiscard]] std::uint32_t cpus() const override { return config_.cpus; }
  bool add_queue() override;
  std::unique_ptr<Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override;
  PacketPool* pool(std::uint32_t stack) override;
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const override {
    return shared_->wake_descriptor(stack);
  }
  void wake(std::uint32_t stack) override { shared_->wake(stack); }
  void clear_wake(std::uint32_t stack) override { shared_->clear_wake(stack); }
  bool redirect(std::span<const std::uint8_t> queues) override;
  void point_flow(std::uint32_t hash, std::uint32_t queue) override {
    if (fanout_ != nullptr) fanout_->point_flow(hash, queue);
  }
  void unpoint_flow(std::uint32_t hash, std::uint32_t queue) override {
    if (fanout_ != nullptr) fanout_->unpoint_flow(hash, queue);
  }
  void keep_port(std::uint16_t port, bool on) override {
    if (shared_ports_ != nullptr) shared_ports_->keep(port, on);
  }
  [[nodiscard]] MacAddress mac() const override { return state_.mac; }
  [[nodiscard]] std::uint32_t mtu() const override { return state_.mtu; }
  [[nodiscard]] bool tx_checksum_offload() const override { return state_.tx_checksum; }

 private:
  bool check_rings(std::uint32_t rx_ring, std::uint32_t tx_ring, std::string& message);
  bool check_addresses(std::string& message);
  bool check_mtu(std::uint32_t wanted, std::string& message);
  bool start_environment(std::string& message);
  bool create_pools(std::string& message);
  bool probe(std::string& message);
  void prepare_spreading();
  bool set_up_packet_sockets(std::string& message);
  // With those that add_queue() makes.
  [[nodiscard]] std::uint32_t most_queues() const { return std::max(config_.queues, static_cast<std::uint32_t>(rings_.size())); }
  bool configure(std::string& message);
  bool settle_queues(const rte_eth_dev_info& info, std::string& message);
  bool create_control_block(const rte_eth_dev_info& info, std::string& message);
  static std::uint32_t steering_entries(const rte_eth_dev_info& info);
  void configure_rss(const rte_eth_dev_info& info, rte_eth_conf& conf);
  bool set_up_queues(const rte_eth_dev_info& info, std::uint64_t tx_offloads, std::string& message);
  bool set_up_xdp(std::string& message);
  bool attach_program(std::string& message);
  bool start(std::string& message);
  bool spread(std::string& message);
  int set_table(std::span<const std::uint8_t> queues);
  std::uint32_t entries_ = 0;  // ControlBlock::Shape::entries
  [[nodiscard]] std::size_t frame() const { return config_.mtu + 18; }
  // Its packets are copied in and out anyway, so they may be the stack's own; otherwise the device holds
  // some.
  [[nodiscard]] bool copies() const { return kind_ == Kind::af_packet || kind_ == Kind::af_xdp; }
  // What the driver is given: a queue's packets, its socket's memory (af_xdp), or what it only wants to be given.
  [[nodiscard]] std::size_t pool_count() const { return kind_ == Kind::af_packet ? 1 : config_.queues; }
  [[nodiscard]] std::size_t pool_packets() const;
  [[nodiscard]] std::size_t pool_frame() const;
  // Private: each process that polls opens one for itself.
  [[nodiscard]] bool is_shared() const { return kind_ != Kind::memif; }

  HeapPool& own_pool(std::uint32_t stack);
  bool take(std::uint32_t queue);
  void mend(MbufPool& pool, std::uint32_t queue);
  void restart(MbufPool& pool, std::uint32_t queue);
  std::unique_ptr<Port> port_of(std::uint32_t queue);
  std::unique_ptr<Port> claim_ring(std::uint32_t queue, PacketPool& pool);

  const Kind kind_;
  DeviceConfig config_;
  const pid_t opener_;
  CardLock card_;
  InterfaceLock interface_;
  bool probed_ = false;
  bool automatic_queues_ = false;
  DeviceState state_;
  std::unique_ptr<SharedState> shared_;
  FlowHash::Key rss_key_{};         // the driver may look at it until the device starts
  std::uint16_t redirections_ = 0;  // entries of the NIC's table; 0: no RSS
  bool follows_ = false;            // that table can do as the control block's does
  bool reachable_after_fork_ = false;
  // One per queue; one for all of af_packet's: the driver wants to be given one, and takes nothing from it.
  std::vector<std::unique_ptr<MbufPool>> pools_;
  std::vector<PacketRing> rings_;                     // af_packet: one per queue, and those that become one
  std::unique_ptr<PacketFanout> fanout_;              // af_packet: null if the kernel spreads packets by itself
  std::string spreading_;                             // and why
  std::unique_ptr<XdpQueues> xdp_queues_;             // af_xdp
  XdpProgram program_;
  bool virtual_ = false;  // af_xdp: the interface is
  Sharing sharing_;       // af_xdp and af_packet: how
  std::vector<int> sending_sockets_;  // af_xdp: one per queue; none: they send by themselves
  std::function<void(int fd, bool opened)> tell_;
  std::unique_ptr<SharedPorts> shared_ports_;  // null: the interface is the stack's alone
  // What this process's stacks have; what a parent had before a fork is still here, and left alone.
  struct Stack {
    ~Stack();
    [[nodiscard]] bool is_idle() const;
    pid_t process = 0;
    std::unique_ptr<HeapPool> pool;  // null: that of the queue with the stack's own number
    bool queue_waits = false;        // that queue is claimed, and claim_queue() has not given it out yet
  };
  std::array<Stack, kMaxStacks> stacks_;
  std::mutex queues_lock_;  // stacks of one process take queues and add them at the same time
};

}  // namespace mtcp::stack::dpdk

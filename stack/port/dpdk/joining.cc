// Stacks on an open device: their packets, and the queues that they poll.
#include <rte_ethdev.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "stack/port/dpdk/af_packet/af_packet.hh"
#include "stack/port/dpdk/af_xdp/af_xdp.hh"
#include "stack/port/dpdk/copying_port.hh"
#include "stack/port/dpdk/dpdk_device.hh"
#include "stack/port/dpdk/guest.hh"
#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/memif/memif.hh"
#include "stack/port/dpdk/share/sharing_port.hh"
#include "stack/steering/steering_port.hh"

namespace mtcp::stack::dpdk {

OwnedAttachment DpdkDevice::join() {
  if (!is_shared()) return {claim(0, 0)};
  return SharingPort::join(*this, shared_ports_.get(), interface_of(config_.port), config_.addresses.empty(), tell_);
}

std::optional<std::array<std::uint64_t, 4>> DpdkDevice::secrets() const {
  if (shared_ == nullptr) return std::nullopt;
  return shared_->control().secrets();
}

bool DpdkDevice::unclaimed(const Endpoint& local) const { return shared_ != nullptr && shared_->control().unclaimed(local); }

bool DpdkDevice::any_unclaimed() const { return shared_ != nullptr && shared_->control().any_unclaimed(); }

DeviceInvitation DpdkDevice::invite() const {
  if (shared_ == nullptr) return {};
  GuestTerms terms{.queues = most_queues(),
                   .mtu = state_.mtu,
                   .packets = config_.packets,
                   .slots = shared_->control().slots(),
                   .entries = entries_,
                   .frame = frame(),
                   .program = config_.program,
                   .mac = state_.mac,
                   .tx_checksum = state_.tx_checksum ? std::uint8_t{1} : std::uint8_t{0},
                   .follows = config_.addresses.empty() ? std::uint8_t{1} : std::uint8_t{0}};
  std::vector<int> fds{state_.claims->descriptor()};
  for (const int fd : shared_->descriptors()) fds.push_back(fd);
  // The link is among them, so that the program stays on the interface after this process has ended.
  for (const int fd : {interface_.descriptor(), card_.descriptor(), config_.keeps_interface ? -1 : program_.descriptor()}) {
    if (fd < 0) continue;
    fds.push_back(fd);
    ++terms.locks;
  }
  if (shared_ports_ != nullptr) {
    terms.addresses = shared_ports_->room();
    fds.insert(fds.end(), shared_ports_->maps().begin(), shared_ports_->maps().end());
  }
  const std::string interface = interface_of(config_.port);
  memcpy(terms.interface.data(), interface.data(), std::min(interface.size(), terms.interface.size() - 1));
  if (xdp_queues_ != nullptr) {
    const std::vector<int> queues = xdp_queues_->descriptors();
    terms.xdp = static_cast<std::uint32_t>(queues.size());
    fds.insert(fds.end(), queues.begin(), queues.end());
    if (!queues.empty()) {
      terms.senders = static_cast<std::uint32_t>(sending_sockets_.size());
      fds.insert(fds.end(), sending_sockets_.begin(), sending_sockets_.end());
    }
    terms.on_virtual = virtual_ ? 1 : 0;
    terms.pieces = sharing_.generic ? 1 : 0;
  }
  if (!rings_.empty()) terms.frames = rings_.front().frames.tp_frame_nr;
  if (rings_.size() > config_.queues) terms.spare = static_cast<std::uint32_t>(rings_.size()) - config_.queues;
  for (const PacketRing& r : rings_) {
    fds.push_back(r.fd);
    ++terms.rings;
    terms.spare_frames = r.frames.tp_frame_nr;
    terms.frame_size = r.frames.tp_frame_size;
    terms.block_size = r.frames.tp_block_size;
    terms.offload = r.offload ? 1 : 0;
  }
  if (fanout_ != nullptr) {
    fds.push_back(fanout_->descriptor());
    terms.fanout = 1;
  }
  return invitation(terms, std::move(fds));
}

void DpdkDevice::tidy() {
  for (std::uint32_t i = 0; shared_ports_ != nullptr && i < kMaxStacks; ++i) shared_ports_->look_for_the_dead(i);
}

// Destroys the pool if this process made it and nobody has packets of it in hand; otherwise it is left as it
// is.
DpdkDevice::Stack::~Stack() {
  if (!is_idle()) (void)pool.release();
}

bool DpdkDevice::Stack::is_idle() const {
  return pool != nullptr && process == getpid() && pool->available() == pool->capacity();
}

// Packets in memory of this process: they end with it, so that a process that is killed takes none along.
HeapPool& DpdkDevice::own_pool(std::uint32_t stack) {
  Stack& s = stacks_[stack];
  if (!s.is_idle()) {
    (void)s.pool.release();
    s.pool = std::make_unique<HeapPool>(config_.packets, MbufPool::data_room(frame()));
    s.process = getpid();
  }
  s.queue_waits = false;
  return *s.pool;
}

// A device that does not copy has packets of a queue's pool in its rings all the time. A stack that gets the
// queue with its own number keeps it for good, and has its packets there as well: nothing is copied. If
// another stack polls that queue just now, ours are in memory of our own, and what goes through our queues is
// copied.
PacketPool* DpdkDevice::pool(std::uint32_t stack) {
  if (copies() || !take(stack)) return &own_pool(stack);
  Stack& s = stacks_[stack];
  if (!s.is_idle()) (void)s.pool.release();
  s.pool.reset();
  s.process = getpid();
  s.queue_waits = true;
  return pools_[stack].get();
}

// Claims the queue. False while a living process has it.
bool DpdkDevice::take(std::uint32_t queue) {
  if (queue >= config_.queues) return false;
  const auto outcome = state_.claims->claim(queue);
  if (outcome == Claims::Outcome::inherited && !copies()) mend(*pools_[queue], queue);
  return outcome != Claims::Outcome::taken;
}

// A dead process's queue. What the device has of its pool stays there, if the process did not die in the
// driver. If it did, a card's queue starts anew; what other drivers hold is forgotten.
void DpdkDevice::mend(MbufPool& pool, std::uint32_t queue) {
  if (kind_ == Kind::memif) return pool.reclaim();
  if (!pool.in_driver()) return pool.recover();
  if (kind_ == Kind::pci) return restart(pool, queue);
  std::array<rte_mbuf*, 64> waiting;
  while (rte_eth_rx_burst(state_.port, static_cast<std::uint16_t>(queue), waiting.data(), waiting.size()) > 0) {
  }
  pool.reclaim();
}

// A card's queue in whose driver a process died: its rings and the driver's notes of them may not agree. Where the
// queue can be stopped by itself, or the card has no other, it starts anew. Only with drivers that need nothing
// else for that than registers: DPDK's heap is the opener's (README.md), and firmware may wait for the dead one's
// answer.
void DpdkDevice::restart(MbufPool& pool, std::uint32_t queue) {
  constexpr std::array<std::string_view, 2> kStopQueues = {"net_i40e", "net_ixgbe"};
  constexpr std::array<std::string_view, 3> kStopCard = {"net_e1000_em", "net_e1000_igb", "net_vmxnet3"};
  rte_eth_dev_info info{};
  const std::string_view driver = rte_eth_dev_info_get(state_.port, &info) == 0 ? info.driver_name : "";
  const auto q = static_cast<std::uint16_t>(queue);
  std::string message;
  if (std::ranges::find(kStopQueues, driver) != kStopQueues.end() &&
      rte_eth_dev_tx_queue_stop(state_.port, q) == 0 && rte_eth_dev_rx_queue_stop(state_.port, q) == 0) {
    pool.reclaim();
    (void)rte_eth_dev_tx_queue_start(state_.port, q);
    (void)rte_eth_dev_rx_queue_start(state_.port, q);
  } else if (config_.queues == 1 && std::ranges::find(kStopCard, driver) != kStopCard.end() &&
             rte_eth_dev_stop(state_.port) == 0) {
    pool.reclaim();
    (void)start(message);  // if it does not: a link that is down
  } else {
    pool.recover();
  }
}

std::unique_ptr<Port> DpdkDevice::port_of(std::uint32_t queue) {
  const auto index = static_cast<std::uint16_t>(queue);
  if (kind_ == Kind::memif) return std::make_unique<MemifPort>(state_, index, *pools_[queue]);
  return std::make_unique<EthdevPort>(state_, index, *pools_[queue]);
}

std::unique_ptr<Port> DpdkDevice::claim_ring(std::uint32_t queue, PacketPool& pool) {
  if (queue >= queues() || (kind_ == Kind::af_packet && map_ring(rings_[queue]) == nullptr)) return nullptr;
  const auto outcome = state_.claims->claim(queue);
  if (outcome == Claims::Outcome::taken) return nullptr;
  if (fanout_ != nullptr) fanout_->forget_flows(queue);
  if (kind_ == Kind::af_xdp)
    return std::make_unique<AfXdpPort>(state_, static_cast<std::uint16_t>(queue), pool, xdp_queues_->frames(queue), virtual_, sharing_.generic,
                                       sending_sockets_.empty() ? -1 : sending_sockets_[queue], config_);
  return std::make_unique<AfPacketPort>(state_, static_cast<std::uint16_t>(queue), pool, rings_[queue],
                                        outcome == Claims::Outcome::inherited,
                                        sharing_.shared ? std::vector<std::uint32_t>{} : config_.addresses, program_.descriptor() >= 0);
}

std::unique_ptr<Port> DpdkDevice::claim(std::uint32_t queue, std::uint32_t stack) {
  if (stack >= kMaxStacks) return nullptr;
  if (copies()) return claim_ring(queue, own_pool(stack));
  return take(queue) ? port_of(queue) : nullptr;
}

bool DpdkDevice::add_queue() {
  const std::lock_guard guard(queues_lock_);
  return fanout_ != nullptr && fanout_->add(rings_);
}

std::unique_ptr<Port> DpdkDevice::claim_queue(std::uint32_t queue, std::uint32_t stack) {
  const std::lock_guard guard(queues_lock_);
  Stack& s = stacks_[stack];
  if (copies()) return claim_ring(queue, *s.pool);
  // Claimed by pool().
  if (queue == stack && std::exchange(s.queue_waits, false)) return port_of(queue);
  if (!take(queue)) return nullptr;
  PacketPool& pool = s.pool != nullptr ? static_cast<PacketPool&>(*s.pool) : *pools_[stack];
  return std::make_unique<CopyingPort>(port_of(queue), pool);
}

}  // namespace mtcp::stack::dpdk

// How a device spreads what it receives over its queues: by the hash and the table of stack/steering. A card does (RSS), and
// the kernel does it for packet sockets.
#include <errno.h>
#include <fcntl.h>
#include <rte_ethdev.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <string_view>

#include "stack/port/dpdk/af_packet/af_packet.hh"
#include "stack/port/dpdk/dpdk_device.hh"
#include "stack/port/dpdk/eal/eal.hh"
#include "stack/port/dpdk/interface/card_lock.hh"

namespace mtcp::stack::dpdk {

namespace {

// The driver reaches the card by registers that are mapped, in the child of a fork as well. Others have descriptors,
// threads or a kernel driver that knows the process.
bool registers_are_mapped(std::string_view port) {
  const std::string path = "/sys/bus/pci/devices/" + full_pci_address(port) + "/driver";
  std::array<char, 256> target;
  const long n = system_call(SYS_readlinkat, AT_FDCWD, reinterpret_cast<long>(path.c_str()),
                             reinterpret_cast<long>(target.data()), target.size());
  if (n <= 0) return false;
  const std::string_view driver(target.data(), static_cast<std::size_t>(n));
  return std::ranges::any_of(std::array<std::string_view, 3>{"/vfio-pci", "/uio_pci_generic", "/igb_uio"},
                             [driver](std::string_view name) { return driver.ends_with(name); });
}

std::size_t descriptor_limit() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

}  // namespace

// --- packet sockets

// Before the packet sockets are opened.
void DpdkDevice::prepare_spreading() {
  spread_packets_by(-1);
  if (config_.queues == 1 && !automatic_queues_) return;
  fanout_ = PacketFanout::create();
  if (fanout_ != nullptr) return spread_packets_by(fanout_->program());
  spreading_ = std::string("packets are spread over the stacks by the kernel's hash, which does not know whose they are, and passed on: no BPF program (") +
               strerror(errno) + "; it takes the capabilities bpf and perfmon)";
}

bool DpdkDevice::set_up_packet_sockets(std::string& message) {
  const auto rings = packet_rings();
  rings_.assign(rings.begin(), rings.end());
  for (PacketRing& ring : rings_) ring.tagged = sharing_.tagged;
  if (rings_.size() != config_.queues) {
    message = "leave qpairs= out of " + config_.port + ", and set queues = " + std::to_string(rings_.size());
    return false;
  }
  if (!packets_are_spread_by_program()) fanout_.reset();
  if (fanout_ != nullptr) fanout_->close_program();
  // With few descriptors in all, none to spare.
  constexpr std::size_t kDescriptors = 1024;
  const bool spare = fanout_ != nullptr && automatic_queues_ && descriptor_limit() >= kDescriptors;
  if (const std::uint32_t slots = SharedState::slots(); spare && slots > config_.queues)
    std::ranges::copy(open_spare_rings(rings_.front(), config_.rx_ring, slots - config_.queues), std::back_inserter(rings_));
  for (const PacketRing& ring : rings_) af_packet_prepare(ring, config_.tx_ring);
  return true;
}

// --- cards

// The card's, so that it can do as the control block says: unless there are so few that the stacks' shares would be unequal.
std::uint32_t DpdkDevice::steering_entries(const rte_eth_dev_info& info) {
  const std::uint32_t entries = info.flow_type_rss_offloads == 0 ? 0 : info.reta_size;
  if (!std::has_single_bit(entries) || entries < 2 * SharedState::slots()) return kMaxSteeringEntries;
  return std::min(entries, kMaxSteeringEntries);
}

// The hash that steering computes, so that a packet of a stack's flow comes on the queue that its table says.
void DpdkDevice::configure_rss(const rte_eth_dev_info& info, rte_eth_conf& conf) {
  if (config_.queues < 2 || info.flow_type_rss_offloads == 0) return;
  conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
  rte_eth_rss_conf& rss = conf.rx_adv_conf.rss_conf;
  rss.rss_hf = info.flow_type_rss_offloads & (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP);
  redirections_ = info.reta_size;
  conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;  // for SteeringPort to compare
  if (shared_ == nullptr) return;
  // Without our key it would be no use, and no harm either.
  follows_ = std::has_single_bit(redirections_) && redirections_ >= shared_->control().entries();
  reachable_after_fork_ = kind_ == Kind::pci && registers_are_mapped(config_.port);
  if (info.hash_key_size == 0 || info.hash_key_size > rss_key_.size()) return;
  rss_key_ = FlowHash::make_key(shared_->control().secrets());
  rss.rss_key = rss_key_.data();
  rss.rss_key_len = info.hash_key_size;
}

// 0, or what the driver says.
int DpdkDevice::set_table(std::span<const std::uint8_t> queues) {
  constexpr std::uint16_t kGroup = RTE_ETH_RETA_GROUP_SIZE;
  std::vector<rte_eth_rss_reta_entry64> table((redirections_ + kGroup - 1) / kGroup);
  for (std::uint16_t i = 0; i < redirections_; ++i) {
    table[i / kGroup].mask |= std::uint64_t{1} << i % kGroup;
    table[i / kGroup].reta[i % kGroup] = queues[i % queues.size()];
  }
  return rte_eth_dev_rss_reta_update(state_.port, table.data(), redirections_);
}

// At first hash values to queues, in turn.
bool DpdkDevice::spread(std::string& message) {
  if (redirections_ == 0) return true;
  std::vector<std::uint8_t> in_turn(redirections_);
  for (std::size_t i = 0; i < in_turn.size(); ++i) in_turn[i] = static_cast<std::uint8_t>(i % config_.queues);
  const int result = set_table(in_turn);
  if (result == -ENOTSUP) follows_ = false;
  if (result == 0 || result == -ENOTSUP) return true;
  message = config_.port + " does not take a table of its queues: " + log_last_error();
  return false;
}

bool DpdkDevice::redirect(std::span<const std::uint8_t> queues) {
  if (fanout_ != nullptr) return fanout_->direct(queues), true;
  if (!follows_ || !state_.started || (getpid() != opener_ && !reachable_after_fork_)) return false;
  return set_table(queues) == 0;
}

}  // namespace mtcp::stack::dpdk

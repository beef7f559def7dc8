// Opening a device: what kind it is, DPDK's environment, pools, queues; then ports for those who claim them.
#include "stack/port/device.hh"

#include <ctype.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "stack/port/dpdk/af_packet.hh"
#include "stack/port/dpdk/card_lock.hh"
#include "stack/port/dpdk/eal.hh"
#include "stack/port/dpdk/interrupts.hh"
#include "stack/port/dpdk/libc_calls.hh"
#include "stack/port/dpdk/memif.hh"
#include "stack/port/dpdk/shared.hh"
#include "stack/steering/steering_port.hh"

namespace mtcp::stack {

namespace {

using dpdk::EthdevPort;
using dpdk::MbufPool;

enum class Kind { af_packet, memif, pci, other };

// "03:00.0" or "0000:03:00.0", perhaps with arguments.
bool is_pci_address(std::string_view port) {
  const std::string_view address = port.substr(0, port.find(','));
  return address.size() >= 7 && address[address.size() - 2] == '.' && address[address.size() - 5] == ':' &&
         std::ranges::all_of(address, [](unsigned char c) { return isxdigit(c) || c == ':' || c == '.'; });
}

Kind kind_of(std::string_view port) {
  if (is_pci_address(port)) return Kind::pci;
  if (port.starts_with("net_af_packet") || port.starts_with("eth_af_packet")) return Kind::af_packet;
  if (port.starts_with("net_memif")) return Kind::memif;
  return Kind::other;
}

// "Automatic": a queue for every CPU that this process may use.
std::uint32_t usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::clamp<std::uint32_t>(static_cast<std::uint32_t>(n), 1, kMaxStacks);
}

class DpdkDevice final : public Device, public SharedDevice {
 public:
  DpdkDevice(Kind kind, DeviceConfig config) : kind_(kind), config_(std::move(config)), opener_(getpid()) {}
  ~DpdkDevice() override;

  bool open(std::string& message);

  [[nodiscard]] std::uint32_t queues() const override { return config_.queues; }
  std::unique_ptr<Port> join() override;
  [[nodiscard]] std::optional<std::array<std::uint64_t, 4>> secrets() const override;
  std::unique_ptr<Port> claim(std::uint32_t index, std::uint32_t stack_id) override;
  void abandon() override;

  // --- SharedDevice
  [[nodiscard]] Board& board() override { return shared_->board(); }
  [[nodiscard]] std::uint64_t self() const override { return dpdk::own_identity(); }
  [[nodiscard]] bool alive(std::uint64_t process) const override { return dpdk::is_alive(process); }
  [[nodiscard]] std::uint32_t stacks() const override { return static_cast<std::uint32_t>(pools_.size()); }
  std::unique_ptr<Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override;
  PacketPool* pool(std::uint32_t stack) override;
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const override { return shared_->wake_descriptor(stack); }
  void wake(std::uint32_t stack) override { shared_->wake(stack); }
  void clear_wake(std::uint32_t stack) override { shared_->clear_wake(stack); }
  [[nodiscard]] MacAddress mac() const override { return state_.mac; }
  [[nodiscard]] std::uint32_t mtu() const override { return state_.mtu; }
  [[nodiscard]] bool tx_checksum_offload() const override { return state_.tx_checksum; }

 private:
  bool check(std::string& message);
  bool start_environment(std::string& message);
  bool create_pools(std::string& message);
  bool probe(std::string& message);
  bool configure(std::string& message);
  bool set_up_queues(const rte_eth_dev_info& info, std::uint64_t tx_offloads, std::string& message);
  bool start(std::string& message);
  std::unique_ptr<Port> make_port(std::uint32_t queue, std::uint32_t stack, bool inherited);
  [[nodiscard]] std::size_t frame() const { return config_.mtu + 18; }
  // The driver copies what it sends and receives: each stack's packets are its process's own. Otherwise the
  // packets belong to a queue, and its stack is the one with its number.
  [[nodiscard]] bool copies() const { return kind_ == Kind::af_packet; }

  const Kind kind_;
  DeviceConfig config_;
  const pid_t opener_;
  dpdk::CardLock card_;
  bool probed_ = false;
  dpdk::DeviceState state_;
  std::vector<std::unique_ptr<MbufPool>> pools_;  // one per stack that there can be
  std::unique_ptr<dpdk::SharedState> shared_;     // null: the device is not shared
  std::vector<dpdk::PacketRing> rings_;           // af_packet: one per queue
};

// After a fork the memory is shared, but DPDK's knowledge of what is free is not: only the process that
// opened the device may give anything back, and only when nobody uses it.
DpdkDevice::~DpdkDevice() {
  if (getpid() != opener_ || (state_.claims && state_.claims->any_alive())) return;
  dpdk::set_thread_number(0);
  if (probed_) {
    if (state_.started) rte_eth_dev_stop(state_.port);
    rte_eth_dev_close(state_.port);
    dpdk::interrupts().clear();
    dpdk::forget_packet_rings();
  }
  for (const auto& pool : pools_)
    if (pool != nullptr) rte_mempool_free(pool->mempool());
}

void DpdkDevice::abandon() {
  if (getpid() == opener_) return;
  card_.release();
  dpdk::close_all_descriptors();
}

bool DpdkDevice::check(std::string& message) {
  // Where a queue's packets belong to one stack, a queue without its stack would be deaf: one, unless told otherwise.
  if (config_.queues == 0) config_.queues = copies() ? usable_cpus() : 1;
  if (config_.queues > kMaxStacks || config_.packets < 512 || config_.mtu < 68 || config_.mtu > 9600) {
    message = "port " + config_.port + ": 1 to " + std::to_string(kMaxStacks) +
              " queues, 512 packets or more, and an MTU of 68 to 9600 can be had";
    return false;
  }
  if (kind_ == Kind::other && !config_.port.starts_with("net_")) {
    message = "\"" + config_.port +
              "\" is neither a DPDK device string (net_af_packet0,iface=eth0) nor a PCI address";
    return false;
  }
  if (kind_ == Kind::af_packet) return dpdk::af_packet_check(config_, config_.mtu, message);
  return true;
}

bool DpdkDevice::start_environment(std::string& message) {
  dpdk::EalConfig eal;
  eal.hugepages = config_.hugepages;
  // Beside the pools: the environment's own tables, driver structures, descriptor rings.
  eal.memory = config_.queues * ((copies() ? 0 : MbufPool::memory(config_.packets, frame())) +
                                 64 * std::size_t{config_.rx_ring + config_.tx_ring}) +
               (std::size_t{16} << 20);
  if (kind_ == Kind::pci) {
    if (!card_.take(config_.port, message)) return false;  // the environment resets the card
    eal.pci = config_.port;
  }
  return dpdk::start_eal(eal, message);
}

bool DpdkDevice::create_pools(std::string& message) {
  for (std::uint32_t i = 0; i < (copies() ? kMaxStacks : config_.queues); ++i) {
    const std::string name = "mtcp_packets_" + std::to_string(i);
    pools_.push_back(copies() ? MbufPool::create_empty(name.c_str(), config_.packets, frame())
                              : MbufPool::create(name.c_str(), config_.packets, frame()));
    if (pools_.back() != nullptr) continue;
    message = "no memory for " + std::to_string(config_.packets) +
              " packets per queue: " + rte_strerror(rte_errno) +
              (dpdk::uses_huge_pages() ? "; try hugepages = \"off\"" : "");
    return false;
  }
  return true;
}

bool DpdkDevice::probe(std::string& message) {
  std::string port = config_.port;
  std::string hint;
  if (kind_ == Kind::af_packet) port = dpdk::af_packet_arguments(config_, config_.queues);
  if (kind_ == Kind::memif) {
    port = dpdk::memif_arguments(config_);
    hint = dpdk::memif_hint(config_);
  }
  std::string name = port.substr(0, port.find(','));
  if (kind_ == Kind::pci) {
    name = dpdk::full_pci_address(port);  // probed with the bus
    hint = "; is it bound to a DPDK driver? See: dpdk-devbind.py --status";
  } else {
    dpdk::log_clear();
    if (rte_dev_probe(port.c_str()) != 0) {
      message = "DPDK cannot open " + config_.port + ": " + dpdk::log_last_error() + hint;
      return false;
    }
  }
  if (rte_eth_dev_get_port_by_name(name.c_str(), &state_.port) != 0) {
    message = "DPDK knows no network device " + name + hint;
    return false;
  }
  probed_ = true;
  const auto rings = dpdk::packet_rings();
  rings_.assign(rings.begin(), rings.end());
  for (const dpdk::PacketRing& ring : rings_) dpdk::af_packet_prepare(ring);
  if (kind_ == Kind::af_packet && rings_.size() != config_.queues) {
    message = "leave qpairs= out of " + config_.port + ", and set queues = " + std::to_string(rings_.size());
    return false;
  }
  return true;
}

bool DpdkDevice::set_up_queues(const rte_eth_dev_info& info, std::uint64_t tx_offloads,
                               std::string& message) {
  auto rx_ring = static_cast<std::uint16_t>(std::min(config_.rx_ring, 32768u));
  auto tx_ring = static_cast<std::uint16_t>(std::min(config_.tx_ring, 32768u));
  rte_eth_dev_adjust_nb_rx_tx_desc(state_.port, &rx_ring, &tx_ring);
  rte_eth_txconf tx = info.default_txconf;
  tx.offloads = tx_offloads;
  for (std::uint16_t q = 0; q < config_.queues; ++q) {
    const int rx_result =
        rte_eth_rx_queue_setup(state_.port, q, rx_ring, SOCKET_ID_ANY, nullptr, pools_[q]->mempool());
    const int tx_result = rte_eth_tx_queue_setup(state_.port, q, tx_ring, SOCKET_ID_ANY, &tx);
    if (rx_result == 0 && tx_result == 0) continue;
    message =
        "queue " + std::to_string(q) + " of " + config_.port + " cannot be set up: " + dpdk::log_last_error();
    return false;
  }
  return true;
}

bool DpdkDevice::configure(std::string& message) {
  rte_eth_dev_info info{};
  rte_ether_addr mac{};
  dpdk::log_clear();
  if (rte_eth_dev_info_get(state_.port, &info) != 0 || rte_eth_macaddr_get(state_.port, &mac) != 0) {
    message = "DPDK tells nothing about " + config_.port + ": " + dpdk::log_last_error();
    return false;
  }
  if (config_.queues > std::min(info.max_rx_queues, info.max_tx_queues)) {
    message = config_.port + " has " + std::to_string(std::min(info.max_rx_queues, info.max_tx_queues)) +
              " queues; set queues to that or less";
    return false;
  }
  rte_eth_conf conf{};
  conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
  constexpr std::uint64_t kChecksum = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
  conf.txmode.offloads = info.tx_offload_capa & (kChecksum | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
  if (kind_ == Kind::pci) conf.rxmode.mtu = config_.mtu;
  if (config_.queues > 1 && info.flow_type_rss_offloads != 0) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf =
        info.flow_type_rss_offloads & (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP);
  }
  const auto n = static_cast<std::uint16_t>(config_.queues);
  if (rte_eth_dev_configure(state_.port, n, n, &conf) != 0) {
    message = config_.port + " does not take its configuration: " + dpdk::log_last_error();
    return false;
  }
  std::ranges::copy(mac.addr_bytes, state_.mac.bytes.begin());
  state_.mtu = config_.mtu;
  state_.tx_checksum = (conf.txmode.offloads & kChecksum) != 0;
  return set_up_queues(info, conf.txmode.offloads, message);
}

bool DpdkDevice::start(std::string& message) {
  dpdk::log_clear();
  state_.started = rte_eth_dev_start(state_.port) == 0;
  // A memif client may be there before its server; its port goes on trying.
  if (state_.started || kind_ == Kind::memif) return true;
  message = config_.port + " does not start: " + dpdk::log_last_error();
  return false;
}

bool DpdkDevice::open(std::string& message) {
  if (!check(message) || !start_environment(message)) return false;
  dpdk::set_thread_number(0);
  if (!create_pools(message) || !probe(message) || !configure(message) || !start(message)) return false;
  state_.claims = dpdk::Claims::create(config_.queues);
  if (kind_ != Kind::memif) shared_ = dpdk::SharedState::create(std::max<std::size_t>(frame(), 2048));
  if (state_.claims != nullptr && (shared_ != nullptr || kind_ == Kind::memif)) return true;
  message = "no memory or descriptors for what the device's users share";
  return false;
}

std::optional<std::array<std::uint64_t, 4>> DpdkDevice::secrets() const {
  if (shared_ == nullptr) return std::nullopt;
  return shared_->board().secrets();
}

std::unique_ptr<Port> DpdkDevice::join() {
  if (shared_ == nullptr) return claim(0, 0);
  return SteeringPort::join(*this);
}

PacketPool* DpdkDevice::pool(std::uint32_t stack) {
  MbufPool& pool = *pools_[stack];
  pool.set_owner(stack);
  return copies() && !pool.populate() ? nullptr : &pool;
}

std::unique_ptr<Port> DpdkDevice::claim(std::uint32_t index, std::uint32_t stack_id) {
  if (stack_id >= kMaxStacks) return nullptr;
  const auto outcome = state_.claims->claim(index);
  if (outcome == dpdk::Claims::Outcome::taken) return nullptr;
  if (copies() && pool(stack_id) == nullptr) {
    state_.claims->release(index);
    return nullptr;
  }
  return make_port(index, stack_id, outcome == dpdk::Claims::Outcome::inherited);
}

std::unique_ptr<Port> DpdkDevice::claim_queue(std::uint32_t queue, std::uint32_t stack) {
  if (!copies() && queue != stack) return nullptr;
  const auto outcome = state_.claims->claim(queue);
  if (outcome == dpdk::Claims::Outcome::taken) return nullptr;
  return make_port(queue, stack, outcome == dpdk::Claims::Outcome::inherited);
}

// `inherited`: the queue's former owner died with it.
std::unique_ptr<Port> DpdkDevice::make_port(std::uint32_t queue, std::uint32_t stack, bool inherited) {
  MbufPool& pool = *pools_[copies() ? stack : queue];
  const auto number = static_cast<std::uint16_t>(queue);
  // Memif has none of the dead process's packets; a NIC has some in its rings, and keeps its pool as it is.
  if (inherited && kind_ != Kind::pci && !copies()) pool.reclaim();
  switch (kind_) {
    case Kind::af_packet:
      return std::make_unique<dpdk::AfPacketPort>(state_, number, pool, stack, rings_[queue], inherited);
    case Kind::memif:
      return std::make_unique<dpdk::MemifPort>(state_, number, pool, stack);
    case Kind::pci:
    case Kind::other:
      break;
  }
  return std::make_unique<EthdevPort>(state_, number, pool, stack);
}

}  // namespace

std::unique_ptr<Device> open_device(const DeviceConfig& config, std::string& message) {
  auto device = std::make_unique<DpdkDevice>(kind_of(config.port), config);
  if (!device->open(message)) return nullptr;
  return device;
}

}  // namespace mtcp::stack

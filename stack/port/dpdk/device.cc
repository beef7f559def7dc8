// Opening a device: DPDK's environment, pools, queues. How stacks get at them is in joining.cc.
#include "stack/port/device.hh"

#include <errno.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "stack/port/dpdk/af_packet/af_packet.hh"
#include "stack/port/dpdk/af_packet/packet_sender.hh"
#include "stack/port/dpdk/af_xdp/af_xdp.hh"
#include "stack/port/dpdk/dpdk_device.hh"
#include "stack/port/dpdk/eal/eal.hh"
#include "stack/port/dpdk/eal/interrupts.hh"
#include "stack/port/dpdk/interface/card_lock.hh"
#include "stack/port/dpdk/interface/interface_lock.hh"
#include "stack/port/dpdk/interface/interface_watch.hh"
#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/memif/memif.hh"
#include "stack/port/dpdk/memif/memif_guard.hh"
#include "stack/port/dpdk/share/layout.h"

namespace mtcp::stack {

namespace dpdk {

namespace {

// What a driver that copies is given: it wants a pool of some size, and takes nothing from it.
constexpr std::size_t kUnusedPackets = 512;

}  // namespace

DpdkDevice::DpdkDevice(Kind kind, DeviceConfig config)
    : kind_(kind), config_(std::move(config)), opener_(getpid()) {
  if (config_.cpus == 0) config_.cpus = static_cast<std::uint32_t>(sysconf(_SC_NPROCESSORS_ONLN));
}

// After a fork the memory is shared, but DPDK's knowledge of what is free is not: only the process that
// opened the device may give anything back, and only when nobody uses it.
DpdkDevice::~DpdkDevice() {
  if (getpid() != opener_ || (state_.claims && state_.claims->any_alive())) return;
  set_thread_number(0);
  program_.detach();
  if (probed_) {
    if (state_.started) rte_eth_dev_stop(state_.port);
    rte_eth_dev_close(state_.port);
    interrupts().clear();
    forget_packet_rings();
  }
  for (const int fd : sending_sockets_) mtcp_dpdk_close(fd);
  for (std::size_t i = config_.queues; i < rings_.size(); ++i) {
    unmap_ring(rings_[i]);
    mtcp_dpdk_close(rings_[i].fd);
  }
  for (const auto& pool : pools_)
    if (pool != nullptr) rte_mempool_free(pool->mempool());
}

void DpdkDevice::abandon() {
  if (getpid() == opener_) return;
  card_.release();
  interface_.release();
  program_.detach();
  show_life_on(-1);
  close_all_descriptors();
}

bool DpdkDevice::check(std::string& message) {
  automatic_queues_ = config_.queues == 0;
  if (automatic_queues_ && kind_ != Kind::af_xdp) {
    // As many as processes can run at a time. Fewer stacks poll several, more send each other what they need.
    // A card's have a pool each: who wants more than some 3 GB of packets says so.
    constexpr std::uint32_t kMostOfCard = 16;
    const std::uint32_t most = kind_ == Kind::af_packet ? kMaxStacks : kind_ == Kind::pci ? kMostOfCard : 1;
    config_.queues = std::min(config_.cpus, most);
  }
  if (config_.queues > kMaxStacks || config_.packets < 512 || config_.mtu < 68 || config_.mtu > 9600) {
    message = "port " + config_.port + ": 1 to " + std::to_string(kMaxStacks) +
              " queues, 512 packets or more, and an MTU of 68 to 9600 can be had";
    return false;
  }
  if (config_.port == "auto") {
    message = "there is no default route, and so no interface to share; name one: port = \"net_af_xdp0,iface=NAME,share=kernel\"";
    return false;
  }
  if (kind_ == Kind::other && !config_.port.starts_with("net_")) {
    message = "\"" + config_.port +
              "\" is neither a DPDK device string (net_af_packet0,iface=eth0) nor a PCI address";
    return false;
  }
  if (!check_rings(config_.rx_ring, config_.tx_ring, message)) return false;
  if (kind_ == Kind::memif) return memif_check(config_, message);
  const std::uint32_t mtu = config_.mtu;
  if (kind_ == Kind::af_packet && !value_of(config_.port, "share").empty())
    return af_packet_check(config_, config_.mtu, message) && check_mtu(mtu, message) && read_sharing(config_, true, sharing_, message) &&
           may_classify(interface_of(config_.port), message);
  if (kind_ == Kind::af_packet)
    return af_packet_check(config_, config_.mtu, message) && check_mtu(mtu, message) && check_addresses(message);
  if (kind_ == Kind::af_xdp) {
    if (!af_xdp_check(config_, config_.queues, config_.mtu, message) || !check_mtu(mtu, message)) return false;
    virtual_ = is_virtual(interface_of(config_.port));
    if (!read_sharing(config_, virtual_, sharing_, message)) return false;
    if (sharing_.generic) config_.rx_ring = std::max(config_.rx_ring, kXdpReceiveFrames);  // 64 KB take some 36 slots
  }
  return true;
}

// A card's rings are full of the queue's packets, and what is to be received next is taken from the pool before it has
// others back.
bool DpdkDevice::check_rings(std::uint32_t rx_ring, std::uint32_t tx_ring, std::string& message) {
  if (kind_ != Kind::pci) return true;  // drivers in software take packets as they come
  constexpr std::uint32_t kToWorkWith = 512;
  const std::uint32_t need = rx_ring + tx_ring + kToWorkWith;
  if (config_.packets >= need) return true;
  message = "packets = " + std::to_string(config_.packets) + " cannot fill the rings: rx_ring (" +
            std::to_string(rx_ring) + ") and tx_ring (" + std::to_string(tx_ring) + ") hold that many packets, and " +
            std::to_string(kToWorkWith) + " are needed to work with; set packets to " + std::to_string(need) +
            " or more, or to \"auto\"";
  if (config_.misconfigured != nullptr) *config_.misconfigured = true;
  return false;
}

bool DpdkDevice::check_addresses(std::string& message) {
  message = shared_address(config_.addresses);
  if (message.empty()) return true;
  if (config_.misconfigured != nullptr) *config_.misconfigured = true;
  return false;
}

// The default gives way to the interface's, in silence; what somebody has asked for does not.
bool DpdkDevice::check_mtu(std::uint32_t wanted, std::string& message) {
  if (config_.mtu >= wanted || wanted == DeviceConfig{}.mtu) return true;
  const std::string interface = interface_of(config_.port), has = std::to_string(config_.mtu);
  message = "mtu = " + std::to_string(wanted) + " is more than that of interface " + interface + " (" + has +
            "); set mtu in [device] to " + has + " or less, or run: sudo ip link set " + interface + " mtu " +
            std::to_string(wanted);
  if (config_.misconfigured != nullptr) *config_.misconfigured = true;
  return false;
}

bool DpdkDevice::start_environment(std::string& message) {
  EalConfig eal;
  eal.hugepages = config_.hugepages;
  // Beside the pools: the environment's own tables, driver structures, descriptor rings.
  const std::size_t pools = pool_count() * MbufPool::memory(pool_packets(), pool_frame());
  eal.memory =
      pools + config_.queues * 64 * std::size_t{config_.rx_ring + config_.tx_ring} + (std::size_t{16} << 20);
  const std::string interface = interface_of(config_.port);
  const auto refused = [this](bool in_use) {
    if (config_.in_use != nullptr) *config_.in_use = in_use;
    return false;
  };
  if (!interface.empty() && !interface_.take(interface, message)) return refused(interface_.in_use());
  if (kind_ == Kind::pci) {
    if (!card_.take(config_.port, message)) return refused(true);  // the environment resets the card
    eal.pci = config_.port;
  }
  return start_eal(eal, message);
}

std::size_t DpdkDevice::pool_packets() const {
  if (kind_ == Kind::af_xdp) return kXdpReceiveFrames + af_xdp_ring(config_);
  return copies() ? kUnusedPackets : config_.packets;
}

// The af_packet driver wants a packet to hold a slot of the ring, though it takes none.
std::size_t DpdkDevice::pool_frame() const {
  if (kind_ == Kind::af_packet) return std::max<std::size_t>(frame(), af_packet_slot(config_));
  return frame() + (kind_ == Kind::af_xdp ? kXdpHeadroom : 0);
}

bool DpdkDevice::create_pools(std::string& message) {
  const std::size_t packets = pool_packets();
  const auto use = copies() || kind_ == Kind::memif ? MbufPool::Use::copies : MbufPool::Use::device;
  for (std::uint32_t i = 0; i < pool_count(); ++i) {
    const std::string name = "mtcp_packets_" + std::to_string(i);
    pools_.push_back(MbufPool::create(name.c_str(), packets, pool_frame(), use));
    if (pools_.back() != nullptr) {
      if (kind_ == Kind::memif) pools_.back()->keep_from_children();
      continue;
    }
    message = "no memory for " + std::to_string(packets) + " packets per queue: " + rte_strerror(rte_errno) +
              (uses_huge_pages() ? "; try hugepages = \"off\"" : "");
    return false;
  }
  return true;
}

bool DpdkDevice::probe(std::string& message) {
  std::string port = config_.port;
  std::string hint;
  if (kind_ == Kind::af_packet) {
    port = af_packet_arguments(config_, config_.queues);
    receive_packets_of(sharing_.tagged ? MTCP_SHARE_ETHER_TYPE : 0);
    prepare_spreading();
  }
  if (kind_ == Kind::af_xdp) {
    port = af_xdp_arguments(config_);
    if (sharing_.generic) xsk_use_pieces();
  }
  if (kind_ == Kind::memif) {
    port = memif_arguments(config_);
    memif_guard().allow(config_.peer_users, config_.peer_key);
    hint = memif_hint(config_);
  }
  std::string name = port.substr(0, port.find(','));
  if (kind_ == Kind::pci) {
    name = full_pci_address(port);  // probed with the bus
    hint = "; is it bound to a DPDK driver? See: dpdk-devbind.py --status";
  } else {
    log_clear();
    if (rte_dev_probe(port.c_str()) != 0) {
      message = "DPDK cannot open " + config_.port + ": " + log_last_error() + hint;
      return false;
    }
  }
  if (rte_eth_dev_get_port_by_name(name.c_str(), &state_.port) != 0) {
    message = "DPDK knows no network device " + name + hint;
    return false;
  }
  probed_ = true;
  return kind_ != Kind::af_packet || set_up_packet_sockets(message);
}

bool DpdkDevice::set_up_queues(const rte_eth_dev_info& info, std::uint64_t tx_offloads,
                               std::string& message) {
  auto rx_ring = static_cast<std::uint16_t>(std::min(config_.rx_ring, 32768u));
  auto tx_ring = static_cast<std::uint16_t>(std::min(config_.tx_ring, 32768u));
  rte_eth_dev_adjust_nb_rx_tx_desc(state_.port, &rx_ring, &tx_ring);
  if (!check_rings(rx_ring, tx_ring, message)) return false;
  if (kind_ == Kind::pci) state_.ring_packets = rx_ring + tx_ring;
  if (kind_ == Kind::af_xdp) rx_ring = tx_ring = static_cast<std::uint16_t>(af_xdp_ring(config_));
  constexpr auto kAnyNode = static_cast<unsigned>(SOCKET_ID_ANY);
  rte_eth_txconf tx = info.default_txconf;
  tx.offloads = tx_offloads;
  for (std::uint16_t q = 0; q < config_.queues; ++q) {
    rte_mempool* pool = pools_[pool_count() == 1 ? 0 : q]->mempool();
    const int rx_result = rte_eth_rx_queue_setup(state_.port, q, rx_ring, kAnyNode, nullptr, pool);
    const int tx_result = rte_eth_tx_queue_setup(state_.port, q, tx_ring, kAnyNode, &tx);
    if (rx_result == 0 && tx_result == 0) continue;
    message = "queue " + std::to_string(q) + " of " + config_.port + " cannot be set up: " + log_last_error();
    return false;
  }
  return kind_ != Kind::af_xdp || set_up_xdp(message);
}

// What the driver has made of the queues so far are sockets and their memory.
bool DpdkDevice::set_up_xdp(std::string& message) {
  const auto sockets = xsks();
  std::size_t marks = 0;
  for (const Xsk* x : sockets) marks = std::max<std::size_t>(marks, x->size / x->frame_size + 1);
  xdp_queues_ = XdpQueues::create(config_.queues, marks);
  for (std::uint32_t q = 0; q < config_.queues; ++q) {
    af_xdp_prepare(*sockets[q]);
    if (xdp_queues_ != nullptr && xdp_queues_->add(*sockets[q], *pools_[q], af_xdp_ring(config_))) continue;
    message = std::string("no memory for the frames of ") + config_.port + ": " + strerror(errno);
    return false;
  }
  // Above the driver there is a way out for frames of 64 KB with their checksums left out, which these sockets do not have.
  for (std::uint32_t q = 0; sharing_.generic && q < config_.queues; ++q) {
    const int fd = open_sending_socket(static_cast<int>(sockets[q]->ifindex), config_.tx_ring);
    if (fd < 0) break;
    sending_sockets_.push_back(fd);
  }
  if (sending_sockets_.size() != config_.queues) sending_sockets_.clear();
  state_.tx_checksum = !sending_sockets_.empty();
  return true;
}

// How many queues it is to be, now that the device has told what it has.
bool DpdkDevice::settle_queues(const rte_eth_dev_info& info, std::string& message) {
  const std::uint32_t has = std::min(info.max_rx_queues, info.max_tx_queues);
  // A NIC without RSS has no use for several.
  const bool spreads = kind_ != Kind::pci || info.flow_type_rss_offloads != 0;
  if (automatic_queues_) config_.queues = spreads ? std::min(config_.queues, has) : 1;
  if (config_.queues > 0 && config_.queues <= has) return true;
  message = config_.port + " has " + std::to_string(has) + " queues; set queues to that or less";
  return false;
}

// What the stacks have in common.
bool DpdkDevice::create_control_block(const rte_eth_dev_info& info, std::string& message) {
  if (!is_shared()) return true;
  entries_ = steering_entries(info);
  shared_ = SharedState::create({.frame = frame(), .slots = SharedState::slots(), .entries = entries_});
  if (shared_ != nullptr && fanout_ != nullptr)
    fanout_->begin(FlowHash(FlowHash::make_key(shared_->control().secrets())), entries_, config_.queues);
  if (shared_ != nullptr) return true;
  message = std::string("no memory or descriptors for what the stacks of a device share: ") + strerror(errno);
  return false;
}

bool DpdkDevice::configure(std::string& message) {
  rte_eth_dev_info info{};
  rte_ether_addr mac{};
  log_clear();
  if (rte_eth_dev_info_get(state_.port, &info) != 0 || rte_eth_macaddr_get(state_.port, &mac) != 0) {
    message = "DPDK tells nothing about " + config_.port + ": " + log_last_error();
    return false;
  }
  if (!settle_queues(info, message) || !create_control_block(info, message) || !create_pools(message)) return false;
  rte_eth_conf conf{};
  conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
  constexpr std::uint64_t kChecksum = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
  conf.txmode.offloads = info.tx_offload_capa & (kChecksum | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
  if (kind_ == Kind::pci) conf.rxmode.mtu = config_.mtu;
  configure_rss(info, conf);
  const auto n = static_cast<std::uint16_t>(config_.queues);
  if (rte_eth_dev_configure(state_.port, n, n, &conf) != 0) {
    message = config_.port + " does not take its configuration: " + log_last_error();
    return false;
  }
  std::ranges::copy(mac.addr_bytes, state_.mac.bytes.begin());
  state_.mtu = config_.mtu;
  state_.tx_checksum = (conf.txmode.offloads & kChecksum) != 0 || (!rings_.empty() && rings_.front().offload) ||
                       kind_ == Kind::memif;  // memif_copy.hh
  return set_up_queues(info, conf.txmode.offloads, message);
}

bool DpdkDevice::start(std::string& message) {
  log_clear();
  state_.started = rte_eth_dev_start(state_.port) == 0;
  if (state_.started && (kind_ == Kind::af_xdp || sharing_.shared)) return attach_program(message);
  // Where it can't be had, the ports tell of what the kernel does with its copies (AddressWatch).
  if (state_.started && kind_ == Kind::af_packet && !config_.addresses.empty())
    (void)program_.attach_guard(interface_of(config_.port), config_.addresses);
  // A memif client may be there before its server; its port goes on trying.
  if (state_.started) return spread(message);
  if (kind_ == Kind::memif) return true;
  message = config_.port + " does not start: " + log_last_error();
  return false;
}

bool DpdkDevice::attach_program(std::string& message) {
  if (sharing_.shared) {
    shared_ports_ = SharedPorts::create(MTCP_SHARE_ADDRESSES);
    if (shared_ports_ == nullptr) {
      message = std::string("the kernel makes no map of shared ports: ") + strerror(errno);
      return false;
    }
    std::vector<IpAddress> addresses;
    for (const std::uint32_t a : config_.addresses) addresses.push_back(IpAddress::v4(a));
    shared_ports_->add(addresses.empty() ? addresses_of(interface_of(config_.port)) : addresses);
  }
  if (sharing_.tagged) return program_.attach_classifier(interface_of(config_.port), *shared_ports_, message);
  return program_.attach(interface_of(config_.port), sharing_, shared_ports_.get(), message);
}

bool DpdkDevice::open(std::string& message) {
  if (!check(message) || !start_environment(message)) return false;
  set_thread_number(0);
  if (!probe(message) || !configure(message) || !start(message)) return false;
  state_.claims = Claims::create(most_queues());
  if (state_.claims == nullptr) message = "no memory for the table of queues";
  return state_.claims != nullptr;
}

}  // namespace dpdk

}  // namespace mtcp::stack

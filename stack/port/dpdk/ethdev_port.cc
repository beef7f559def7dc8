#include "stack/port/dpdk/ethdev_port.hh"

#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "stack/port/dpdk/eal/eal.hh"
#include "stack/port/dpdk/eal/interrupts.hh"

namespace mtcp::stack::dpdk {

namespace {

class InDriver {
 public:
  explicit InDriver(MbufPool& pool) : pool_(pool) { pool.enter_driver(); }
  ~InDriver() { pool_.leave_driver(); }
  InDriver(const InDriver&) = delete;
  InDriver& operator=(const InDriver&) = delete;

 private:
  MbufPool& pool_;
};

}  // namespace

EthdevPort::EthdevPort(DeviceState& state, std::uint16_t index, MbufPool& pool)
    : state_(state), index_(index), pool_(pool), number_(index), owner_(getpid()) {
  set_thread_number(number_);
  update_link();
}

EthdevPort::~EthdevPort() {
  if (in_owner()) state_.claims->release(index_);
}

bool EthdevPort::in_owner() const { return owner_ == getpid(); }

// A buffer has room for the MTU, but some cards use less of it (e1000: a power of two; igb: whole KiB) and
// spread large frames over several. False if the frame is larger than the first of them.
bool EthdevPort::gather(rte_mbuf* m) {
  if (m->pkt_len > std::size_t{m->buf_len} - m->data_off) return false;
  auto* to = rte_pktmbuf_mtod_offset(m, std::byte*, m->data_len);
  for (const rte_mbuf* part = m->next; part != nullptr; part = part->next) {
    memcpy(to, rte_pktmbuf_mtod(part, const std::byte*), part->data_len);
    to += part->data_len;
  }
  rte_pktmbuf_free(m->next);
  m->next = nullptr;
  m->nb_segs = 1;
  m->data_len = static_cast<std::uint16_t>(m->pkt_len);
  return true;
}

bool EthdevPort::import(rte_mbuf* m) {
  Packet* p = packet_of(m);
  p->reset();
  if (m->nb_segs != 1 && !gather(m)) [[unlikely]] {
    rte_pktmbuf_free(m);
    ++dropped_;
    return false;
  }
  pool_.take_from_device(m);
  p->data = p->buf + m->data_off;
  p->len = m->data_len;
  // None: the field is not filled in, but the data is known to be right (virtio, from the same machine).
  const std::uint64_t checksum = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  if (checksum == RTE_MBUF_F_RX_L4_CKSUM_GOOD || checksum == RTE_MBUF_F_RX_L4_CKSUM_NONE) p->flags = kRxL4Good;
  if ((m->ol_flags & RTE_MBUF_F_RX_RSS_HASH) != 0) {
    p->flags = static_cast<std::uint16_t>(p->flags | kRxHash);
    p->payload_sum = m->hash.rss;
  }
  return true;
}

std::size_t EthdevPort::rx(Packet** out, std::size_t max) {
  if (!state_.started) return 0;
  set_thread_number(number_);
  std::array<rte_mbuf*, kBurst> mbufs;
  const auto want = static_cast<std::uint16_t>(std::min(max, kBurst));
  const InDriver in_driver(pool_);
  const std::size_t n = rte_eth_rx_burst(state_.port, index_, mbufs.data(), want);
  std::size_t taken = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (i + 4 < n) __builtin_prefetch(packet_of(mbufs[i + 4]), 1);
    if (import(mbufs[i])) out[taken++] = packet_of(mbufs[i]);
  }
  return taken;
}

// The device wants the checksum of the pseudo header in the field, and to know where the headers lie.
void EthdevPort::request_checksum(rte_mbuf* m, Packet* p) {
  auto* ethernet = reinterpret_cast<rte_ether_hdr*>(p->data);
  m->l2_len = sizeof *ethernet;
  void* ip = ethernet + 1;
  if (ethernet->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4)) {
    auto* v4 = static_cast<rte_ipv4_hdr*>(ip);
    m->l3_len = rte_ipv4_hdr_len(v4) & 0x1ff;
    auto* tcp = reinterpret_cast<rte_tcp_hdr*>(static_cast<std::byte*>(ip) + rte_ipv4_hdr_len(v4));
    tcp->cksum = rte_ipv4_phdr_cksum(v4, 0);
    m->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
  } else {
    auto* v6 = static_cast<rte_ipv6_hdr*>(ip);
    m->l3_len = sizeof *v6;
    reinterpret_cast<rte_tcp_hdr*>(v6 + 1)->cksum = rte_ipv6_phdr_cksum(v6, 0);
    m->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV6;
  }
}

std::size_t EthdevPort::tx(Packet* const* packets, std::size_t n) {
  if (!state_.started) return 0;
  set_thread_number(number_);
  std::array<rte_mbuf*, kBurst> mbufs;
  const InDriver in_driver(pool_);
  std::size_t sent = 0;
  while (sent < n) {
    const auto chunk = static_cast<std::uint16_t>(std::min(n - sent, kBurst));
    for (std::uint16_t i = 0; i < chunk; ++i) {
      Packet* p = packets[sent + i];
      rte_mbuf* m = mbufs[i] = mbuf_of(p);
      m->data_off = static_cast<std::uint16_t>(p->data - p->buf);
      m->data_len = static_cast<std::uint16_t>(p->len);
      m->pkt_len = p->len;
      m->ol_flags = 0;
      if ((p->flags & kTxL4Offload) != 0) request_checksum(m, p);
      pool_.give_to_device(m, (p->flags & kKeep) != 0);
    }
    const std::uint16_t taken = rte_eth_tx_burst(state_.port, index_, mbufs.data(), chunk);
    for (std::uint16_t i = taken; i < chunk; ++i)
      pool_.take_back(mbufs[i], (packets[sent + i]->flags & kKeep) != 0);
    sent += taken;
    if (taken < chunk) break;
  }
  return sent;
}

bool EthdevPort::busy(const Packet& p) const { return rte_mbuf_refcnt_read(mbuf_of(&p)) > 1; }

void EthdevPort::update_link() {
  if (!state_.started) {
    link_up_ = false;
    return;
  }
  rte_eth_link link{};
  link_up_ = rte_eth_link_get_nowait(state_.port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

void EthdevPort::control(Time now) {
  interrupts().poll();
  if (now < next_link_) return;
  next_link_ = now + milliseconds(100);
  update_link();
}

void EthdevPort::service(Time now) {
  if (now < next_control_) return;
  next_control_ = now + milliseconds(1);
  set_thread_number(number_);
  control(now);
}

}  // namespace mtcp::stack::dpdk

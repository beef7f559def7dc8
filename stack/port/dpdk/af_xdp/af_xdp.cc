#include "stack/port/dpdk/af_xdp/af_xdp.hh"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>

#include "stack/base/bytes.hh"
#include "stack/port/dpdk/af_xdp/xdp_program.hh"
#include "stack/port/dpdk/eal/eal.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/pool.hh"
#include "stack/port/dpdk/share/sharing.hh"
#include "stack/steering/control_block.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/frame.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack::dpdk {

namespace {

// A frame, with its mbuf's header and the kernel's part, is no larger than a page: so the largest data room
// that leaves space for those is 3 KiB.
bool fits(std::uint32_t mtu) { return MbufPool::data_room(mtu + 18 + kXdpHeadroom) <= 3072 + kHeadroom; }

std::uint32_t largest_mtu() {
  std::uint32_t mtu = 1500;
  while (fits(mtu + 1)) ++mtu;
  return mtu;
}

bool misconfigured(const DeviceConfig& config) {
  if (config.misconfigured != nullptr) *config.misconfigured = true;
  return false;
}

}  // namespace

std::uint32_t af_xdp_ring(const DeviceConfig& config) {
  return std::bit_ceil(std::clamp(std::max(config.rx_ring, config.tx_ring), 64u, kXdpReceiveFrames));
}

std::string af_xdp_arguments(const DeviceConfig& config) {
  std::string port = without_sharing(config.port);
  const auto add = [&](const char* key, std::uint32_t value) {
    if (value_of(port, key).empty()) port += "," + std::string(key) + "=" + std::to_string(value);
  };
  add("queue_count", config.queues);
  // The stack decides when to poll and when to sleep.
  add("busy_budget", 0);
  // The card itself can only use frames that lie in a huge page.
  add("force_copy", uses_huge_pages() ? 0 : 1);
  return port;
}

bool af_xdp_check(const DeviceConfig& config, std::uint32_t& queues, std::uint32_t& mtu,
                  std::string& message) {
  for (const char* key : {"xdp_prog", "shared_umem", "start_queue", "queue_count"}) {
    if (value_of(config.port, key).empty()) continue;
    message = std::string("leave ") + key + "= out of " + config.port +
              "; mtcp uses all queues of the interface, with its own XDP program";
    return misconfigured(config);
  }
  if (!check_interface(config.port, mtu, message)) return false;
  const std::string interface = interface_of(config.port);
  if (!fits(mtu)) {
    message = "an MTU of " + std::to_string(mtu) + " is too large for AF_XDP; set mtu in [device] to " +
              std::to_string(largest_mtu()) + " or less";
    return misconfigured(config);
  }
  // A frame on a queue without a socket goes to the kernel, which answers for a port that it does not know.
  const Channels has = channels_of(interface);
  const bool automatic = queues == 0;
  if (automatic) queues = has.combined;
  if (queues != has.receive || queues > has.combined) {
    message = interface + " receives on " + std::to_string(has.receive) + " queue" +
              (has.receive == 1 ? "" : "s") + ", and AF_XDP needs a socket on each: ";
    message += has.combined == has.receive
                   ? "set queues to " + std::to_string(has.receive) + " or \"auto\""
                   : "run: sudo ethtool -L " + interface + " rx 1 tx 1, and set queues to 1 or \"auto\"";
    return automatic ? false : misconfigured(config);
  }
  if (queues > kMaxStacks) {
    message = interface + " has " + std::to_string(queues) + " queues; run: sudo ethtool -L " + interface +
              " combined " + std::to_string(kMaxStacks);
    return false;
  }
  return may_use_xdp(config.port, message);
}

void af_xdp_prepare(const Xsk& socket) {
  for (const int name : {SO_SNDBUF, SO_SNDBUFFORCE}) (void)set_option(socket.fd, SOL_SOCKET, name, 8 << 20);
}

bool has_partial_checksum(std::span<const std::byte> frame) {
  const TcpLayout at = find_tcp(frame);
  if (at.headers == 0 || at.length > frame.size()) return false;
  std::uint16_t field;
  memcpy(&field, &frame[at.tcp + kTcpChecksumOffset], sizeof field);
  const std::uint64_t pseudo = sum_of_pseudo_header(&frame[at.ip], at.v4, at.length - at.tcp);
  // 0 and 0xffff are the same number.
  return fold_sum(pseudo) % 0xffff == field % 0xffff;
}

AfXdpPort::AfXdpPort(DeviceState& state, std::uint16_t index, PacketPool& pool, UmemFrames& frames,
                     bool on_virtual, bool pieces, int sending_socket, const DeviceConfig& config)
    : state_(state),
      index_(index),
      pool_(pool),
      owner_(getpid()),
      frames_(frames),
      socket_(frames.socket()),
      on_virtual_(on_virtual),
      pieces_(pieces),
      link_(state.watch(interface_of(config.port))) {
  if (sending_socket >= 0) sender_.emplace(sending_socket, true);
  free_.reserve(frames_.send_frames());
  frames_.take_over(free_);
  if (unsent() > 0) kick();
}

AfXdpPort::~AfXdpPort() {
  if (owner_ != getpid()) return;  // the child of a fork: everything is the parent's
  while (Packet* p = cut_.pop_front()) pool_.free(&p, 1);
  state_.claims->release(index_);
}

// --- receiving

// The rings' counters and descriptors lie in memory that other processes of this program have, too.
std::uint32_t AfXdpPort::waiting() const {
  const std::uint32_t n = load(socket_.rx.producer) - load(socket_.rx.consumer);
  return n <= socket_.rx.size ? n : 0;
}

bool AfXdpPort::take(const xdp_desc& descriptor, Packet* p) const {
  const std::uint64_t at = xsk_umem__add_offset_to_addr(descriptor.addr);
  if (descriptor.len > p->tailroom() || at > socket_.size || socket_.size - at < descriptor.len) return false;
  memcpy(p->data, socket_.area + at, descriptor.len);
  p->len = descriptor.len;
  if (on_virtual_ && has_partial_checksum(p->bytes())) p->flags = kRxL4Good;
  return true;
}

std::size_t AfXdpPort::rx(Packet** out, std::size_t max) {
  if (pieces_) return rx_pieces(out, max);
  std::array<Packet*, kBurst> fresh;
  const std::size_t there = std::min({max, kBurst, std::size_t{waiting()}});
  if (there == 0) return 0;
  const std::size_t stock = pool_.alloc(fresh.data(), there);
  const std::uint32_t from = load(socket_.rx.consumer);
  const std::uint32_t to = load(socket_.fill.producer);
  // Without packets what comes is dropped, as a card does it: nobody may wait for a ring that stands still.
  const auto n = static_cast<std::uint32_t>(stock > 0 ? stock : there);
  std::size_t taken = 0;
  for (std::uint32_t i = 0; i < n; ++i) {
    const xdp_desc descriptor = *xsk_ring_cons__rx_desc(&socket_.rx, from + i);
    if (i >= stock) {
      ++dropped_;
    } else if (take(descriptor, fresh[i])) {
      out[taken++] = fresh[i];
    } else {
      pool_.free(&fresh[i], 1);
      ++dropped_;
    }
    *xsk_ring_prod__fill_addr(&socket_.fill, to + i) = xsk_umem__extract_addr(descriptor.addr);
  }
  // In this order: UmemFrames::take_over().
  store(socket_.fill.producer, to + n);
  store(socket_.rx.consumer, from + n);
  wake_driver();
  return taken;
}

// A card that ran out of frames.
void AfXdpPort::wake_driver() {
  if (xsk_ring_prod__needs_wakeup(&socket_.fill) != 0) system_call(SYS_recvfrom, socket_.fd, 0, 0, MSG_DONTWAIT, 0, 0);
}

const char* AfXdpPort::way() const {
  if (pieces_) return "xdp-generic";
  xdp_options options{};
  socklen_t size = sizeof options;
  const bool known = system_call(SYS_getsockopt, socket_.fd, SOL_XDP, XDP_OPTIONS, reinterpret_cast<long>(&options), reinterpret_cast<long>(&size)) == 0;
  return known && (options.flags & XDP_OPTIONS_ZEROCOPY) != 0 ? "xdp-zero-copy" : "xdp-copy";
}

Port::Status AfXdpPort::status() const {
  Status s{.rx_dropped = dropped_, .by = way(), .packets_free = pool_.available()};
  if (sender_) s.tx_dropped = sender_->dropped(), s.tx_merged = sender_->merged();
  xdp_statistics lost{};
  socklen_t size = sizeof lost;
  if (system_call(SYS_getsockopt, socket_.fd, SOL_XDP, XDP_STATISTICS, reinterpret_cast<long>(&lost),
                  reinterpret_cast<long>(&size)) >= 0)
    s.rx_dropped += lost.rx_dropped + lost.rx_ring_full;
  return s;
}

// --- sending

std::uint32_t AfXdpPort::unsent() const {
  return std::min(load(socket_.tx.producer) - load(socket_.tx.consumer), socket_.tx.size);
}

void AfXdpPort::put(const Packet& p, std::uint32_t place) {
  const std::uint32_t frame = free_.back();
  free_.pop_back();
  frames_.mark_sent(frame, place);
  const std::uint64_t address = frames_.address(frame);
  memcpy(socket_.area + address + frames_.send_offset(), p.data, p.len);
  *xsk_ring_prod__tx_desc(&socket_.tx, place) = {
      address | std::uint64_t{frames_.send_offset()} << XSK_UNALIGNED_BUF_OFFSET_SHIFT, p.len, 0};
}

// The kernel sends 32 at a time. What it has no room for stays in the ring for the next time.
void AfXdpPort::kick() const {
  for (std::uint32_t left = unsent() / 32 + 1; left > 0; --left) {
    if (system_call(SYS_sendto, socket_.fd, 0, 0, MSG_DONTWAIT, 0, 0) >= 0) return;
    if (errno != EAGAIN && errno != EBUSY) return;
  }
}

std::size_t AfXdpPort::tx(Packet* const* packets, std::size_t n) {
  if (!link_->up()) return 0;
  if (sender_) {
    const std::size_t sent = sender_->send(packets, n);
    if (sender_->lost_link()) link_->look_soon();
    return sent;
  }
  frames_.collect(free_);
  const std::uint32_t first = load(socket_.tx.producer);
  std::uint32_t place = first;
  std::size_t taken = 0;
  while (taken < n) {
    Packet* p = packets[taken];
    if (p->len <= frames_.send_room()) [[likely]] {
      if (free_.empty() || place - load(socket_.tx.consumer) >= socket_.tx.size) break;
      put(*p, place++);
    }
    ++taken;
    if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
  }
  store(socket_.tx.producer, place);
  if (unsent() > 0) kick();
  return taken;
}

void AfXdpPort::service(Time now) {
  if (sender_) sender_->try_again();
  if (now < next_control_) return;
  next_control_ = now + milliseconds(1);
  link_->look(now);
  if (unsent() > 0 && link_->up()) kick();
}

}  // namespace mtcp::stack::dpdk

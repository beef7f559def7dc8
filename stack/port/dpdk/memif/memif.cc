#include "stack/port/dpdk/memif/memif.hh"

#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_version.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <utility>

#include "stack/port/dpdk/eal/eal.hh"
#include "stack/port/dpdk/eal/interrupts.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/memif/memif_guard.hh"

namespace mtcp::stack::dpdk {

// The driver's view of a queue, which it gives no access to. Every use is checked: the version here, the
// contents in connected(). A connection that does not look like that is given up.
static_assert(RTE_VERSION >= RTE_VERSION_NUM(22, 11, 0, 0) && RTE_VERSION < RTE_VERSION_NUM(22, 12, 0, 0),
              "compare MemifQueue with struct memif_queue of this DPDK");
struct MemifQueue {
  rte_mempool* mempool;
  void* device;
  int type;  // 0: client to server
  std::uint16_t region;
  std::uint16_t in_port;
  std::uint32_t ring_offset;
  std::uint16_t last_head;
  std::uint16_t last_tail;
  rte_mbuf** buffers;
  std::uint64_t packets;
  std::uint64_t bytes;
  rte_intr_handle* interrupt;
  std::uint8_t log2_ring_size;
};

namespace {

constexpr std::uint32_t kCookie = 0x3E31F20;
constexpr std::uint16_t kMaskInterrupt = 1;
constexpr std::uint32_t kUsualBuffer = 2048;  // bytes
constexpr Duration kRetry = milliseconds(50);
// So long two ends that are started together may take.
constexpr Duration kPatience = seconds(1);

bool has_key(const std::string& port, const char* key) {
  return port.find("," + std::string(key) + "=") != port.npos;
}

// A locally administered address, from what tells this end of the wire.
std::string stable_mac(const std::string& port) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : port) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char text[24];
  snprintf(text, sizeof text, "02:%02x:%02x:%02x:%02x:%02x", static_cast<unsigned>(hash >> 8 & 0xff),
           static_cast<unsigned>(hash >> 16 & 0xff), static_cast<unsigned>(hash >> 24 & 0xff),
           static_cast<unsigned>(hash >> 32 & 0xff), static_cast<unsigned>(hash >> 40 & 0xff));
  return text;
}

MemifQueue* queue(void* const* table, std::uint16_t index) {
  return table == nullptr ? nullptr : static_cast<MemifQueue*>(table[index]);
}

MemifRing* ring_of(const MemifQueue& q) {
  const std::span<std::byte> region = memif_region();
  if (q.region != 0 || q.ring_offset % alignof(MemifRing) != 0 ||
      q.ring_offset + sizeof(MemifRing) > region.size())
    return nullptr;
  auto* ring = reinterpret_cast<MemifRing*>(region.data() + q.ring_offset);
  return ring->cookie == kCookie ? ring : nullptr;
}

std::atomic_ref<std::uint16_t> ring_field(std::uint16_t& field) {
  return std::atomic_ref<std::uint16_t>(field);
}

}  // namespace

std::string memif_arguments(const DeviceConfig& config) {
  std::string port = config.port;
  if (!has_key(port, "mac")) port += ",mac=" + stable_mac(config.port);
  const std::uint32_t buffer = std::max(kUsualBuffer, (config.mtu + 18 + 63) / 64 * 64);
  if (!has_key(port, "rsize")) {
    // Large slots are fewer: a ring of many megabytes would lead out of every cache.
    const std::uint32_t wanted = std::max(config.rx_ring, config.tx_ring) * kUsualBuffer / buffer;
    const std::uint32_t slots = std::clamp(wanted, 64u, 16384u);
    port += ",rsize=" + std::to_string(std::bit_width(std::bit_ceil(slots)) - 1);
  }
  if (!has_key(port, "bsize")) port += ",bsize=" + std::to_string(buffer);
  return port;
}

bool memif_check(const DeviceConfig& config, std::string& message) {
  const std::string chosen = value_of(config.port, "bsize");
  const std::uint32_t frame = config.mtu + 14;
  if (chosen.empty() || strtoul(chosen.c_str(), nullptr, 10) >= frame) return true;
  message = "bsize=" + chosen + " in " + config.port + " holds no frame of mtu = " + std::to_string(config.mtu) +
            ": leave it out, or set it to " + std::to_string(frame) + " or more on both ends";
  if (config.misconfigured != nullptr) *config.misconfigured = true;
  return false;
}

std::string memif_hint(const DeviceConfig& config) {
  if (config.port.find("role=server") == std::string::npos) return {};
  return "; is another process the server of this memif socket already? ({worker} in socket= gives each its "
         "own)";
}

// The driver's own ways to receive and to send believe what the peer has written into the rings: nothing goes through
// them.
std::size_t MemifPort::rx(Packet** out, std::size_t max) {
  if (!receiver_.attached()) return 0;
  const std::size_t want = std::min<std::size_t>(max, receiver_.waiting());
  if (want == 0 || is_between_peers_) return 0;  // the next peer's frames wait until that has been taken note of
  const std::size_t have = pool_.alloc(out, want);
  // Without packets what comes is dropped, as a card does it: nobody may wait for a ring that stands still.
  if (have == 0) [[unlikely]] {
    dropped_ += receiver_.discard(want);
    return 0;
  }
  const std::size_t n = receiver_.receive(out, have, dropped_);
  if (n < have) pool_.free(out + n, have - n);
  return n;
}

std::size_t MemifPort::tx(Packet* const* packets, std::size_t n) {
  if (!sender_.attached()) return 0;
  const std::size_t sent = send(packets, n);
  // Between filling the ring and looking at the peer's mask there must be a barrier, or the mask seen is that of before
  // while the peer, unmasking, sees the ring of before: a wake-up would be lost.
  if (sent > 0) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if ((ring_field(tx_ring_->flags).load(std::memory_order_relaxed) & kMaskInterrupt) == 0) {
      const std::uint64_t one = 1;
      system_call(SYS_write, tx_event_, reinterpret_cast<long>(&one), sizeof one);
    }
  }
  return sent;
}

std::size_t MemifPort::send(Packet* const* packets, std::size_t n) {
  const std::size_t sent = sender_.send(packets, n);
  // Copied: what the caller does not keep goes back to the pool.
  std::array<Packet*, kBurst> done;
  std::size_t count = 0;
  for (std::size_t i = 0; i < sent; ++i) {
    Packet* p = packets[i];
    if ((p->flags & kKeep) != 0) continue;
    if (p->pool != &pool_) [[unlikely]] {
      p->pool->free(&p, 1);
      continue;
    }
    done[count++] = p;
    if (count == done.size()) pool_.free(done.data(), std::exchange(count, 0));
  }
  if (count > 0) pool_.free(done.data(), count);
  return sent;
}

bool MemifPort::arm() {
  if (!receiver_.attached()) return true;
  armed_ = true;
  ring_field(rx_ring_->flags).store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return receiver_.waiting() == 0;  // another thread may be asleep already: who asked disarms
}

// The wake-up is taken note of, not read: the descriptor is the peer's as well, and could block.
void MemifPort::disarm() {
  if (!armed_) return;
  armed_ = false;
  ring_field(rx_ring_->flags).store(kMaskInterrupt, std::memory_order_relaxed);
  look();
}

Duration MemifPort::max_sleep() const { return receiver_.attached() ? milliseconds(20) : kRetry; }

bool MemifPort::connected() {
  const struct rte_eth_fp_ops& ops = ::rte_eth_fp_ops[state_.port];
  const MemifQueue* rx = queue(ops.rxq.data, index_);
  const MemifQueue* tx = queue(ops.txq.data, index_);
  if (rx == nullptr || tx == nullptr || rx->mempool != pool_.mempool() || rx->in_port != state_.port ||
      tx->in_port != state_.port || rx->type == tx->type || (rx->type & ~1) != 0 || (tx->type & ~1) != 0)
    return false;
  rx_ring_ = ring_of(*rx);
  tx_ring_ = ring_of(*tx);
  rx_event_ = rte_intr_fd_get(rx->interrupt);
  tx_event_ = rte_intr_fd_get(tx->interrupt);
  if (rx_ring_ == nullptr || tx_ring_ == nullptr || rx_event_ < 0 || tx_event_ < 0) return false;
  interrupts().watch(rx_event_, Interrupts::Trigger::edge);
  return sender_.attach(memif_region(), *tx_ring_, tx->log2_ring_size, tx->type == 0) &&
         receiver_.attach(memif_region(), *rx_ring_, rx->log2_ring_size, rx->type != 0);
}

// The driver has unmapped the rings and closed their descriptors.
void MemifPort::disconnected() {
  armed_ = false;
  sender_.detach();
  receiver_.detach();
  rx_ring_ = tx_ring_ = nullptr;
  rx_event_ = tx_event_ = -1;
}

// What the control connection and the wake-ups have brought.
void MemifPort::look() {
  // When the driver hears that the peer has gone it unmaps the rings: the last frames, FINs and resets, are read before.
  interrupts().poll([this](int fd) {
    return receiver_.attached() && memif_guard().is_connected(fd) && receiver_.waiting() != 0;
  });
  const bool was_up = link_up_;
  update_link();
  if (was_up && !link_up_) {
    is_between_peers_ = memif_guard().peer_is_stack();
    if (is_between_peers_) ++peers_ended_;
    disconnected();
  }
  if (was_up || !link_up_ || connected()) return;
  notice_ = "the peer's rings are not such as this end understands: disconnected";
  disconnected();
  restart();
}

void MemifPort::restart() {
  if (state_.started) rte_eth_dev_stop(state_.port);
  state_.started = rte_eth_dev_start(state_.port) == 0;
  update_link();
}

// Whoever calls it looks at link() afterwards.
void MemifPort::service(Time now) {
  EthdevPort::service(now);
  is_between_peers_ = false;
}

void MemifPort::control(Time now) {
  if (descriptor_ < 0) descriptor_ = interrupts().descriptor();
  look();
  complain(now);
  if (link_up_ || now < next_attempt_ || interrupts().count() > 0) return;
  // A client whose server is not there, or went away: the driver tries once per start.
  next_attempt_ = now + kRetry;
  restart();
}

// Two ends that do not find each other would wait for ever, and nobody would know.
void MemifPort::complain(Time now) {
  const std::string& refusal = memif_guard().refusal();
  if (refusal != refusal_) notice_ = refusal_ = refusal;
  if (link_up_ || down_since_ == Time{}) {
    down_since_ = now;
    if (link_up_) complained_ = false;
  }
  if (link_up_ || complained_ || now - down_since_ < kPatience) return;
  complained_ = true;
  if (!notice_.empty()) return;
  notice_ = "no peer yet: link down. Is the other end running, with the same socket=, the other role= and, if the socket "
            "is abstract, in the same network namespace?";
}

Port::Notice MemifPort::notice() { return {std::exchange(notice_, {})}; }

}  // namespace mtcp::stack::dpdk

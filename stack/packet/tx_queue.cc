#include "stack/packet/tx_queue.hh"

#include <algorithm>
#include <bit>
#include <span>

#include "stack/capture/capture.hh"
#include "stack/port/port.hh"
#include "stack/stats.hh"

namespace mtcp::stack {

namespace {
constexpr std::size_t kBurst = Capture::kBurst;
void set_flag(Packet& p, PacketFlag flag) { p.flags = static_cast<std::uint16_t>(p.flags | flag); }
void clear_flag(Packet& p, PacketFlag flag) { p.flags = static_cast<std::uint16_t>(p.flags & ~flag); }
}  // namespace

TxQueue::TxQueue(std::size_t bound, Stats& stats)
    : bound_(bound), mask_(std::bit_ceil(bound) - 1), stats_(stats) {
  for (Fifo& f : fifos_) f.ring.resize(mask_ + 1);
}

bool TxQueue::add(Packet* p, TxPriority priority) {
  Fifo& f = fifos_[static_cast<std::size_t>(priority)];
  if (f.tail - f.head >= bound_) return false;
  set_flag(*p, kQueued);
  f.ring[f.tail++ & mask_] = p;
  ++size_;
  return true;
}

// A packet that the port has taken may be gone, so it is copied before.
[[gnu::noinline, gnu::cold]] std::size_t TxQueue::send_captured(Packet* const* packets, std::size_t n, Port& port) {
  captures_->offer(packets, n);
  const std::size_t taken = port.tx(packets, n);
  captures_->sent(taken);
  return taken;
}

// False: the port is full.
bool TxQueue::offer(Fifo& f, Port& port) {
  while (f.head != f.tail) {
    const std::size_t at = f.head & mask_;
    const std::size_t n = std::min({f.tail - f.head, mask_ + 1 - at, kBurst});
    std::size_t bytes = 0;
    // Before the port sees them: what it takes without kKeep is no longer ours to touch.
    for (std::size_t i = 0; i < n; ++i) {
      clear_flag(*f.ring[at + i], kQueued);
      bytes += f.ring[at + i]->len;
    }
    const std::size_t taken = captures_ == nullptr ? port.tx(&f.ring[at], n) : send_captured(&f.ring[at], n, port);
    for (std::size_t i = taken; i < n; ++i) {
      set_flag(*f.ring[at + i], kQueued);
      bytes -= f.ring[at + i]->len;
    }
    f.head += taken;
    size_ -= taken;
    stats_.add(Counter::tx_packets, taken);
    stats_.add(Counter::tx_bytes, bytes);
    if (taken < n) {
      stats_.add(Counter::tx_full);
      return false;
    }
  }
  return true;
}

bool TxQueue::flush(Port& port) {
  for (Fifo& f : fifos_)
    if (!offer(f, port)) return false;
  return true;
}

void TxQueue::clear(PacketCache& cache, TxPriority from) {
  for (Fifo& f : std::span(fifos_).subspan(static_cast<std::size_t>(from)))
    for (; f.head != f.tail; ++f.head, --size_) {
      Packet* p = f.ring[f.head & mask_];
      clear_flag(*p, kQueued);
      if ((p->flags & kKeep) == 0) cache.free(p);
    }
}

}  // namespace mtcp::stack

#include "stack/port/dpdk/memif/memif_ring.hh"

#include <algorithm>
#include <atomic>

#include "stack/port/dpdk/memif/memif_copy.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::uint16_t kNext = 1;  // a descriptor's flag: the frame goes on in the next
// The longest frame worth a look ahead: one of 64 KB would drive everything else out of the caches.
constexpr std::size_t kPrefetched = 2048;

template <typename T>
std::atomic_ref<T> shared(T& field) {
  return std::atomic_ref<T>(field);
}

// A field that the peer may change while we look.
template <typename T>
T peek(const T& field) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(std::memory_order_relaxed);
}

}  // namespace

bool MemifDirection::attach(std::span<std::byte> region, MemifRing& ring, unsigned log2_size, bool client) {
  const auto start = static_cast<std::size_t>(reinterpret_cast<std::byte*>(&ring) - region.data());
  const std::size_t size = std::size_t{1} << log2_size;
  if (log2_size < 1 || log2_size > 14 ||
      start + sizeof(MemifRing) + size * sizeof(MemifDescriptor) > region.size())
    return false;
  auto* descriptors = reinterpret_cast<MemifDescriptor*>(&ring + 1);
  if (client) {
    // One after the other, as our driver has laid them out.
    const std::size_t first = peek(descriptors[0].offset);
    const std::size_t step = peek(descriptors[1].offset) - first;
    if (step < 256 || step > UINT16_MAX || first > region.size() || (region.size() - first) / step < size) return false;
    first_buffer_ = first;
    buffer_size_ = static_cast<std::uint32_t>(step);
  }
  region_ = region;
  ring_ = &ring;
  descriptors_ = descriptors;
  size_ = static_cast<std::uint16_t>(size);
  position_ = 0;
  client_ = client;
  return true;
}

std::byte* MemifDirection::buffer(std::uint16_t slot, std::size_t len) const {
  if (client_)
    return len <= buffer_size_ ? region_.data() + first_buffer_ + std::size_t{buffer_size_} * (slot & (size_ - 1)) : nullptr;
  const MemifDescriptor& d = descriptor(slot);
  const std::size_t offset = peek(d.offset);
  if (peek(d.region) != 0 || offset > region_.size() || region_.size() - offset < len) return nullptr;
  return region_.data() + offset;
}

std::uint16_t MemifSender::room() const {
  const std::uint16_t other = client_ ? shared(ring_->tail).load(std::memory_order_acquire)
                                      : shared(ring_->head).load(std::memory_order_acquire);
  const auto free = static_cast<std::uint16_t>(client_ ? size_ - position_ + other : other - position_);
  return free <= size_ ? free : 0;  // more than all: a peer that does not keep to the protocol
}

// A client's ring is empty when the server's tail has come up; a server's when the client has given all slots back.
bool MemifSender::empty() const { return room() == size_; }

std::size_t MemifSender::send(Packet* const* packets, std::size_t n) {
  const std::uint16_t free = room();
  std::size_t sent = 0;
  bool streamed = false;
  for (; sent < n && sent < free; ++sent, ++position_) {
    const Packet& p = *packets[sent];
    MemifDescriptor& d = descriptor(position_);
    const std::size_t space = client_ ? buffer_size_ : peek(d.length);
    const std::size_t lines = whole_lines(p.len), room = lines <= space ? lines : space;
    std::byte* to = p.len <= space ? buffer(position_, room) : nullptr;
    // A frame that does not fit goes out empty: the receiver drops it, as a wire would.
    d.length = to == nullptr ? 0 : p.len;
    d.flags = 0;
    if (to == nullptr) continue;
    streamed = copy_to_ring(to, room, p, stores_) || streamed;
  }
  if (streamed) end_streams();
  shared(client_ ? ring_->head : ring_->tail).store(position_, std::memory_order_release);
  return sent;
}

bool MemifReceiver::attach(std::span<std::byte> region, MemifRing& ring, unsigned log2_size, bool client) {
  if (!MemifDirection::attach(region, ring, log2_size, client)) return false;
  offered_ = 0;
  give_back();
  return true;
}

std::uint16_t MemifReceiver::waiting() const {
  const auto n = static_cast<std::uint16_t>(
      (client_ ? shared(ring_->tail) : shared(ring_->head)).load(std::memory_order_acquire) - position_);
  return n <= size_ ? n : 0;  // more than all: a peer that does not keep to the protocol
}

void MemifReceiver::prefetch(std::uint16_t slot) const {
  const std::size_t len = std::min<std::size_t>(peek(descriptor(slot).length), kPrefetched);
  if (len < kLargeFrame) return;
  const std::byte* from = buffer(slot, len);
  if (from == nullptr) return;
  for (std::size_t i = 0; i < len; i += kCacheLine) __builtin_prefetch(from + i);
}

bool MemifReceiver::append(Packet& p, std::uint16_t slot) const {
  const std::size_t len = peek(descriptor(slot).length);
  const std::byte* from = buffer(slot, len);
  if (from == nullptr || len == 0 || len > p.tailroom()) return false;
  copy_from_ring(p, from, len);
  return true;
}

// All slots before position_ are the sender's again.
void MemifReceiver::give_back() {
  if (!client_) return shared(ring_->tail).store(position_, std::memory_order_release);
  // The client owns the buffers: each free one is offered anew.
  const auto end = static_cast<std::uint16_t>(position_ + size_);
  for (; offered_ != end; ++offered_) descriptor(offered_).length = buffer_size_;
  shared(ring_->head).store(offered_, std::memory_order_release);
}

std::size_t MemifReceiver::receive(Packet* const* packets, std::size_t n, std::uint64_t& dropped) {
  const std::uint16_t there = waiting();
  if (there == 0) return 0;
  const auto end = static_cast<std::uint16_t>(position_ + there);
  std::size_t count = 0;
  while (position_ != end && count < n) {
    Packet& p = *packets[count];
    bool good = true, more = true;
    // A frame may lie in several buffers; one that goes on beyond what is there is cut off and dropped.
    for (; more && position_ != end; ++position_) {
      if (static_cast<std::uint16_t>(position_ + 1) != end) prefetch(static_cast<std::uint16_t>(position_ + 1));
      good = good && append(p, position_);
      more = (peek(descriptor(position_).flags) & kNext) != 0;
    }
    if (good && !more) {
      ++count;
    } else {
      p.reset();
      ++dropped;
    }
  }
  give_back();
  return count;
}

std::size_t MemifReceiver::discard(std::size_t n) {
  const auto end = static_cast<std::uint16_t>(position_ + waiting());
  std::size_t count = 0;
  for (; position_ != end && count < n; ++position_)
    if ((peek(descriptor(position_).flags) & kNext) == 0) ++count;
  give_back();
  return count;
}

}  // namespace mtcp::stack::dpdk

#include "stack/port/dpdk/memif_ring.hh"

#include <emmintrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace mtcp::stack::dpdk {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::uint16_t kNext = 1;  // a descriptor's flag: the frame goes on in the next
// Below this the lines are better left in the caches: the receiver takes them from there.
constexpr std::size_t kStreamFrom = 384;

template <typename T>
std::atomic_ref<T> shared(T& field) {
  return std::atomic_ref<T>(field);
}

// A field that the peer may change while we look.
template <typename T>
T peek(const T& field) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(std::memory_order_relaxed);
}

void stream_line(std::byte* to, const std::byte* from) {
  for (std::size_t i = 0; i < kLine; i += 16) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), v);
  }
}

// `to` is on a line's boundary and has room up to one.
void stream(std::byte* to, const std::byte* from, std::size_t n) {
  std::size_t done = 0;
  for (; done + kLine <= n; done += kLine) stream_line(to + done, from + done);
  if (done == n) return;
  alignas(kLine) std::byte last[kLine] = {};
  std::memcpy(last, from + done, n - done);
  stream_line(to + done, last);
}

std::size_t lines(std::size_t n) { return (n + kLine - 1) / kLine * kLine; }

}  // namespace

bool MemifDirection::attach(std::span<std::byte> region, MemifRing& ring, unsigned log2_size, bool client) {
  const auto start = static_cast<std::size_t>(reinterpret_cast<std::byte*>(&ring) - region.data());
  const std::size_t size = std::size_t{1} << log2_size;
  if (log2_size < 1 || log2_size > 14 ||
      start + sizeof(MemifRing) + size * sizeof(MemifDescriptor) > region.size())
    return false;
  auto* descriptors = reinterpret_cast<MemifDescriptor*>(&ring + 1);
  // The client has laid its buffers out one after the other.
  const std::uint32_t step = descriptors[1].offset - descriptors[0].offset;
  if (step < 256 || step > UINT16_MAX) return false;
  region_ = region;
  ring_ = &ring;
  descriptors_ = descriptors;
  size_ = static_cast<std::uint16_t>(size);
  buffer_size_ = step;
  client_ = client;
  return true;
}

std::uint16_t MemifSender::room(std::uint16_t slot) const {
  const std::uint16_t other = client_ ? shared(ring_->tail).load(std::memory_order_acquire)
                                      : shared(ring_->head).load(std::memory_order_acquire);
  const auto free = static_cast<std::uint16_t>(client_ ? size_ - slot + other : other - slot);
  return free <= size_ ? free : 0;  // more than all: a peer that does not keep to the protocol
}

std::byte* MemifDirection::buffer(const MemifDescriptor& d, std::size_t len) const {
  const std::size_t offset = peek(d.offset);
  if (peek(d.region) != 0 || offset > region_.size() || region_.size() - offset < len) return nullptr;
  return region_.data() + offset;
}

std::size_t MemifSender::send(Packet* const* packets, std::size_t n) {
  std::uint16_t& position = client_ ? ring_->head : ring_->tail;
  std::uint16_t slot = shared(position).load(std::memory_order_relaxed);
  const std::uint16_t free = room(slot);
  std::size_t sent = 0;
  bool streamed = false;
  for (; sent < n && sent < free; ++sent, ++slot) {
    const Packet& p = *packets[sent];
    MemifDescriptor& d = descriptor(slot);
    const std::size_t space = client_ ? buffer_size_ : peek(d.length);
    const bool whole_lines = lines(p.len) <= space;
    std::byte* to = p.len <= space ? buffer(d, whole_lines ? lines(p.len) : p.len) : nullptr;
    // A frame that does not fit goes out empty: the receiver drops it, as a wire would.
    d.length = to == nullptr ? 0 : p.len;
    d.flags = 0;
    if (to == nullptr) continue;
    if (p.len < kStreamFrom || !whole_lines || reinterpret_cast<std::uintptr_t>(to) % kLine != 0) {
      std::memcpy(to, p.data, p.len);
    } else {
      stream(to, p.data, p.len);
      streamed = true;
    }
  }
  if (streamed) _mm_sfence();  // the stores above are ordered by nothing else
  shared(position).store(slot, std::memory_order_release);
  return sent;
}

std::uint16_t MemifReceiver::waiting(std::uint16_t position) const {
  const auto n = static_cast<std::uint16_t>(
      (client_ ? shared(ring_->tail) : shared(ring_->head)).load(std::memory_order_acquire) - position);
  return n <= size_ ? n : 0;  // more than all: a peer that does not keep to the protocol
}

void MemifReceiver::prefetch(std::uint16_t slot) const {
  const MemifDescriptor& d = descriptor(slot);
  const std::size_t len = std::min<std::size_t>(peek(d.length), buffer_size_);
  const std::byte* from = buffer(d, len);
  if (from == nullptr || len < kStreamFrom) return;
  for (std::size_t i = 0; i < len; i += kLine) __builtin_prefetch(from + i);
}

bool MemifReceiver::append(Packet& p, const MemifDescriptor& d) const {
  const std::size_t len = peek(d.length);
  const std::byte* from = buffer(d, len);
  if (from == nullptr || len == 0 || len > p.tailroom()) return false;
  std::memcpy(p.end(), from, len);
  p.len += static_cast<std::uint32_t>(len);
  return true;
}

void MemifReceiver::give_back(std::uint16_t position) const {
  if (!client_) return shared(ring_->tail).store(position, std::memory_order_release);
  // The client owns the buffers: each free one is offered anew.
  std::uint16_t head = shared(ring_->head).load(std::memory_order_relaxed);
  const auto end = static_cast<std::uint16_t>(position + size_);
  for (; head != end; ++head) descriptor(head).length = buffer_size_;
  shared(ring_->head).store(head, std::memory_order_release);
}

std::size_t MemifReceiver::receive(Packet* const* packets, std::size_t n, std::uint16_t& position,
                                   std::uint64_t& dropped) {
  const std::uint16_t there = waiting(position);
  if (there == 0) return 0;
  const auto end = static_cast<std::uint16_t>(position + there);
  std::uint16_t slot = position;
  std::size_t count = 0;
  while (slot != end && count < n) {
    Packet& p = *packets[count];
    bool good = true, more = true;
    // A frame may lie in several buffers; one that goes on beyond what is there is cut off and dropped.
    for (; more && slot != end; ++slot) {
      if (static_cast<std::uint16_t>(slot + 1) != end) prefetch(static_cast<std::uint16_t>(slot + 1));
      const MemifDescriptor& d = descriptor(slot);
      good = good && append(p, d);
      more = (peek(d.flags) & kNext) != 0;
    }
    if (good && !more) {
      ++count;
    } else {
      p.reset();
      ++dropped;
    }
  }
  position = slot;
  give_back(slot);
  return count;
}

std::size_t MemifReceiver::discard(std::size_t n, std::uint16_t& position) {
  const auto end = static_cast<std::uint16_t>(position + waiting(position));
  std::size_t count = 0;
  for (; position != end && count < n; ++position)
    if ((peek(descriptor(position).flags) & kNext) == 0) ++count;
  give_back(position);
  return count;
}

}  // namespace mtcp::stack::dpdk

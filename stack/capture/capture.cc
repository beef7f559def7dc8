#include "stack/capture/capture.hh"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include "stack/packet/external.hh"
#include "stack/wire/ethernet.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t size_of_record(std::size_t captured) {
  return (sizeof(CaptureRecord) + captured + alignof(CaptureRecord) - 1) / alignof(CaptureRecord) * alignof(CaptureRecord);
}

}  // namespace

Capture::Capture(std::span<std::byte> memory, PacketFilter filter, std::uint32_t snap_length)
    : header_(*new (memory.data()) CaptureHeader),
      ring_(memory.subspan(sizeof(CaptureHeader))),
      filter_(std::move(filter)),
      snap_length_(snap_length),
      after_{} {
  assert(std::has_single_bit(ring_.size()) && ring_.size() >= kLeastCaptureRing && ring_.size() <= kMostCaptureRing);
}

// The reader may have written anything there: with a tail that can't be, it gets nothing.
bool Capture::has_room(std::size_t size) const {
  const std::uint64_t used = at_.head - header_.tail.load(std::memory_order_acquire);
  return used <= ring_.size() && size <= ring_.size() - used;
}

CaptureRecord& Capture::append(std::size_t size) {
  auto& record = *new (ring_.data() + (at_.head & (ring_.size() - 1))) CaptureRecord;
  record.size = static_cast<std::uint32_t>(size);
  at_.head += size;
  return record;
}

void Capture::write(std::span<const std::byte> packet, CaptureDirection direction, Time now) {
  if (!filter_.accepts(packet)) return;
  ++at_.accepted;
  const std::size_t captured = std::min<std::size_t>(packet.size(), snap_length_);
  const std::size_t size = size_of_record(captured);
  const std::size_t skipped = size <= rest() ? 0 : rest();
  if (!has_room(skipped + size)) {
    ++at_.dropped;
    return;
  }
  if (skipped != 0) append(skipped).direction = CaptureDirection::none;
  CaptureRecord& record = append(size);
  record.captured = static_cast<std::uint32_t>(captured);
  record.length = static_cast<std::uint32_t>(packet.size());
  record.direction = direction;
  record.time = now.time_since_epoch().count();
  if (captured != 0) std::memcpy(&record + 1, packet.data(), captured);  // nothing has no address
}

void Capture::offer(Packet* const* packets, std::size_t n, Time now) {
  assert(n <= kBurst);
  after_[0] = at_;
  for (std::size_t i = 0; i < n; ++i) {
    if ((packets[i]->flags & kExternal) != 0)
      write(copy_of_frame(*packets[i]), CaptureDirection::out, now);
    else
      write(packets[i]->bytes(), CaptureDirection::out, now);
    after_[i + 1] = at_;
  }
}

void Capture::sent(std::size_t n) {
  at_ = after_[n];  // the others will be offered again
  publish();
}

void Capture::publish() {
  header_.accepted.store(at_.accepted, std::memory_order_relaxed);
  header_.dropped.store(at_.dropped, std::memory_order_relaxed);
  header_.head.store(at_.head, std::memory_order_release);
}

bool CaptureSet::add(Capture& capture) {
  if (count_ == kMost) return false;
  captures_[count_++] = &capture;
  return true;
}

void CaptureSet::remove(Capture& capture) {
  auto* const end = captures_.data() + count_;
  count_ = static_cast<std::size_t>(std::remove(captures_.data(), end, &capture) - captures_.data());
}

void CaptureSet::received(Packet* const* packets, std::size_t n) {
  const Time now = clock_();
  for (Capture* c : all()) {
    for (std::size_t i = 0; i < n; ++i) {
      if ((packets[i]->flags & (kHandover | kPull)) == 0) c->receive(packets[i]->bytes(), now);
    }
    c->publish();
  }
}

// Each packet on the loopback wire has been sent from here, so it has room for headers that it did not need.
void CaptureSet::looped(Packet& packet) {
  if (packet.len == 0 || packet.headroom() < kEthernetHeader) return;
  const bool v6 = std::to_integer<unsigned>(packet.data[0]) >> 4 == 6;
  write_ethernet(packet.push(kEthernetHeader), {.type = v6 ? kEtherIpv6 : kEtherIpv4});
  const Time now = clock_();
  for (Capture* c : all()) {
    c->receive(packet.bytes(), now);
    c->publish();
  }
  packet.pull(kEthernetHeader);
}

void CaptureSet::offer(Packet* const* packets, std::size_t n) {
  const Time now = clock_();
  for (Capture* c : all()) c->offer(packets, n, now);
}

void CaptureSet::sent(std::size_t n) {
  for (Capture* c : all()) c->sent(n);
}

}  // namespace mtcp::stack

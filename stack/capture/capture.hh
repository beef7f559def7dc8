// Copies of what a stack receives and sends, for readers in other processes (mtcp-dump). The copy is taken where packets come from the
// port and go to it, so it is the same for all devices; what leaves the loopback wire gets an Ethernet header, as the kernel's does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/base/time.hh"
#include "stack/capture/filter.hh"
#include "stack/capture/ring.hh"
#include "stack/packet/packet.hh"

namespace mtcp::stack {

// One reader's. Never waits: what does not fit into the ring is dropped and counted.
class Capture {
 public:
  // Packets of one offer(), at most.
  static constexpr std::size_t kBurst = 64;

  // `memory`: zeroed, a CaptureHeader and the ring, whose size is a power of two; outlives the Capture. `snap_length`: bytes of each
  // packet that are copied, at most.
  Capture(std::span<std::byte> memory, PacketFilter filter, std::uint32_t snap_length);

  void receive(std::span<const std::byte> packet, Time now) { write(packet, CaptureDirection::in, now); }
  // Before they are sent, because they may be gone afterwards; sent() says how many of them were.
  void offer(Packet* const* packets, std::size_t n, Time now);
  void sent(std::size_t n);
  // The reader may see what has been written.
  void publish();

 private:
  struct Place {
    std::uint64_t head = 0, accepted = 0, dropped = 0;
  };
  void write(std::span<const std::byte> packet, CaptureDirection direction, Time now);
  CaptureRecord& append(std::size_t size);
  [[nodiscard]] bool has_room(std::size_t size) const;
  [[nodiscard]] std::size_t rest() const { return ring_.size() - (at_.head & (ring_.size() - 1)); }

  CaptureHeader& header_;
  std::span<std::byte> ring_;
  PacketFilter filter_;
  std::uint32_t snap_length_;
  Place at_;                             // ours: what the header says is the reader's to spoil
  std::array<Place, kBurst + 1> after_;  // so many packets of the last offer()
};

// All readers of one stack.
class CaptureSet {
 public:
  static constexpr std::size_t kMost = 4;
  using Clock = Time (*)();

  // `clock`: what packets are dated by, when there is a reader.
  explicit CaptureSet(Clock clock) : clock_(clock) {}

  // False: there are kMost already. `capture` stays the caller's until remove().
  [[nodiscard]] bool add(Capture& capture);
  void remove(Capture& capture);
  [[nodiscard]] bool empty() const { return count_ == 0; }

  void received(Packet* const* packets, std::size_t n);
  void looped(Packet& packet);
  void offer(Packet* const* packets, std::size_t n);
  void sent(std::size_t n);

 private:
  [[nodiscard]] std::span<Capture* const> all() const { return {captures_.data(), count_}; }

  Clock clock_;
  std::array<Capture*, kMost> captures_{};
  std::size_t count_ = 0;
};

}  // namespace mtcp::stack

// Packets in ordinary memory: for tests, and for a stack that has the loopback wire only.
#pragma once

#include <cstdint>
#include <vector>

#include "stack/packet/packet.hh"

namespace mtcp::stack {

// Grows by chunks of fresh pages up to its capacity; pages are touched only when a packet in them is first
// used. Used by one worker at a time (not thread-safe). All packets have come back before it is destroyed.
class HeapPool final : public PacketPool {
 public:
  // `capacity`: packets; `buffer_size`: bytes of each buffer, headroom included, at most 65535.
  explicit HeapPool(std::size_t capacity, std::size_t buffer_size = 2048);
  HeapPool(const HeapPool&) = delete;
  HeapPool& operator=(const HeapPool&) = delete;
  ~HeapPool() override;

  std::size_t alloc(Packet** out, std::size_t n) override;
  void free(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] std::size_t capacity() const override { return capacity_; }
  [[nodiscard]] std::size_t available() const override { return capacity_ - in_use_; }
  [[nodiscard]] std::size_t buffer_size() const override { return buffer_size_; }

 private:
  [[nodiscard]] Packet* take_fresh();
  bool grow();

  static constexpr std::size_t kChunkPackets = 256;
  std::size_t wanted_;
  std::size_t capacity_;  // less than wanted while the system has no memory for more
  std::size_t returned_ = 0;  // packets that have come back since it was last asked for some
  std::size_t buffer_size_;
  std::size_t stride_;                 // from one packet to the next, in bytes
  std::size_t in_use_ = 0;             // handed out
  std::size_t fresh_ = kChunkPackets;  // packets of the newest chunk that have been used at least once
  Packet* free_ = nullptr;             // those that came back, most recent first
  std::vector<std::byte*> chunks_;
};

}  // namespace mtcp::stack

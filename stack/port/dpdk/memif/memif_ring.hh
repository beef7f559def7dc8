// Sending and receiving on a memif ring by ourselves: the peer may write what it likes there, which the driver believes; and
// memif_copy.hh is faster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/packet/packet.hh"
#include "stack/port/dpdk/memif/memif_copy.hh"

namespace mtcp::stack::dpdk {

// The head of a ring (memif protocol 2.0). `flags` is the receiver's: it masks the sender's interrupts.
struct MemifRing {
  alignas(64) std::uint32_t cookie;
  std::uint16_t flags;
  std::uint16_t head;
  alignas(64) std::uint16_t tail;
  // descriptors follow, from the next cache line on
};

struct MemifDescriptor {
  std::uint16_t flags;
  std::uint16_t region;
  std::uint32_t length;
  std::uint32_t offset;
  std::uint32_t metadata;
};
static_assert(sizeof(MemifDescriptor) == 16 && sizeof(MemifRing) == 128);

// One direction of a ring pair. `region` holds the ring, its descriptors and all buffers, and the peer may write to all
// of it at any time: where we are in the ring, and as the client where our buffers lie, is known here.
class MemifDirection {
 public:
  // False if the ring does not lie in the region, or as a client's not as we have laid it out. `client`: we are.
  bool attach(std::span<std::byte> region, MemifRing& ring, unsigned log2_size, bool client);
  void detach() { ring_ = nullptr; }
  [[nodiscard]] bool attached() const { return ring_ != nullptr; }

 protected:
  // Where `len` bytes of a slot's buffer lie; null if that leads out of the region.
  [[nodiscard]] std::byte* buffer(std::uint16_t slot, std::size_t len) const;
  [[nodiscard]] MemifDescriptor& descriptor(std::uint16_t slot) const {
    return descriptors_[slot & (size_ - 1)];
  }

  std::span<std::byte> region_;
  MemifRing* ring_ = nullptr;
  MemifDescriptor* descriptors_ = nullptr;
  std::uint16_t size_ = 0;
  std::uint16_t position_ = 0;     // the next slot that we write or read
  std::uint32_t buffer_size_ = 0;  // the client's own
  std::size_t first_buffer_ = 0;
  bool client_ = false;
};

class MemifSender : public MemifDirection {
 public:
  // Copies frames into the ring, returns how many found room. All packets stay the caller's.
  std::size_t send(Packet* const* packets, std::size_t n);
  // Everything sent has been taken.
  [[nodiscard]] bool empty() const;

 private:
  [[nodiscard]] std::uint16_t room() const;

  const Stores stores_ = stores_for_this_machine();
};

class MemifReceiver : public MemifDirection {
 public:
  // The same, and offers all buffers of a client.
  bool attach(std::span<std::byte> region, MemifRing& ring, unsigned log2_size, bool client);
  // Copies up to n frames into `packets`, which are empty (reset()), sets data and len, and gives their slots
  // back. Returns how many. Frames that fit no packet are counted in `dropped`.
  std::size_t receive(Packet* const* packets, std::size_t n, std::uint64_t& dropped);
  // Passes over up to n frames, returns how many.
  std::size_t discard(std::size_t n);
  // How many slots wait.
  [[nodiscard]] std::uint16_t waiting() const;

 private:
  void give_back();
  bool append(Packet& p, std::uint16_t slot) const;
  void prefetch(std::uint16_t slot) const;

  std::uint16_t offered_ = 0;  // the client's: buffers of the slots before this one are the sender's to fill
};

}  // namespace mtcp::stack::dpdk

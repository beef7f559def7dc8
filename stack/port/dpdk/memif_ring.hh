// Sending on a memif ring by ourselves. The driver stores every byte into lines that the receiver's core has
// in its cache, and waits for each; whole lines written past the caches cost a third of that between cores
// that share none (6.5 against 2.5 GB/s for 1500-byte frames where it was measured). What is small goes the
// ordinary way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/packet/packet.hh"

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

// One direction of a ring pair. `region` holds the ring, its descriptors and all buffers.
class MemifDirection {
 public:
  // False if the ring does not look like one that can be used: then the driver has to do it. `client`: we
  // are.
  bool attach(std::span<std::byte> region, MemifRing& ring, unsigned log2_size, bool client);
  void detach() { ring_ = nullptr; }
  [[nodiscard]] bool attached() const { return ring_ != nullptr; }

 protected:
  // Where `len` bytes of a descriptor lie; null if it leads out of the region.
  [[nodiscard]] std::byte* buffer(const MemifDescriptor& d, std::size_t len) const;
  [[nodiscard]] MemifDescriptor& descriptor(std::uint16_t slot) const {
    return descriptors_[slot & (size_ - 1)];
  }

  std::span<std::byte> region_;
  MemifRing* ring_ = nullptr;
  MemifDescriptor* descriptors_ = nullptr;
  std::uint16_t size_ = 0;
  std::uint32_t buffer_size_ = 0;  // as the client has laid them out
  bool client_ = false;
};

class MemifSender : public MemifDirection {
 public:
  // Copies frames into the ring, returns how many found room. All packets stay the caller's.
  std::size_t send(Packet* const* packets, std::size_t n);

 private:
  [[nodiscard]] std::uint16_t room(std::uint16_t slot) const;
};

class MemifReceiver : public MemifDirection {
 public:
  // Copies up to n frames into `packets`, which are empty (reset()), sets data and len, and gives their slots
  // back. Returns how many; `position` is the next slot to look at. Frames that fit no packet are counted in
  // `dropped`.
  std::size_t receive(Packet* const* packets, std::size_t n, std::uint16_t& position, std::uint64_t& dropped);
  // Passes over up to n frames, returns how many.
  std::size_t discard(std::size_t n, std::uint16_t& position);
  // All slots before `position` are the sender's again. Once at the start, too: a client's ring is empty
  // then.
  void give_back(std::uint16_t position) const;
  // How many slots wait from `position` on.
  [[nodiscard]] std::uint16_t waiting(std::uint16_t position) const;

 private:
  bool append(Packet& p, const MemifDescriptor& d) const;
  void prefetch(std::uint16_t slot) const;
};

}  // namespace mtcp::stack::dpdk

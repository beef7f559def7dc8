// Packets in mbufs: the Packet lies in the mbuf's private area, so that one becomes the other by adding a
// constant.
#pragma once

#include <rte_mbuf.h>

#include <cstddef>
#include <memory>

#include "stack/packet/packet.hh"

namespace mtcp::stack::dpdk {

static_assert(sizeof(rte_mbuf) % alignof(Packet) == 0 && sizeof(Packet) % RTE_MBUF_PRIV_ALIGN == 0);
static_assert(kHeadroom == RTE_PKTMBUF_HEADROOM);

inline Packet* packet_of(rte_mbuf* m) { return reinterpret_cast<Packet*>(m + 1); }
inline rte_mbuf* mbuf_of(Packet* p) { return reinterpret_cast<rte_mbuf*>(p) - 1; }
inline const rte_mbuf* mbuf_of(const Packet* p) { return reinterpret_cast<const rte_mbuf*>(p) - 1; }

// The pool of one queue, in memory that is shared over fork. Its user sets the thread number (eal.hh) by
// itself in all calls, so the pool's cache is the stack's.
//
// Free mbufs keep DPDK's invariants (one reference, one segment), so packets go in and out without being
// touched.
class MbufPool final : public PacketPool {
 public:
  // Bytes that a pool of `packets` packets for frames of `frame` bytes takes, generously.
  [[nodiscard]] static std::size_t memory(std::size_t packets, std::size_t frame);
  // Bytes of a buffer for such frames, headroom included.
  [[nodiscard]] static std::size_t data_room(std::size_t frame);
  // Null if the memory is not there.
  static std::unique_ptr<MbufPool> create(const char* name, std::size_t packets, std::size_t frame);
  ~MbufPool() override = default;  // the memory stays: it is DPDK's until the process ends
  MbufPool(const MbufPool&) = delete;
  MbufPool& operator=(const MbufPool&) = delete;

  std::size_t alloc(Packet** out, std::size_t n) override;
  void free(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] std::size_t capacity() const override;
  [[nodiscard]] std::size_t available() const override;

  [[nodiscard]] rte_mempool* mempool() const { return pool_; }
  // In calls of this process; the same for all users of the pool, one after the other, because what lies in
  // the cache of another number is out of reach.
  void set_owner(unsigned thread_number) { number_ = thread_number; }
  // Takes everything back that a dead process had, and mends what it left half done. Nobody else may use the
  // pool.
  void reclaim();

 private:
  explicit MbufPool(rte_mempool* pool) : pool_(pool) {}

  rte_mempool* pool_;
  unsigned number_ = 0;
};

}  // namespace mtcp::stack::dpdk

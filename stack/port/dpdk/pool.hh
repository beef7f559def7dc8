// Packets in mbufs: the Packet lies in the mbuf's private area, so that one becomes the other by adding a
// constant.
#pragma once

#include <rte_mbuf.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "stack/packet/packet.hh"

namespace mtcp::stack::dpdk {

static_assert(sizeof(rte_mbuf) % alignof(Packet) == 0 && sizeof(Packet) % RTE_MBUF_PRIV_ALIGN == 0);
static_assert(kHeadroom == RTE_PKTMBUF_HEADROOM);

inline Packet* packet_of(rte_mbuf* m) { return reinterpret_cast<Packet*>(m + 1); }
inline rte_mbuf* mbuf_of(Packet* p) { return reinterpret_cast<rte_mbuf*>(p) - 1; }
inline const rte_mbuf* mbuf_of(const Packet* p) { return reinterpret_cast<const rte_mbuf*>(p) - 1; }

// The pool of one queue, in memory that is shared over fork, for drivers whose device or peer reads the packets; or
// the pool of one stack, in its process's own memory, for drivers that copy: that one goes with its process,
// whatever becomes of it. Its user sets the thread number (eal.hh) by itself in all calls, so the pool's cache is
// the stack's.
//
// Free mbufs keep DPDK's invariants (one reference, one segment), so packets go in and out without being
// touched.
class MbufPool final : public PacketPool {
 public:
  // Bytes that a pool of `packets` packets for frames of `frame` bytes takes, generously.
  [[nodiscard]] static std::size_t memory(std::size_t packets, std::size_t frame);
  // Null if the memory is not there.
  static std::unique_ptr<MbufPool> create(const char* name, std::size_t packets, std::size_t frame);
  // A pool without packets, made before the fork, which costs nearly nothing: DPDK's part of it is shared. Every
  // process that uses it calls populate() first.
  static std::unique_ptr<MbufPool> create_empty(const char* name, std::size_t packets, std::size_t frame);
  // All packets anew, in private memory of this process that is touched only when a packet in it is first used. Nobody
  // else uses the pool. False without memory.
  [[nodiscard]] bool populate();
  ~MbufPool() override;  // shared memory stays: it is DPDK's until the process ends
  MbufPool(const MbufPool&) = delete;
  MbufPool& operator=(const MbufPool&) = delete;

  std::size_t alloc(Packet** out, std::size_t n) override;
  void free(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] std::size_t capacity() const override;
  [[nodiscard]] std::size_t available() const override;

  [[nodiscard]] rte_mempool* mempool() const { return pool_; }
  // The stack that uses the pool from now on, in this process.
  void set_owner(unsigned thread_number) { number_ = thread_number; }
  // Takes everything back that a dead process had, and mends what it left half done. Nobody else may use the
  // pool.
  void reclaim();

 private:
  explicit MbufPool(rte_mempool* pool) : pool_(pool) {}
  [[nodiscard]] std::size_t stride() const;
  void take_fresh(std::size_t n);
  void release();

  rte_mempool* pool_;
  unsigned number_ = 0;
  // populate(): the list of the free ones and then the packets.
  void* free_ = nullptr;
  std::byte* memory_ = nullptr;
  std::byte* objects_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t fresh_ = SIZE_MAX;  // packets from here on have never been used; SIZE_MAX: there are none such
};

}  // namespace mtcp::stack::dpdk

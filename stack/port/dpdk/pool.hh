// Packets in mbufs: the Packet lies in the mbuf's private area, so that one becomes the other by adding a
// constant.
#pragma once

#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>

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

// The pool of one queue, in memory that is shared over fork; one process uses it at a time.
//
// Free mbufs keep DPDK's invariants (one reference, one segment), so packets go in and out without being
// touched.
class MbufPool final : public PacketPool {
 public:
  enum class Use : std::uint8_t {
    copies,  // packets are in the stack's hands only: the driver copies
    device   // a card holds packets, too, and outlives the process: each is marked with who has it
  };
  // Of a packet that the stack has sent with kKeep the device has a second reference: it is the stack's.
  enum class Holder : std::uint8_t { pool, stack, device };

  // Bytes that a pool of `packets` packets for frames of `frame` bytes takes, generously.
  [[nodiscard]] static std::size_t memory(std::size_t packets, std::size_t frame);
  // Bytes of a buffer for such frames, headroom included.
  [[nodiscard]] static std::size_t data_room(std::size_t frame);
  // Null if the memory is not there.
  static std::unique_ptr<MbufPool> create(const char* name, std::size_t packets, std::size_t frame, Use use);
  ~MbufPool() override = default;  // the memory stays: it is DPDK's until the process ends
  MbufPool(const MbufPool&) = delete;
  MbufPool& operator=(const MbufPool&) = delete;

  std::size_t alloc(Packet** out, std::size_t n) override;
  void free(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] std::size_t capacity() const override;
  [[nodiscard]] std::size_t available() const override;
  [[nodiscard]] std::size_t buffer_size() const override;

  [[nodiscard]] rte_mempool* mempool() const { return pool_; }
  // Children of this process, which do not use the device, have no packets. If that can't be had they have them.
  void keep_from_children();
  // A received mbuf is the stack's; one to be sent is the device's, or has a reference of the device's if the stack
  // keeps it; one that the device did not want is the stack's alone again.
  void take_from_device(rte_mbuf* m) const {
    if (use_ == Use::device) set_holder(m, Holder::stack);
  }
  void give_to_device(rte_mbuf* m, bool keep) const {
    if (keep)
      rte_mbuf_refcnt_update(m, 1);
    else if (use_ == Use::device)
      set_holder(m, Holder::device);
  }
  void take_back(rte_mbuf* m, bool keep) const {
    if (keep) rte_mbuf_refcnt_update(m, -1);
    take_from_device(m);
  }
  // Around each call of the driver: should the process die within, what that has of the pool is not certain.
  void enter_driver();
  void leave_driver();
  [[nodiscard]] bool in_driver() const;
  // Takes everything back that a dead process had, and mends what it left half done. Nobody else may use the
  // pool, and no device have any of it.
  void reclaim();
  // The same with a device that goes on (Use::device): what that has, it keeps. Exact, unless the process died
  // in the driver: then some packets of one burst may be lost, but none has two owners.
  void recover();

  static Holder holder(const rte_mbuf* m) { return *RTE_MBUF_DYNFIELD(m, holder_offset_, const Holder*); }
  static void set_holder(rte_mbuf* m, Holder holder) { *RTE_MBUF_DYNFIELD(m, holder_offset_, Holder*) = holder; }

 private:
  MbufPool(rte_mempool* pool, Use use) : pool_(pool), use_(use) {}
  static bool let_go(rte_mbuf* m);

  static inline int holder_offset_ = -1;
  rte_mempool* pool_;
  const Use use_;
};

}  // namespace mtcp::stack::dpdk

// AF_XDP sockets as DPDK's af_xdp driver gets them (redirect_xdp.map), in place of libxdp's.
//
// The driver wants sockets and their memory; libxdp would also load a program from a file, which may not be
// there, through pins in a file system that may not be mounted, and leave it on the interface when the
// process is killed. And libelf, which it stands on, cannot be linked into a shared object. What goes on the
// interface is in xdp_program.hh.
#pragma once

#include <xdp/xsk.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mtcp::stack::dpdk {

// A socket, its memory (UMEM) and its four rings, as the driver had them made. The same in each process after
// a fork. (Documentation/networking/af_xdp.rst)
struct Xsk {
  int fd = -1;
  std::uint32_t ifindex = 0, queue = 0;
  // Frames follow each other in `area`, `frame_size` bytes each. The kernel calls one by its offset there.
  std::byte* area = nullptr;
  std::uint64_t size = 0;
  std::uint32_t frame_size = 0, headroom = 0;
  xsk_ring_prod fill{}, tx{};
  xsk_ring_cons completion{}, rx{};
};
// A ring's counter, which the kernel moves or looks at, too.
inline std::uint32_t load(std::uint32_t* counter) { return std::atomic_ref(*counter).load(std::memory_order_acquire); }
inline void store(std::uint32_t* counter, std::uint32_t value) {
  std::atomic_ref(*counter).store(value, std::memory_order_release);
}
// Maps the rings of a bound socket that another process has made (Linux 6.4): x.fd, with so many entries each.
struct RingSizes {
  std::uint32_t fill, completion, rx, tx;
};
[[nodiscard]] bool map_rings(Xsk& x, const RingSizes& entries);
void unmap_rings(Xsk& x);
// In the order in which they were made: queue 0 first.
[[nodiscard]] std::span<Xsk* const> xsks();
// For the sockets that are made after this: a frame may come in several pieces, each but the last with kMoreFollows in its
// descriptor's options (Linux 6.6).
void xsk_use_pieces();
inline constexpr std::uint32_t kMoreFollows = 1;  // XDP_PKT_CONTD

}  // namespace mtcp::stack::dpdk

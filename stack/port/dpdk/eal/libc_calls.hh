// What DPDK gets instead of some of libc's calls (redirect.map), and what is learned from them.
#pragma once

#include <linux/if_packet.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mtcp::stack::dpdk {

// System calls past libc, so that DPDK's descriptors never pass through interposed names. -1 and errno as in
// libc.
long system_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);
// A pointer as one of its arguments.
template <typename T>
long arg(T* p) {
  return reinterpret_cast<long>(p);
}

// setsockopt with one value. False: errno says why.
template <typename Value>
bool set_option(int fd, int level, int name, const Value& value) {
  return system_call(SYS_setsockopt, fd, level, name, arg(&value), sizeof value) == 0;
}
// What a small file, as those of /proc and /sys are, begins with. Empty if it is not there.
[[nodiscard]] std::string_view read_beginning(const std::string& path, std::span<char> room);

// Moves a descriptor to a high number with O_CLOEXEC, so that the application finds the low numbers free as
// without us. Returns the new number, or `fd` itself with O_CLOEXEC if there is no high number. Negative
// values pass through.
int move_high(int fd);
// The same for one that is none of DPDK's, and closed by its owner.
int raise(int fd);
// What move_high() has seen and DPDK has not closed again.
[[nodiscard]] std::span<const int> open_descriptors();
// Closes all that DPDK has opened: for the child of a fork, which must not keep its parent's peers from
// noticing when the parent dies. Mapped memory stays.
void close_all_descriptors();

// A packet socket with its shared ring of received frames, as the af_packet driver made it. The ring to send that it wants
// too is not made: packets are sent by calls (packet_sender).
struct PacketRing {
  int fd;
  tpacket_req frames;
  bool offload;  // every frame is preceded by a virtio_net_hdr
  std::byte* map;       // in the memory of `mapped_by` alone, not of its children (packet_fanout.hh, map_ring)
  pid_t mapped_by = 0;
  bool tagged = false;  // every frame has a tag, which is not the sender's (share/layout.h)
};
[[nodiscard]] std::span<const PacketRing> packet_rings();  // in order of creation: queue 0 first
void forget_packet_rings();
// The program that says which socket of a group a frame comes on, for the sockets that are opened from now on; -1: the kernel's
// hash does. Whether the last group has taken it.
void spread_packets_by(int program);
[[nodiscard]] bool packets_are_spread_by_program();

// The Ethernet type that packet sockets receive which are opened from now on; 0: all.
void receive_packets_of(std::uint16_t type);

// The shared memory that the memif driver mapped last. A region that it unmapped stays here until the next
// one.
[[nodiscard]] std::span<std::byte> memif_region();

// DPDK's log and everything it would print. Keeps the last few lines.
void log_clear();
[[nodiscard]] std::string log_last_error();  // one line without its prefix; empty if there was none

}  // namespace mtcp::stack::dpdk

extern "C" int mtcp_dpdk_close(int fd);  // DPDK's close()

// The libc calls of drivers whose packets come in rings: packet sockets, and memif's memory (redirect_rings.map, redirect_packet.map).
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

struct Watch {
  std::vector<PacketRing> packet;
  int fanout = -1;          // the group of the packet sockets
  int fanout_program = -1;  // what spreads packets in there
  bool has_program = false; // it does
  std::uint16_t type = 0;   // of the packets that come; 0: what the driver says
  std::span<std::byte> memif;
};
// Process-wide, as DPDK itself is.
Watch& watch() {
  static Watch instance;
  return instance;
}

}  // namespace

std::span<const PacketRing> packet_rings() { return watch().packet; }
void forget_packet_rings() {
  watch().packet.clear();
  watch().fanout = -1;
  watch().has_program = false;
}
void spread_packets_by(int program) { watch().fanout_program = program; }
void receive_packets_of(std::uint16_t type) { watch().type = type; }
bool packets_are_spread_by_program() { return watch().has_program; }
std::span<std::byte> memif_region() { return watch().memif; }

}  // namespace mtcp::stack::dpdk

using mtcp::stack::dpdk::arg;
using mtcp::stack::dpdk::set_option;
using mtcp::stack::dpdk::system_call;
using mtcp::stack::dpdk::watch;

extern "C" {

// ---- redirect_rings.map: af_packet and memif only
// ----------------------------------------------------------------

// The drivers wait here without limit when a ring is full; they cope with "not yet" as well.
int mtcp_dpdk_poll(pollfd* fds, nfds_t n, int) {
  return static_cast<int>(system_call(SYS_poll, arg(fds), static_cast<long>(n), 0));
}

// The driver names its fanout group by its pid, which another container's process on the same interface may
// have, too: the two would share their packets. The kernel can choose an unused number.
//
// And it asks for more than the spreading by flow: that fragments are put together, which the stack does itself, and
// that a full queue's packets go to another's, which would have them overtake each other. What leaves the interface, ours
// above all, need not be looked at; older kernels do not know this flag and ignore it.
static int join_fanout(int fd, int argument) {
  auto& [packet, group, program, has_program, type, memif] = watch();
  constexpr int kExtras = (PACKET_FANOUT_FLAG_DEFRAG | PACKET_FANOUT_FLAG_ROLLOVER | 0xff) << 16;
  constexpr int kIgnoreOutgoing = 0x4000;  // PACKET_FANOUT_FLAG_IGNORE_OUTGOING
  argument &= ~kExtras & ~0xffff;
  argument |= group < 0 ? PACKET_FANOUT_FLAG_UNIQUEID << 16 : group;
  const auto join = [fd, argument](int kind) {
    return set_option(fd, SOL_PACKET, PACKET_FANOUT, argument | (kind | kIgnoreOutgoing) << 16) ? 0 : -1;
  };
  if (group >= 0) return join(has_program ? PACKET_FANOUT_EBPF : PACKET_FANOUT_HASH);
  has_program = program >= 0 && join(PACKET_FANOUT_EBPF) == 0;
  if (const int result = has_program ? 0 : join(PACKET_FANOUT_HASH); result != 0) return result;
  if (has_program) (void)set_option(fd, SOL_PACKET, PACKET_FANOUT_DATA, program);
  socklen_t length = sizeof argument;
  if (system_call(SYS_getsockopt, fd, SOL_PACKET, PACKET_FANOUT, arg(&argument), arg(&length)) == 0) group = argument & 0xffff;
  return 0;
}

int mtcp_dpdk_setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  if (level == SOL_PACKET && name == PACKET_RX_RING && length >= sizeof(tpacket_req)) {
    mtcp::stack::dpdk::PacketRing ring{fd, {}, false, nullptr};
    memcpy(&ring.frames, value, sizeof ring.frames);
    // Once there is a ring it can't be set any more.
    const int on = 1;
    ring.offload = system_call(SYS_setsockopt, fd, SOL_PACKET, PACKET_VNET_HDR, arg(&on), sizeof on) == 0;
    watch().packet.push_back(ring);
  }
  if (level == SOL_PACKET && name == PACKET_TX_RING) return 0;
  if (level == SOL_PACKET && name == PACKET_FANOUT && length == sizeof(int)) {
    int argument;
    memcpy(&argument, value, sizeof argument);
    return join_fanout(fd, argument);
  }
  return static_cast<int>(system_call(SYS_setsockopt, fd, level, name, arg(value), length));
}

// ---- redirect_packet.map: af_packet only

int mtcp_dpdk_bind(int fd, const sockaddr* address, socklen_t length) {
  sockaddr_ll where{};
  const std::uint16_t type = watch().type;
  if (type == 0 || length != sizeof where) return static_cast<int>(system_call(SYS_bind, fd, arg(address), length));
  memcpy(&where, address, sizeof where);
  where.sll_protocol = htons(type);
  return static_cast<int>(system_call(SYS_bind, fd, arg(&where), sizeof where));
}

// The driver maps a ring to receive and one to send behind it; where the second would be there is nothing.
static std::byte* map_ring(const mtcp::stack::dpdk::PacketRing& ring, std::size_t length, int protection) {
  const long both = system_call(SYS_mmap, 0, static_cast<long>(length), PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (both == -1) return nullptr;
  const auto received = static_cast<long>(std::size_t{ring.frames.tp_block_size} * ring.frames.tp_block_nr);
  if (system_call(SYS_mmap, both, received, protection, MAP_SHARED | MAP_FIXED, ring.fd, 0) != -1) {
    system_call(SYS_madvise, both, received, MADV_DONTFORK);
    return reinterpret_cast<std::byte*>(both);
  }
  const int error = errno;
  system_call(SYS_munmap, both, static_cast<long>(length));
  errno = error;
  return nullptr;
}

void* mtcp_dpdk_mmap(void* where, std::size_t length, int protection, int flags, int fd, off_t offset) {
  auto& rings = watch().packet;
  const auto ring = std::ranges::find(rings, fd, &mtcp::stack::dpdk::PacketRing::fd);
  if (ring != rings.end()) {
    ring->map = map_ring(*ring, length, protection);
    ring->mapped_by = getpid();
    return ring->map == nullptr ? MAP_FAILED : ring->map;
  }
  const long result =
      system_call(SYS_mmap, arg(where), static_cast<long>(length), protection, flags, fd, offset);
  if (result == -1) return MAP_FAILED;
  watch().memif = {reinterpret_cast<std::byte*>(result), length};
  return reinterpret_cast<void*>(result);
}

}  // extern "C"

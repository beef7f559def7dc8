#include "stack/port/dpdk/af_packet/packet_fanout.hh"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "fanout_program.hh"
#include "stack/port/dpdk/af_packet/fanout_layout.h"
#include "stack/port/dpdk/interface/bpf_calls.hh"
#include "stack/steering/control_block.hh"

namespace mtcp::stack::dpdk {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStateBytes = (sizeof(mtcp_fanout) + kPage - 1) / kPage * kPage;
static_assert(MTCP_FANOUT_ENTRIES == kMaxSteeringEntries && MTCP_FANOUT_HALVES == FlowHash::kHalves);

std::size_t bytes_of(const PacketRing& ring) { return std::size_t{ring.frames.tp_frame_nr} * ring.frames.tp_frame_size; }

long load(const Descriptor& map) {
  return load_socket_filter(
      with_maps(fanout_program::kCode, fanout_program::kMaps, [&](std::string_view) { return map.number(); }),
      "mtcp_fanout");
}

// Between its binding and its joining a socket would get what is another one's.
bool take_nothing(int fd) {
  sock_filter none{BPF_RET | BPF_K, 0, 0, 0};
  return set_option(fd, SOL_SOCKET, SO_ATTACH_FILTER, sock_fprog{1, &none});
}

}  // namespace

std::unique_ptr<PacketFanout> PacketFanout::create() {
  Descriptor map(create_map({BPF_MAP_TYPE_ARRAY, sizeof(mtcp_fanout), 1, BPF_F_MMAPABLE, "mtcp_fanout"}));
  if (!map) return nullptr;
  const long program = load(map);
  if (program < 0) return nullptr;
  std::unique_ptr<PacketFanout> made(new PacketFanout(move_high(map.release()), true));
  made->program_ = static_cast<int>(program);
  return made->map_memory() ? std::move(made) : nullptr;
}

std::unique_ptr<PacketFanout> PacketFanout::adopt(int map) {
  std::unique_ptr<PacketFanout> made(new PacketFanout(map, false));
  return made->map_memory() ? std::move(made) : nullptr;
}

bool PacketFanout::map_memory() {
  const long at = system_call(SYS_mmap, 0, kStateBytes, PROT_READ | PROT_WRITE, MAP_SHARED, map_, 0);
  if (at != -1) state_ = reinterpret_cast<mtcp_fanout*>(at);
  return at != -1;
}

PacketFanout::~PacketFanout() {
  close_program();
  if (state_ != nullptr) munmap(state_, kStateBytes);
  if (owner_) mtcp_dpdk_close(map_);
}

void PacketFanout::close_program() {
  if (program_ >= 0) system_call(SYS_close, std::exchange(program_, -1));
}

void PacketFanout::begin(const FlowHash& hash, std::uint32_t entries, std::uint32_t queues) {
  const auto& halves = hash.halves();
  for (std::size_t i = 0; i < halves.size(); ++i) std::ranges::copy(halves[i], std::begin(state_->hash[i]));
  state_->mask = entries - 1;
  std::atomic_ref(state_->queues).store(queues, std::memory_order_release);
}

std::uint32_t PacketFanout::queues(std::size_t sockets) const {
  return std::min(std::atomic_ref(state_->queues).load(std::memory_order_acquire), static_cast<std::uint32_t>(sockets));
}

// Two processes may do this at the same time, or one die at any step: each step can be done again, and who finds it done
// goes on.
bool PacketFanout::add(std::span<const PacketRing> rings) {
  std::uint32_t n = queues(rings.size());
  if (n == 0 || n >= rings.size()) return false;
  const int first = rings.front().fd, fd = rings[n].fd;
  sockaddr_ll interface{};
  socklen_t size = sizeof interface;
  if (system_call(SYS_getsockname, first, arg(&interface), arg(&size)) != 0) return false;
  if (!set_option(fd, SOL_PACKET, PACKET_RX_RING, rings[n].frames) && errno != EBUSY) return false;
  int group = 0;
  socklen_t length = sizeof group;
  if (system_call(SYS_getsockopt, first, SOL_PACKET, PACKET_FANOUT, arg(&group), arg(&length)) != 0) return false;
  const bool bound = system_call(SYS_bind, fd, arg(&interface), sizeof interface) == 0 || errno == EINVAL;  // it has joined
  if (!bound || (!set_option(fd, SOL_PACKET, PACKET_FANOUT, group) && errno != EALREADY)) return false;
  (void)set_option(fd, SOL_SOCKET, SO_DETACH_FILTER, group);
  std::atomic_ref(state_->queues).compare_exchange_strong(n, n + 1, std::memory_order_acq_rel);
  return true;
}

void PacketFanout::direct(std::span<const std::uint8_t> queues) {
  for (std::size_t i = 0; i < queues.size() && i < MTCP_FANOUT_ENTRIES; ++i)
    std::atomic_ref(state_->queue[i]).store(queues[i], std::memory_order_relaxed);
}

void PacketFanout::point_flow(std::uint32_t hash, std::uint32_t queue) {
  std::atomic_ref(state_->flow[hash % MTCP_POINTED_FLOWS]).store(static_cast<__u8>(queue + 1), std::memory_order_relaxed);
}

void PacketFanout::unpoint_flow(std::uint32_t hash, std::uint32_t queue) {
  auto expected = static_cast<__u8>(queue + 1);
  std::atomic_ref(state_->flow[hash % MTCP_POINTED_FLOWS]).compare_exchange_strong(expected, 0, std::memory_order_relaxed);
}

void PacketFanout::forget_flows(std::uint32_t queue) {
  for (__u8& flow : state_->flow) {
    auto at = std::atomic_ref(flow);
    if (at.load(std::memory_order_relaxed) == queue + 1) at.store(0, std::memory_order_relaxed);
  }
}

std::vector<PacketRing> open_spare_rings(const PacketRing& like, std::uint32_t slots, std::size_t n) {
  tpacket_req frames = like.frames;
  const std::uint32_t per_block = frames.tp_frame_nr / frames.tp_block_nr;
  frames.tp_block_nr = std::min((slots + per_block - 1) / per_block, frames.tp_block_nr);
  frames.tp_frame_nr = frames.tp_block_nr * per_block;
  std::vector<PacketRing> out;
  while (out.size() < n) {
    const int fd = move_high(static_cast<int>(system_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)));
    if (fd < 0) break;
    if (!set_option(fd, SOL_PACKET, PACKET_VERSION, int{TPACKET_V2}) || (like.offload && !set_option(fd, SOL_PACKET, PACKET_VNET_HDR, 1)) ||
        !take_nothing(fd)) {
      mtcp_dpdk_close(fd);
      break;
    }
    out.push_back({fd, frames, like.offload, nullptr, 0, like.tagged});
  }
  return out;
}

std::byte* map_ring(PacketRing& ring) {
  if (ring.map != nullptr && ring.mapped_by == getpid()) return ring.map;
  const long at = system_call(SYS_mmap, 0, static_cast<long>(bytes_of(ring)), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0);
  ring.map = at != -1 ? reinterpret_cast<std::byte*>(at) : nullptr;
  ring.mapped_by = getpid();
  if (ring.map != nullptr) (void)madvise(ring.map, bytes_of(ring), MADV_DONTFORK);
  return ring.map;
}

void unmap_ring(PacketRing& ring) {
  if (ring.map != nullptr && ring.mapped_by == getpid()) munmap(ring.map, bytes_of(ring));
  ring.map = nullptr;
}

}  // namespace mtcp::stack::dpdk

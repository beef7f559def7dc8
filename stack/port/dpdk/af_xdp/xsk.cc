#include "stack/port/dpdk/af_xdp/xsk.hh"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "stack/port/dpdk/eal/libc_calls.hh"

extern "C" {
int mtcp_dpdk_close(int fd);
int mtcp_dpdk_puts(const char* text);
}

// The driver's handle for the memory and, from when it is bound, for the socket.
struct xsk_umem : mtcp::stack::dpdk::Xsk {};

namespace mtcp::stack::dpdk {

namespace {

// Process-wide, as DPDK itself is.
std::vector<Xsk*>& all() {
  static std::vector<Xsk*> instance;
  return instance;
}

bool& pieces() {
  static bool wanted = false;
  return wanted;
}
constexpr std::uint16_t kUsePieces = 1U << 4;  // XDP_USE_SG

// Says what failed, as DPDK's first complaint; -errno.
int failed(const char* what) {
  const int error = errno;
  mtcp_dpdk_puts((std::string("AF_XDP: ") + what + ": " + strerror(error)).c_str());
  return -error;
}

bool set(const Xsk& x, int name, const void* value, std::size_t size) {
  return system_call(SYS_setsockopt, x.fd, SOL_XDP, name, arg(value), static_cast<long>(size)) == 0;
}

template <typename Ring>
void unmap(Ring& ring, std::size_t entry) {
  if (ring.producer == nullptr) return;
  auto* start = reinterpret_cast<std::byte*>(std::min(ring.producer, ring.consumer));
  auto* page = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(start) & ~std::uintptr_t{4095});
  munmap(page, static_cast<std::size_t>(static_cast<std::byte*>(ring.ring) - page) + ring.size * entry);
  ring = {};
}

template <typename Ring>
bool map_ring(const Xsk& x, std::uint32_t entries, std::size_t entry, off_t where, const xdp_ring_offset& at, Ring& ring) {
  const long map = system_call(SYS_mmap, 0, static_cast<long>(at.desc + entries * entry),
                               PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, x.fd, where);
  if (map == -1) return false;
  auto* start = reinterpret_cast<std::byte*>(map);
  ring.mask = entries - 1;
  ring.size = entries;
  ring.producer = reinterpret_cast<std::uint32_t*>(start + at.producer);
  ring.consumer = reinterpret_cast<std::uint32_t*>(start + at.consumer);
  ring.flags = reinterpret_cast<std::uint32_t*>(start + at.flags);
  ring.ring = start + at.desc;
  return true;
}

// Asks the kernel for a ring and maps it.
template <typename Ring>
bool make_ring(const Xsk& x, int option, std::uint32_t entries, std::size_t entry, off_t where,
               const xdp_ring_offset& at, Ring& ring) {
  return set(x, option, &entries, sizeof entries) && map_ring(x, entries, entry, where, at, ring);
}

// Where things are in the rings' pages depends on the kernel.
bool offsets_of(const Xsk& x, xdp_mmap_offsets& offsets) {
  socklen_t size = sizeof offsets;
  return system_call(SYS_getsockopt, x.fd, SOL_XDP, XDP_MMAP_OFFSETS, arg(&offsets), arg(&size)) == 0 &&
         size == sizeof offsets;
}

int create_umem(Xsk& x, const xsk_umem_config& config) {
  x.fd = move_high(static_cast<int>(system_call(SYS_socket, AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)));
  if (x.fd < 0) return failed("socket");
  xdp_umem_reg memory{};
  memory.addr = reinterpret_cast<std::uintptr_t>(x.area);
  memory.len = x.size;
  memory.chunk_size = x.frame_size;
  memory.headroom = x.headroom;
  memory.flags = config.flags;
  if (!set(x, XDP_UMEM_REG, &memory, sizeof memory))
    return failed(errno == ENOBUFS
                      ? "the packets' memory cannot be locked (raise ulimit -l or add cap_ipc_lock)"
                      : "the packets' memory is not taken");
  xdp_mmap_offsets offsets{};
  constexpr std::size_t kAddress = sizeof(std::uint64_t);
  if (!offsets_of(x, offsets) ||
      !make_ring(x, XDP_UMEM_FILL_RING, config.fill_size, kAddress,
                 static_cast<off_t>(XDP_UMEM_PGOFF_FILL_RING), offsets.fr, x.fill) ||
      !make_ring(x, XDP_UMEM_COMPLETION_RING, config.comp_size, kAddress,
                 static_cast<off_t>(XDP_UMEM_PGOFF_COMPLETION_RING), offsets.cr, x.completion))
    return failed("rings of the packets' memory");
  // As libxdp leaves them for the driver's first look.
  x.fill.cached_cons = config.fill_size;
  return 0;
}

// The kernel frees a queue some time after the process that had it has ended.
bool bind_patiently(const Xsk& x, std::uint16_t flags) {
  sockaddr_xdp address{};
  address.sxdp_family = AF_XDP;
  address.sxdp_flags = flags;
  if (pieces()) address.sxdp_flags = static_cast<std::uint16_t>((flags & ~XDP_ZEROCOPY) | XDP_COPY | kUsePieces);
  address.sxdp_ifindex = x.ifindex;
  address.sxdp_queue_id = x.queue;
  constexpr timespec kPause{0, 20'000'000};
  for (int i = 0;; ++i) {
    if (system_call(SYS_bind, x.fd, arg(&address), sizeof address) == 0) return true;
    if (errno != EBUSY || i == 50) return false;
    system_call(SYS_nanosleep, arg(&kPause), 0);
  }
}

int create_socket(Xsk& x, const char* interface, std::uint32_t queue, const xsk_socket_config& config) {
  x.ifindex = if_nametoindex(interface);
  x.queue = queue;
  xdp_mmap_offsets offsets{};
  constexpr std::size_t kDescriptor = sizeof(xdp_desc);
  if (x.ifindex == 0 || !offsets_of(x, offsets) ||
      !make_ring(x, XDP_RX_RING, config.rx_size, kDescriptor, XDP_PGOFF_RX_RING, offsets.rx, x.rx) ||
      !make_ring(x, XDP_TX_RING, config.tx_size, kDescriptor, static_cast<off_t>(XDP_PGOFF_TX_RING),
                 offsets.tx, x.tx))
    return failed("rings of a queue");
  if (!bind_patiently(x, config.bind_flags))
    return failed(errno == EBUSY               ? "another program has an AF_XDP socket on this queue"
                  : errno == EINVAL && pieces() ? "this kernel has no XDP_USE_SG (Linux 6.6 has), write xdp=native in the port"
                                                : "bind");
  return 0;
}

void destroy(Xsk* x) {
  std::erase(all(), x);
  unmap_rings(*x);
  if (x->fd >= 0) mtcp_dpdk_close(x->fd);
}

}  // namespace

bool map_rings(Xsk& x, const RingSizes& entries) {
  xdp_mmap_offsets offsets{};
  constexpr std::size_t kAddress = sizeof(std::uint64_t), kDescriptor = sizeof(xdp_desc);
  return offsets_of(x, offsets) &&
         map_ring(x, entries.fill, kAddress, static_cast<off_t>(XDP_UMEM_PGOFF_FILL_RING), offsets.fr, x.fill) &&
         map_ring(x, entries.completion, kAddress, static_cast<off_t>(XDP_UMEM_PGOFF_COMPLETION_RING), offsets.cr, x.completion) &&
         map_ring(x, entries.rx, kDescriptor, XDP_PGOFF_RX_RING, offsets.rx, x.rx) &&
         map_ring(x, entries.tx, kDescriptor, static_cast<off_t>(XDP_PGOFF_TX_RING), offsets.tx, x.tx);
}

void unmap_rings(Xsk& x) {
  unmap(x.rx, sizeof(xdp_desc));
  unmap(x.tx, sizeof(xdp_desc));
  unmap(x.fill, sizeof(std::uint64_t));
  unmap(x.completion, sizeof(std::uint64_t));
}

std::span<Xsk* const> xsks() { return all(); }

void xsk_use_pieces() { pieces() = true; }

}  // namespace mtcp::stack::dpdk

// ---- the names in redirect_xdp.map
// ----------------------------------------------------------------------------------

using mtcp::stack::dpdk::Xsk;

extern "C" {

int mtcp_xsk_umem_create(xsk_umem** out, void* area, std::uint64_t size, xsk_ring_prod* fill,
                         xsk_ring_cons* completion, const xsk_umem_config* config) {
  auto umem = std::make_unique<xsk_umem>();
  umem->area = static_cast<std::byte*>(area);
  umem->size = size;
  umem->frame_size = config->frame_size;
  umem->headroom = config->frame_headroom;
  const int result = mtcp::stack::dpdk::create_umem(*umem, *config);
  if (result != 0) {
    mtcp::stack::dpdk::destroy(umem.get());
    return result;
  }
  *fill = umem->fill;
  *completion = umem->completion;
  *out = umem.release();
  return 0;
}

int mtcp_xsk_umem_delete(xsk_umem* umem) {
  if (umem == nullptr) return 0;
  mtcp::stack::dpdk::destroy(umem);
  delete umem;
  return 0;
}

// Socket and memory are one here, because the driver has as many of one as of the other.
int mtcp_xsk_socket_create(xsk_socket** out, const char* interface, std::uint32_t queue, xsk_umem* umem,
                           xsk_ring_cons* rx, xsk_ring_prod* tx, const xsk_socket_config* config) {
  const int result = mtcp::stack::dpdk::create_socket(*umem, interface, queue, *config);
  if (result != 0) {
    mtcp_xsk_umem_delete(umem);  // the driver forgets it
    return result;
  }
  *rx = umem->rx;
  *tx = umem->tx;
  *out = reinterpret_cast<xsk_socket*>(umem);
  mtcp::stack::dpdk::all().push_back(umem);
  return 0;
}

// With its memory.
void mtcp_xsk_socket_delete(xsk_socket*) {}

int mtcp_xsk_socket_fd(const xsk_socket* socket) {
  return socket == nullptr ? -EINVAL : reinterpret_cast<const xsk_umem*>(socket)->fd;
}

// The driver takes its program off when it closes; there is none of its own.
int mtcp_bpf_xdp_query_id(int, int, std::uint32_t* id) {
  *id = 0;
  return 0;
}
int mtcp_bpf_xdp_detach(int, std::uint32_t, const void*) { return 0; }

// Programs of the user's (xdp_prog=) are refused before the driver could ask for one.
int mtcp_bpf_xdp_attach(int, int, std::uint32_t, const void*) { return -EOPNOTSUPP; }
void* mtcp_bpf_object_open_file(const char*, const void*) { return nullptr; }
long mtcp_libbpf_get_error(const void* p) { return p == nullptr ? -EOPNOTSUPP : 0; }
int mtcp_bpf_object_load(void*) { return -EOPNOTSUPP; }
void mtcp_bpf_object_close(void*) {}
void* mtcp_bpf_object_next_program(const void*, void*) { return nullptr; }
void* mtcp_bpf_object_find_map_by_name(const void*, const char*) { return nullptr; }
int mtcp_bpf_program_fd(const void*) { return -EOPNOTSUPP; }
int mtcp_bpf_map_fd(const void*) { return -EOPNOTSUPP; }
int mtcp_bpf_map_update_elem(int, const void*, const void*, std::uint64_t) { return -EOPNOTSUPP; }

}  // extern "C"

#include "stack/port/dpdk/eal/libc_calls.hh"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <string_view>
#include <utility>
#include <vector>

#include "stack/port/dpdk/memif/memif_guard.hh"

namespace mtcp::stack::dpdk {

long system_call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  if (result < 0 && result > -4096) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
#else
  return ::syscall(number, a, b, c, d, e, f);
#endif
}

std::string_view read_beginning(const std::string& path, std::span<char> room) {
  const long fd = system_call(SYS_openat, AT_FDCWD, arg(path.c_str()), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const long n = system_call(SYS_read, fd, arg(room.data()), static_cast<long>(room.size()));
  system_call(SYS_close, fd);
  return {room.data(), static_cast<std::size_t>(std::max(n, 0L))};
}

namespace {

// Below the soft limit, and above what programs that use select() or small arrays need; not much above, because the kernel copies a
// process's table up to its highest number at each fork.
long high_floor() {
  constexpr long kFloor = 1536;
  rlimit limit{};
  if (system_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, arg(&limit)) < 0) return 512;
  const auto soft = static_cast<long>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
  if (soft >= 2 * kFloor) return kFloor;
  return soft - std::min(soft / 4, 256L);
}

struct Watch {
  std::vector<int> descriptors;  // open ones that move_high() has seen
  std::vector<PacketRing> packet;
  int fanout = -1;          // the group of the packet sockets
  int fanout_program = -1;  // what spreads packets in there
  bool has_program = false; // it does
  std::span<std::byte> memif;
};
// Process-wide, as DPDK itself is.
Watch& watch() {
  static Watch instance;
  return instance;
}

constexpr std::size_t kLogLines = 8;
struct Log {
  std::string lines[kLogLines];
  std::size_t count = 0;
  std::string partial;

  void add(std::string_view text) {
    for (const char c : text) {
      if (c != '\n') {
        if (partial.size() < 300) partial += c;
      } else if (!partial.empty()) {
        lines[count++ % kLogLines] = std::move(partial);
        partial.clear();
      }
    }
  }
};
Log& log() {
  static Log instance;
  return instance;
}

ssize_t write_log(void*, const char* text, std::size_t n) {
  log().add({text, n});
  return static_cast<ssize_t>(n);
}

FILE* log_stream() {
  cookie_io_functions_t calls{};
  calls.write = write_log;
  FILE* f = fopencookie(nullptr, "w", calls);
  if (f == nullptr) return stderr;
  setvbuf(f, nullptr, _IOLBF, 512);
  return f;
}

}  // namespace

int raise(int fd) {
  if (fd < 0) return fd;
  const int saved = errno;
  const long high = system_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, high_floor());
  if (high >= 0) {
    system_call(SYS_close, fd);
    fd = static_cast<int>(high);
  } else {
    system_call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
  }
  errno = saved;
  return fd;
}

int move_high(int fd) {
  fd = raise(fd);
  if (fd >= 0) watch().descriptors.push_back(fd);
  return fd;
}

std::span<const int> open_descriptors() { return watch().descriptors; }

void close_all_descriptors() {
  for (const int fd : std::exchange(watch().descriptors, {})) system_call(SYS_close, fd);
}

std::span<const PacketRing> packet_rings() { return watch().packet; }
void forget_packet_rings() {
  watch().packet.clear();
  watch().fanout = -1;
  watch().has_program = false;
}
void spread_packets_by(int program) { watch().fanout_program = program; }
bool packets_are_spread_by_program() { return watch().has_program; }
std::span<std::byte> memif_region() { return watch().memif; }

void log_clear() {
  log().count = 0;
  log().partial.clear();
}

std::string log_last_error() {
  const Log& l = log();
  if (l.count == 0) return l.partial;
  // The first complaint is the cause, what follows is its echo up the call chain; but only the last few are
  // kept.
  const std::string& line = l.lines[l.count <= kLogLines ? 0 : l.count % kLogLines];
  const std::size_t function = line.find("(): ");
  const std::size_t component = line.find(": ");
  if (function != std::string::npos) return line.substr(function + 4);
  return component == std::string::npos ? line : line.substr(component + 2);
}

}  // namespace mtcp::stack::dpdk

// ---- the names in redirect.map
// ----------------------------------------------------------------------------------

using mtcp::stack::dpdk::arg;
using mtcp::stack::dpdk::move_high;
using mtcp::stack::dpdk::set_option;
using mtcp::stack::dpdk::system_call;
using mtcp::stack::dpdk::watch;

extern "C" {

// Unix sockets do not block: a connect() to a memif server with a full backlog would.
int mtcp_dpdk_socket(int domain, int type, int protocol) {
  if (domain == AF_UNIX) type |= SOCK_NONBLOCK;
  return move_high(static_cast<int>(system_call(SYS_socket, domain, type | SOCK_CLOEXEC, protocol)));
}

int mtcp_dpdk_close(int fd) {
  mtcp::stack::dpdk::memif_guard().forget(fd);
  auto& all = watch().descriptors;
  if (const auto at = std::ranges::find(all, fd); at != all.end()) {
    *at = all.back();
    all.pop_back();
  }
  return static_cast<int>(system_call(SYS_close, fd));
}

int mtcp_dpdk_eventfd(unsigned initial, int flags) {
  return move_high(static_cast<int>(system_call(SYS_eventfd2, initial, flags | EFD_CLOEXEC)));
}

int mtcp_dpdk_epoll_create(int) {
  return move_high(static_cast<int>(system_call(SYS_epoll_create1, EPOLL_CLOEXEC)));
}

int mtcp_dpdk_timerfd_create(int clock, int flags) {
  return move_high(static_cast<int>(system_call(SYS_timerfd_create, clock, flags | TFD_CLOEXEC)));
}

int mtcp_dpdk_memfd_create(const char* name, unsigned flags) {
  return move_high(static_cast<int>(system_call(SYS_memfd_create, arg(name), flags | MFD_CLOEXEC)));
}

int mtcp_dpdk_pipe(int ends[2]) {
  if (system_call(SYS_pipe2, arg(ends), O_CLOEXEC) < 0) return -1;
  ends[0] = move_high(ends[0]);
  ends[1] = move_high(ends[1]);
  return 0;
}

int mtcp_dpdk_openat(int directory, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const int mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, int) : 0;
  va_end(list);
  return move_high(static_cast<int>(system_call(SYS_openat, directory, arg(path), flags | O_CLOEXEC, mode)));
}

int mtcp_dpdk_open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const int mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, int) : 0;
  va_end(list);
  return mtcp_dpdk_openat(AT_FDCWD, path, flags, mode);
}

FILE* mtcp_dpdk_fopen(const char* path, const char* mode) {
  const std::string with_cloexec = std::string(mode) + "e";
  return fopen(path, with_cloexec.c_str());
}

// EAL looks for each of 1,024 CPUs in each of 32 NUMA nodes with one access(): 5,000 system calls, nearly all
// of them below directories that do not exist.
int mtcp_dpdk_access(const char* path, int mode) {
  static constexpr std::string_view kNodes = "/sys/devices/system/node/node";
  static std::bitset<64> known, absent;
  if (std::string_view(path).starts_with(kNodes)) {
    const unsigned long node = strtoul(path + kNodes.size(), nullptr, 10);
    if (node < absent.size() && !known[node]) {
      const std::string directory = std::string(kNodes) + std::to_string(node);
      known[node] = true;
      absent[node] = system_call(SYS_faccessat, AT_FDCWD, arg(directory.c_str()), F_OK) < 0;
    }
    if (node < absent.size() && absent[node]) {
      errno = ENOENT;
      return -1;
    }
  }
  return static_cast<int>(system_call(SYS_faccessat, AT_FDCWD, arg(path), mode));
}

// EAL would raise RLIMIT_NOFILE for its one-file-per-page mode, which is not used; the limit is the
// application's.
int mtcp_dpdk_setrlimit(int, const rlimit*) { return 0; }

// The application may have a syslog identity of its own.
void mtcp_dpdk_openlog(const char*, int, int) {}
void mtcp_dpdk_closelog() {}
void mtcp_dpdk_syslog(int, int, const char*, ...) {}

// Set before DPDK's own constructors run.
FILE* mtcp_dpdk_stdout;
FILE* mtcp_dpdk_stderr;
__attribute__((constructor(101))) static void open_log() {
  mtcp_dpdk_stdout = mtcp_dpdk_stderr = mtcp::stack::dpdk::log_stream();
}

int mtcp_dpdk_puts(const char* text) {
  mtcp::stack::dpdk::log().add(text);
  mtcp::stack::dpdk::log().add("\n");
  return 0;
}
int mtcp_dpdk_putchar(int c) { return c; }
int mtcp_dpdk_printf(int, const char* format, ...) {
  char text[256];
  va_list list;
  va_start(list, format);
  const int n = vsnprintf(text, sizeof text, format, list);
  va_end(list);
  mtcp::stack::dpdk::log().add(text);
  return n;
}
void mtcp_dpdk_perror(const char* text) { mtcp_dpdk_puts(text); }

std::size_t mtcp_dpdk_strlcpy(char* to, const char* from, std::size_t size) {
  const std::size_t n = strlen(from);
  if (size > 0) {
    const std::size_t kept = std::min(n, size - 1);
    memcpy(to, from, kept);
    to[kept] = 0;
  }
  return n;
}

std::size_t mtcp_dpdk_strlcat(char* to, const char* from, std::size_t size) {
  const std::size_t used = strnlen(to, size);
  return used + mtcp_dpdk_strlcpy(to + used, from, size - used);
}

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
  auto& [descriptors, packet, group, program, has_program, memif] = watch();
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

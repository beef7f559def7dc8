#include "stack/port/dpdk/eal/libc_calls.hh"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
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
  if (domain == AF_PACKET) protocol = 0;  // nothing comes until it is bound
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

}  // extern "C"

#include "preload/inherited.hh"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/relayed_names.hh"

namespace mtcp::preload {
namespace {

constexpr char kVariable[] = "MTCP_LISTENERS=";  // "5:511,6:128b,p0123456789abcdef": descriptor, backlog, whether it blocks; the program's number
constexpr size_t kName = sizeof kVariable - 1;

// The backlog with which descriptor `fd` was left to this program; -1: it was not. Each is found once.
int backlog_of(int fd, bool& blocks) {
  char* at = getenv("MTCP_LISTENERS");
  while (at != nullptr && *at != '\0') {
    char* end = nullptr;
    const long number = strtol(at, &end, 10);
    const long backlog = *end == ':' ? strtol(end + 1, &end, 10) : -1;
    blocks = *end == 'b';
    if (blocks) ++end;
    if (number == fd && backlog >= 0) {
      while (at < end) *at++ = '0';  // "0000000,": standard input is none
      return static_cast<int>(backlog);
    }
    if (*end != ',') break;
    at = end + 1;
  }
  return -1;
}

int number(const char* variable) {
  const char* text = getenv(variable);
  return text != nullptr ? atoi(text) : 0;
}

int option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  const long result = raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, name, reinterpret_cast<long>(&value), reinterpret_cast<long>(&size));
  return result == 0 ? value : -1;
}

bool is_tcp(int fd) {
  const int domain = option(fd, SO_DOMAIN);
  return (domain == AF_INET || domain == AF_INET6) && option(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

bool is_tcp_listener(int fd) { return is_tcp(fd) && option(fd, SO_ACCEPTCONN) == 1; }

int backlog_in_kernel(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  const long result = raw_syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, reinterpret_cast<long>(&info), reinterpret_cast<long>(&size));
  return result == 0 ? static_cast<int>(info.tcpi_sacked) : SOMAXCONN;  // of a listener: sk_max_ack_backlog
}

bool take_up_as_it_is(int fd) {
  const bool nonblocking = (raw_syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK) != 0;
  const int backlog = backlog_in_kernel(fd);
  return engine_for_tcp() != nullptr &&
         enter([=](intercept::Engine& e) { return e.take_up_listener(fd, backlog, nonblocking); }) == 0;
}

// A listener of sd_listen_fds(3), which is asked about once.
bool take_up_activated(int fd) {
  constexpr int kFirst = 3, kMost = 64;
  static std::atomic<std::uint64_t> asked;
  const int n = number("LISTEN_PID") == getpid() ? number("LISTEN_FDS") : 0;
  if (fd < kFirst || fd >= kFirst + n || fd >= kFirst + kMost) return false;
  const std::uint64_t bit = std::uint64_t{1} << (fd - kFirst);
  return (asked.fetch_or(bit) & bit) == 0 && is_tcp_listener(fd) && take_up_as_it_is(fd);
}

// A descriptor of the kernel: true if it is such a listener, and the engine's from now on.
bool take_up(int fd) {
  static std::atomic<bool> none;  // the variables are not there
  if (none.load(std::memory_order_relaxed)) [[likely]] return false;
  if ((getenv("MTCP_LISTENERS") == nullptr && getenv("LISTEN_FDS") == nullptr) || !has_configuration()) {
    none.store(true, std::memory_order_relaxed);
    return false;
  }
  const int before = errno;
  bool blocks = false;
  const int backlog = thread.inside() ? -1 : backlog_of(fd, blocks);
  const bool taken = backlog < 0 ? !thread.inside() && take_up_activated(fd)
                                 : engine_for_tcp() != nullptr && enter([=](intercept::Engine& e) { return e.take_up_listener(fd, backlog, !blocks); }) == 0;
  errno = before;
  return taken;
}

// 1: ours; 0: the kernel's; -1: an internal one, which does not exist.
int whose(int fd) {
  const intercept::FdKind kind = kind_of(fd);
  if (thread.inside() || kind == intercept::FdKind::epoll) return 0;
  if (kind == intercept::FdKind::reserved) return -1;
  return kind == intercept::FdKind::socket || take_up(fd) ? 1 : 0;
}

}  // namespace

Environment::Environment(char* const* given) : given_(given) {
  memcpy(text_, kVariable, kName);
  size_t length = 0;
  {
    Inside inside;
    length = engine()->describe_listeners(text_ + kName, sizeof text_ - kName);
  }
  if (length == 0) return;
  size_t n = 0;
  while (given != nullptr && given[n] != nullptr) ++n;
  changed_ = static_cast<char**>(malloc((n + 2) * sizeof(char*)));
  if (changed_ == nullptr) return;
  size_t kept = 0;
  for (size_t i = 0; i < n; ++i) {
    if (strncmp(given[i], kVariable, kName) != 0) changed_[kept++] = given[i];
  }
  changed_[kept++] = text_;
  changed_[kept] = nullptr;
}

Environment::~Environment() { free(changed_); }

namespace always {

int getsockname(int fd, sockaddr* a, socklen_t* n) {
  const int owner = whose(fd);
  if (owner > 0) return enter([=](intercept::Engine& e) { return e.getsockname(fd, a, n); });
  return owner < 0 ? translate(-EBADF) : kernel_getsockname(fd, a, n);
}

int listen(int fd, int backlog) {
  int owner = whose(fd);
  // Bound by another process, and no more than that, or made before there was an engine.
  if (owner == 0 && !thread.inside() && is_kernel(fd) && has_configuration() && is_tcp(fd) && option(fd, SO_ACCEPTCONN) == 0) {
    const int before = errno;
    owner = engine_for_tcp() != nullptr && enter([=](intercept::Engine& e) { return e.take_up(fd); }) == 0 ? 1 : 0;
    errno = before;
  }
  if (owner > 0) return enter([=](intercept::Engine& e) { return e.listen(fd, backlog); });
  return owner < 0 ? translate(-EBADF) : next.listen(fd, backlog);
}

int accept(int fd, sockaddr* a, socklen_t* n) {
  const int owner = whose(fd);
  if (owner > 0) return enter([=](intercept::Engine& e) { return e.accept4(fd, a, n, 0); });
  return owner < 0 ? translate(-EBADF) : next.accept(fd, a, n);
}

int accept4(int fd, sockaddr* a, socklen_t* n, int flags) {
  const int owner = whose(fd);
  if (owner > 0) return enter([=](intercept::Engine& e) { return e.accept4(fd, a, n, flags); });
  return owner < 0 ? translate(-EBADF) : next.accept4(fd, a, n, flags);
}

}  // namespace always

void take_up_passed(const msghdr* m) {
  if (!has_configuration()) return;
  const int before = errno;
  msghdr copy = *m;  // for the macros; nothing is written
  for (cmsghdr* c = CMSG_FIRSTHDR(&copy); c != nullptr; c = CMSG_NXTHDR(&copy, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      if (is_kernel(fd) && is_tcp_listener(fd)) (void)take_up_as_it_is(fd);
    }
  }
  errno = before;
}
}  // namespace mtcp::preload

#include "preload/inherited.hh"

#include <stdlib.h>
#include <string.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/relayed_names.hh"

namespace mtcp::preload {
namespace {

constexpr char kVariable[] = "MTCP_LISTENERS=";  // "5:511,6:128,": descriptor and backlog
constexpr size_t kName = sizeof kVariable - 1;

// The backlog with which descriptor `fd` was left to this program; -1: it was not. Each is found once.
int backlog_of(int fd) {
  char* at = getenv("MTCP_LISTENERS");
  while (at != nullptr && *at != '\0') {
    char* end = nullptr;
    const long number = strtol(at, &end, 10);
    const long backlog = *end == ':' ? strtol(end + 1, &end, 10) : -1;
    if (number == fd && backlog >= 0) {
      while (at < end) *at++ = '0';  // "0000000,": standard input is none
      return static_cast<int>(backlog);
    }
    if (*end != ',') break;
    at = end + 1;
  }
  return -1;
}

// A descriptor of the kernel: true if it is such a listener, and the engine's from now on.
bool take_up(int fd) {
  static std::atomic<bool> none;  // the variable is not there
  if (none.load(std::memory_order_relaxed)) [[likely]] return false;
  if (getenv("MTCP_LISTENERS") == nullptr || !has_configuration()) {
    none.store(true, std::memory_order_relaxed);
    return false;
  }
  const int before = errno;
  const int backlog = thread.inside() ? -1 : backlog_of(fd);
  const bool taken = backlog >= 0 && engine_for_tcp() != nullptr &&
                     enter([=](intercept::Engine& e) { return e.take_up_listener(fd, backlog); }) == 0;
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
  const int owner = whose(fd);
  if (owner > 0) return enter([=](intercept::Engine& e) { return e.listen(fd, backlog); });
  return owner < 0 ? translate(-EBADF) : next.listen(fd, backlog);
}

}  // namespace always
}  // namespace mtcp::preload

// Descriptors: closing, copying, flags.
#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/notice.hh"
#include "preload/process.hh"

namespace mtcp::preload {

using intercept::Engine;
using intercept::FdKind;

namespace ours {

int close(int fd) {
  return enter([=](Engine& e) { return e.close(fd); });
}
int fcntl(int fd, int cmd, unsigned long arg) {
  return enter([=](Engine& e) { return e.fcntl(fd, cmd, arg); });
}
int ioctl(int fd, unsigned long request, void* arg) {
  return enter([=](Engine& e) { return e.ioctl(fd, request, arg); });
}
int dup(int fd) {
  return enter([=](Engine& e) { return e.dup(fd); });
}

}  // namespace ours

namespace {

// dup2 and dup3 on descriptors of which at least one is not the kernel's.
int dup_ours(int from, int to, int flags, bool dup2_semantics) {
  return enter([=](Engine& e) { return e.dup3(from, to, flags, dup2_semantics); });
}

// A daemon gives up its standard error.
void before_replacing(int to) {
  if (to == STDERR_FILENO && has_configuration()) [[unlikely]]
    keep_stderr();
}

}  // namespace

namespace always {

int dup2(int from, int to) {
  before_replacing(to);
  if ((is_kernel(from) && is_kernel(to)) || thread.inside()) [[likely]]
    return next.dup2(from, to);
  return dup_ours(from, to, 0, true);
}

int dup3(int from, int to, int flags) {
  before_replacing(to);
  if ((is_kernel(from) && is_kernel(to)) || thread.inside()) [[likely]]
    return next.dup3(from, to, flags);
  return dup_ours(from, to, flags, false);
}

// Spare descriptors of the engine must not be given out where there are to be no more.
int prlimit(pid_t pid, int resource, const rlimit* limit, rlimit* old) {
  const int result = next.prlimit(pid, resource, limit, old);
  if (result != 0 || resource != RLIMIT_NOFILE || limit == nullptr || engine() == nullptr || thread.inside()) return result;
  enter([](Engine& e) { return e.limits_changed(), 0; });
  return result;
}

int setrlimit(int resource, const rlimit* limit) { return prlimit(0, resource, limit, nullptr); }

int close_range(unsigned first, unsigned last, int flags) {
  if (engine() == nullptr || thread.inside()) return next.close_range(first, last, flags);
  return enter([=](Engine& e) { return e.close_range(first, last, flags); });
}

void closefrom(int first) {
  if (engine() == nullptr || thread.inside()) return next.closefrom(first);
  enter([=](Engine& e) { return e.close_range(first < 0 ? 0 : static_cast<unsigned>(first), UINT_MAX, 0); });
}

}  // namespace always
}  // namespace mtcp::preload

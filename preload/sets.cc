// epoll_wait and its kin. A set is the kernel's until it gets a socket of ours, which another thread may put
// into it while one waits: the engine then calls those back that wait in the kernel (FdTable::kernel_waits).
#include <algorithm>

#include "preload/calls.hh"
#include "preload/clock.hh"
#include "preload/edge.hh"
#include "preload/mask.hh"

namespace mtcp::preload {
namespace {

using intercept::Engine;
using intercept::FdKind;

// Counts the calling thread as one that waits in the kernel, while it lives.
class KernelWait {
 public:
  explicit KernelWait(int fd) : count_(process.fds.kernel_waits[fd]), forks_(process.forks) {
    count_.fetch_add(1);
  }
  ~KernelWait() {
    // In a child that a signal handler has forked during the wait the counts began anew.
    if (forks_ == process.forks) count_.fetch_sub(1);
  }
  KernelWait(const KernelWait&) = delete;
  KernelWait& operator=(const KernelWait&) = delete;

 private:
  std::atomic<std::uint16_t>& count_;
  unsigned forks_;
};

bool may_become_ours(int fd) {
  if (process.decided.load(std::memory_order_relaxed) ? engine() == nullptr : !has_configuration())
    return false;
  return make_table() && fd >= 0 && fd < process.fds.size;
}

int without_callback(epoll_event* events, int n) {
  const void* mark = process.fds.callback_mark();
  return static_cast<int>(
      std::remove_if(events, events + n, [mark](const epoll_event& e) { return e.data.ptr == mark; }) -
      events);
}

int wait_in_engine(int fd, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) {
  if (kind_of(fd) == FdKind::reserved) return translate(-EBADF);  // as far as the application knows
  if (!valid(timeout)) return translate(-EINVAL);
  const Mask whole(mask);
  return enter([&](Engine& engine) { return engine.epoll_wait(fd, e, n, timeout, whole.get()); });
}

// `libc` is the call as the application made it.
template <class Libc>
int wait_in(int fd, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask, Libc libc) {
  if (thread.inside()) return libc();
  if (!is_kernel(fd)) return wait_in_engine(fd, e, n, timeout, mask);
  const bool at_once = timeout != nullptr && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
  if (at_once || !may_become_ours(fd)) return libc();
  const timespec end = timeout != nullptr ? deadline(*timeout) : timespec{};
  {
    const KernelWait counted(fd);
    if (is_kernel(fd)) {
      const int ready = libc();
      if (ready <= 0 || is_kernel(fd)) return ready;
      if (const int others = without_callback(e, ready); others > 0) return others;
    }
  }
  if (timeout == nullptr) return wait_in_engine(fd, e, n, nullptr, mask);
  const timespec left = remaining(end);
  return wait_in_engine(fd, e, n, &left, mask);
}

}  // namespace

namespace always {

int epoll_wait(int fd, epoll_event* e, int n, int timeout) {
  timespec t;
  return wait_in(fd, e, n, from_milliseconds(timeout, t), nullptr,
                 [=] { return next.epoll_wait(fd, e, n, timeout); });
}

int epoll_pwait(int fd, epoll_event* e, int n, int timeout, const sigset_t* mask) {
  timespec t;
  return wait_in(fd, e, n, from_milliseconds(timeout, t), mask,
                 [=] { return next.epoll_pwait(fd, e, n, timeout, mask); });
}

int epoll_pwait2(int fd, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) {
  return wait_in(fd, e, n, timeout, mask, [=] { return next.epoll_pwait2(fd, e, n, timeout, mask); });
}

}  // namespace always
}  // namespace mtcp::preload

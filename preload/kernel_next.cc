#include "preload/kernel_next.hh"

#include <errno.h>
#include <fcntl.h>

#include <limits>
#include <new>

#include "preload/raw.hh"
#include "preload/signals.hh"
#include "preload/thread.hh"

namespace mtcp::preload {
namespace {

template <class T>
long word(T v) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<long>(v);
  } else {
    return static_cast<long>(v);
  }
}

template <class R = int, class... A>
R call(long number, A... a) {
  return static_cast<R>(raw_syscall(number, word(a)...));
}

constexpr std::size_t kMaskBytes = sizeof(std::uint64_t);

// Sleeps by `wait`, which takes a timeout. A handler that runs between the last look at the count of signals
// and the moment when the kernel reads the timeout makes it zero: so the wait ends at once instead of missing
// the signal. A wait with a mask of its own needs no such help: who waits for a signal has it blocked until
// the kernel takes the mask, and what the mask keeps out must not end the wait when it runs after it.
template <class Wait>
int interruptible(const timespec* timeout, const sigset_t* mask, Wait wait) {
  if (!thread.sleeping || mask != nullptr) return wait(timeout);
  thread.sleep = timeout != nullptr ? *timeout : timespec{std::numeric_limits<int>::max(), 0};
  signal_fence();
  if (thread.signals != thread.signals_before_sleep) return -EINTR;
  const int result = wait(&thread.sleep);
  signal_fence();
  return result == 0 && thread.signals != thread.signals_before_sleep ? -EINTR : result;
}

class KernelNext final : public intercept::Kernel {
 public:
  int socket(int domain, int type, int protocol) override { return call(SYS_socket, domain, type, protocol); }
  int socketpair(int domain, int type, int protocol, int* ends) override {
    return call(SYS_socketpair, domain, type, protocol, ends);
  }
  int close(int fd) override { return call(SYS_close, fd); }
  int close_range(unsigned first, unsigned last, int flags) override {
    return call(SYS_close_range, first, last, flags);
  }
  int bind(int fd, const sockaddr* a, socklen_t n) override { return call(SYS_bind, fd, a, n); }
  int listen(int fd, int backlog) override { return call(SYS_listen, fd, backlog); }
  int connect(int fd, const sockaddr* a, socklen_t n) override { return call(SYS_connect, fd, a, n); }
  int accept4(int fd, sockaddr* a, socklen_t* n, int flags) override {
    return call(SYS_accept4, fd, a, n, flags);
  }
  int getsockname(int fd, sockaddr* a, socklen_t* n) override { return call(SYS_getsockname, fd, a, n); }
  int getpeername(int fd, sockaddr* a, socklen_t* n) override { return call(SYS_getpeername, fd, a, n); }
  int getsockopt(int fd, int level, int name, void* v, socklen_t* n) override {
    return call(SYS_getsockopt, fd, level, name, v, n);
  }
  int setsockopt(int fd, int level, int name, const void* v, socklen_t n) override {
    return call(SYS_setsockopt, fd, level, name, v, n);
  }
  int fcntl(int fd, int cmd, long arg) override { return call(SYS_fcntl, fd, cmd, arg); }
  int ioctl(int fd, unsigned long request, void* arg) override { return call(SYS_ioctl, fd, request, arg); }
  int dup3(int from, int to, int flags) override {
    // dup3 refuses equal numbers; dup2 gives them back if they are open.
    if (from != to || flags != 0) return call(SYS_dup3, from, to, flags);
    const int open = call(SYS_fcntl, from, F_GETFD, 0);
    return open < 0 ? open : to;
  }
  ssize_t read(int fd, void* p, size_t n) override { return call<ssize_t>(SYS_read, fd, p, n); }
  ssize_t write(int fd, const void* p, size_t n) override { return call<ssize_t>(SYS_write, fd, p, n); }
  ssize_t preadv(int fd, const iovec* v, int n, off_t offset) override {
    return offset == -1 ? call<ssize_t>(SYS_readv, fd, v, n) : call<ssize_t>(SYS_preadv, fd, v, n, offset, 0);
  }
  ssize_t sendfile(int out, int in, off_t* offset, size_t n) override {
    return call<ssize_t>(SYS_sendfile, out, in, offset, n);
  }
  ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t n, unsigned flags) override {
    return call<ssize_t>(SYS_splice, in, in_offset, out, out_offset, n, flags);
  }
  ssize_t vmsplice(int fd, const iovec* v, size_t n, unsigned flags) override {
    return call<ssize_t>(SYS_vmsplice, fd, v, n, flags);
  }
  ssize_t recvmsg(int fd, msghdr* m, int flags) override { return call<ssize_t>(SYS_recvmsg, fd, m, flags); }
  ssize_t sendmsg(int fd, const msghdr* m, int flags) override {
    return call<ssize_t>(SYS_sendmsg, fd, m, flags);
  }
  int shutdown(int fd, int how) override { return call(SYS_shutdown, fd, how); }
  int epoll_create1(int flags) override { return call(SYS_epoll_create1, flags); }
  int epoll_ctl(int ep, int op, int fd, epoll_event* e) override {
    return call(SYS_epoll_ctl, ep, op, fd, e);
  }
  int epoll_pwait2(int ep, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) override {
    return interruptible(timeout, mask, [=](const timespec* t) {
      return call(SYS_epoll_pwait2, ep, e, n, t, mask, kMaskBytes);
    });
  }
  int ppoll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) override {
    timespec copy;  // the kernel writes what is left into it
    if (timeout != nullptr) copy = *timeout;
    return interruptible(timeout != nullptr ? &copy : nullptr, mask,
                         [=](const timespec* t) { return call(SYS_ppoll, p, n, t, mask, kMaskBytes); });
  }
  int eventfd(unsigned initial, int flags) override { return call(SYS_eventfd2, initial, flags); }
  int send_signal(int owner_type, pid_t id, int signal) override {
    if (owner_type == F_OWNER_TID) return call(SYS_tkill, id, signal);
    return call(SYS_kill, owner_type == F_OWNER_PGRP ? -id : id, signal);
  }
  int set_signal_mask(int how, const sigset_t* set, sigset_t* old) override {
    return change_mask(how, set, old);
  }
};

// Never destroyed: threads may still be in it while the process ends.
alignas(KernelNext) unsigned char storage[sizeof(KernelNext)];

}  // namespace

intercept::Kernel* kernel_next() { return new (storage) KernelNext; }

}  // namespace mtcp::preload

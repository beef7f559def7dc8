// The kernel, injected: what intercept needs of it. In a real process preload implements this over libc's own
// functions (so that DPDK's and our own calls are never mistaken for the application's); tests give a fake.
// All calls return what the system call returns, with -errno instead of -1.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include <cstdint>

namespace mtcp::intercept {

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual int socket(int domain, int type, int protocol) = 0;
  virtual int socketpair(int domain, int type, int protocol, int* ends) = 0;
  virtual int close(int fd) = 0;
  virtual int close_range(unsigned first, unsigned last, int flags) = 0;
  virtual int bind(int fd, const sockaddr* a, socklen_t n) = 0;
  virtual int listen(int fd, int backlog) = 0;
  virtual int connect(int fd, const sockaddr* a, socklen_t n) = 0;
  virtual int accept4(int fd, sockaddr* a, socklen_t* n, int flags) = 0;
  virtual int getsockname(int fd, sockaddr* a, socklen_t* n) = 0;
  virtual int getpeername(int fd, sockaddr* a, socklen_t* n) = 0;
  virtual int getsockopt(int fd, int level, int name, void* v, socklen_t* n) = 0;
  virtual int setsockopt(int fd, int level, int name, const void* v, socklen_t n) = 0;
  virtual int fcntl(int fd, int cmd, long arg) = 0;
  virtual int ioctl(int fd, unsigned long request, void* arg) = 0;
  virtual int dup3(int from, int to, int flags) = 0;  // flags 0 and from == to: dup2
  virtual ssize_t read(int fd, void* p, size_t n) = 0;
  virtual ssize_t write(int fd, const void* p, size_t n) = 0;
  virtual ssize_t preadv(int fd, const iovec* v, int n, off_t offset) = 0;  // offset -1: readv
  virtual ssize_t sendfile(int out, int in, off_t* offset, size_t n) = 0;
  virtual ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t n, unsigned flags) = 0;
  virtual ssize_t vmsplice(int fd, const iovec* v, size_t n, unsigned flags) = 0;
  virtual ssize_t recvmsg(int fd, msghdr* m, int flags) = 0;
  virtual ssize_t sendmsg(int fd, const msghdr* m, int flags) = 0;
  virtual int shutdown(int fd, int how) = 0;
  virtual int epoll_create1(int flags) = 0;
  virtual int epoll_ctl(int ep, int op, int fd, epoll_event* e) = 0;
  virtual int epoll_pwait2(int ep, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) = 0;
  virtual int ppoll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) = 0;
  virtual int eventfd(unsigned initial, int flags) = 0;
  // To a thread, process or process group (F_OWNER_...), as kill(2).
  virtual int send_signal(int owner_type, pid_t id, int signal) = 0;
  virtual int set_signal_mask(int how, const sigset_t* set, sigset_t* old) = 0;  // of the calling thread
};

}  // namespace mtcp::intercept

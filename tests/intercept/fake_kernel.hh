// The kernel as tests give it to the socket layer: real descriptors of this process, with every call counted
// and failures on demand, so that a test can say how many system calls something took.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "intercept/kernel.hh"

namespace mtcp::intercept::testing {

class FakeKernel final : public Kernel {
 public:
  // How often each call has been made, by its name.
  std::map<std::string, int> calls;
  // The next call of this name fails with this errno, once.
  std::map<std::string, int> fail_next;
  // What other processes do right after the next ioctl, once.
  std::function<void()> after_ioctl;
  // Off in tests of many threads: the lock of the counters would hide races from ThreadSanitizer.
  bool counting = true;

  [[nodiscard]] int total() const {
    int sum = 0;
    for (const auto& [name, n] : calls) sum += n;
    return sum;
  }

  int socket(int d, int t, int p) override {
    return call("socket", [&] { return ::socket(d, t, p); });
  }
  int socketpair(int d, int t, int p, int* ends) override {
    return call("socketpair", [&] { return ::socketpair(d, t, p, ends); });
  }
  int close(int fd) override {
    return call("close", [&] { return ::close(fd); });
  }
  int close_range(unsigned a, unsigned b, int f) override {
    return call("close_range", [&] { return static_cast<int>(::syscall(SYS_close_range, a, b, f)); });
  }
  int bind(int fd, const sockaddr* a, socklen_t n) override {
    return call("bind", [&] { return ::bind(fd, a, n); });
  }
  int listen(int fd, int b) override {
    return call("listen", [&] { return ::listen(fd, b); });
  }
  int connect(int fd, const sockaddr* a, socklen_t n) override {
    return call("connect", [&] { return ::connect(fd, a, n); });
  }
  int accept4(int fd, sockaddr* a, socklen_t* n, int f) override {
    return call("accept4", [&] { return ::accept4(fd, a, n, f); });
  }
  int getsockname(int fd, sockaddr* a, socklen_t* n) override {
    return call("getsockname", [&] { return ::getsockname(fd, a, n); });
  }
  int getpeername(int fd, sockaddr* a, socklen_t* n) override {
    return call("getpeername", [&] { return ::getpeername(fd, a, n); });
  }
  int getsockopt(int fd, int l, int o, void* v, socklen_t* n) override {
    return call("getsockopt", [&] { return ::getsockopt(fd, l, o, v, n); });
  }
  int setsockopt(int fd, int l, int o, const void* v, socklen_t n) override {
    return call("setsockopt", [&] { return ::setsockopt(fd, l, o, v, n); });
  }
  int fcntl(int fd, int c, long a) override {
    return call("fcntl", [&] { return ::fcntl(fd, c, a); });
  }
  int ioctl(int fd, unsigned long r, void* a) override {
    const int result = call("ioctl", [&] { return ::ioctl(fd, r, a); });
    if (const auto then = std::exchange(after_ioctl, nullptr)) then();
    return result;
  }
  int dup3(int from, int to, int f) override {
    return call("dup3", [&] { return from == to && f == 0 ? ::dup2(from, to) : ::dup3(from, to, f); });
  }
  ssize_t read(int fd, void* p, size_t n) override {
    return call("read", [&] { return ::read(fd, p, n); });
  }
  ssize_t write(int fd, const void* p, size_t n) override {
    return call("write", [&] { return ::write(fd, p, n); });
  }
  ssize_t preadv(int fd, const iovec* v, int n, off_t o) override {
    return call("preadv", [&] { return o == -1 ? ::readv(fd, v, n) : ::preadv(fd, v, n, o); });
  }
  ssize_t sendfile(int out, int in, off_t* o, size_t n) override {
    return call("sendfile", [&] { return ::sendfile(out, in, o, n); });
  }
  ssize_t splice(int in, off_t* io, int out, off_t* oo, size_t n, unsigned f) override {
    return call("splice", [&] { return ::splice(in, io, out, oo, n, f); });
  }
  ssize_t vmsplice(int fd, const iovec* v, size_t n, unsigned f) override {
    return call("vmsplice", [&] { return ::vmsplice(fd, v, n, f); });
  }
  ssize_t recvmsg(int fd, msghdr* m, int f) override {
    return call("recvmsg", [&] { return ::recvmsg(fd, m, f); });
  }
  ssize_t sendmsg(int fd, const msghdr* m, int f) override {
    return call("sendmsg", [&] { return ::sendmsg(fd, m, f); });
  }
  int shutdown(int fd, int how) override {
    return call("shutdown", [&] { return ::shutdown(fd, how); });
  }
  int epoll_create1(int f) override {
    return call("epoll_create1", [&] { return ::epoll_create1(f); });
  }
  int epoll_ctl(int ep, int op, int fd, epoll_event* e) override {
    return call("epoll_ctl", [&] { return ::epoll_ctl(ep, op, fd, e); });
  }
  int epoll_pwait2(int ep, epoll_event* e, int n, const timespec* t, const sigset_t* m) override {
    return call("epoll_pwait2", [&] { return ::epoll_pwait2(ep, e, n, t, m); });
  }
  int ppoll(pollfd* p, nfds_t n, const timespec* t, const sigset_t* m) override {
    return call("ppoll", [&] { return ::ppoll(p, n, t, m); });
  }
  int eventfd(unsigned i, int f) override {
    return call("eventfd", [&] { return ::eventfd(i, f); });
  }
  int send_signal(int type, pid_t id, int signal) override {
    return call("send_signal", [&] {
      if (type == F_OWNER_TID) return static_cast<int>(::syscall(SYS_tkill, id, signal));
      return ::kill(type == F_OWNER_PGRP ? -id : id, signal);
    });
  }
  int set_signal_mask(int how, const sigset_t* s, sigset_t* old) override {
    return ::pthread_sigmask(how, s, old) == 0 ? 0 : -EINVAL;
  }

 private:
  std::mutex counters_;
  template <typename F>
  auto call(const char* name, F f) -> decltype(f()) {
    if (counting) {
      const std::lock_guard guard(counters_);
      ++calls[name];
      if (const auto i = fail_next.find(name); i != fail_next.end()) {
        const int error = i->second;
        fail_next.erase(i);
        return static_cast<decltype(f())>(-error);
      }
    }
    const auto result = f();
    return result < 0 ? static_cast<decltype(f())>(-errno) : result;
  }
};

}  // namespace mtcp::intercept::testing

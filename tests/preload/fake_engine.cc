#include "tests/preload/fake_engine.hh"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <unistd.h>

namespace mtcp::preload {
namespace {

using intercept::Engine;
using intercept::FdKind;
using intercept::Services;

// Never destroyed: at_exit() comes after destructors.
FakeControl& control = *new FakeControl;

// FAKE_ENGINE=refuse: no socket is ever taken.
bool refuses() {
  static const bool value = [] {
    const char* mode = getenv("FAKE_ENGINE");
    return mode != nullptr && strcmp(mode, "refuse") == 0;
  }();
  return value;
}

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(const Services& services) : services_(services) {}

  int socket(int domain, int type, int protocol) override {
    if (refuses()) return -ENOTSUP;
    return enter<int>([&] { return mark(::socket(domain, type, protocol), FdKind::socket); },
                      "socket domain=%d type=%d protocol=%d", domain, type, protocol);
  }
  int bind(int fd, const sockaddr* a, socklen_t n) override {
    return enter<int>([&] { return ::bind(fd, a, n); }, "bind fd=%d n=%u", fd, n);
  }
  int listen(int fd, int backlog) override {
    return enter<int>([&] { return ::listen(fd, backlog); }, "listen fd=%d backlog=%d", fd, backlog);
  }
  int accept4(int fd, sockaddr* a, socklen_t* n, int flags) override {
    return sleepy<int>([&] { return mark(::accept4(fd, a, n, flags), FdKind::socket); },
                       "accept4 fd=%d flags=%d", fd, flags);
  }
  int connect(int fd, const sockaddr* a, socklen_t n) override {
    return sleepy<int>([&] { return ::connect(fd, a, n); }, "connect fd=%d n=%u", fd, n);
  }
  int shutdown(int fd, int how) override {
    return enter<int>([&] { return ::shutdown(fd, how); }, "shutdown fd=%d how=%d", fd, how);
  }
  int close(int fd) override {
    return enter<int>(
        [&] {
          services_.fds->set(fd, FdKind::kernel);
          return ::close(fd);
        },
        "close fd=%d", fd);
  }
  int getsockname(int fd, sockaddr* a, socklen_t* n) override {
    return enter<int>([&] { return ::getsockname(fd, a, n); }, "getsockname fd=%d", fd);
  }
  int getpeername(int fd, sockaddr* a, socklen_t* n) override {
    return enter<int>([&] { return ::getpeername(fd, a, n); }, "getpeername fd=%d", fd);
  }
  int getsockopt(int fd, int level, int name, void* v, socklen_t* n) override {
    return enter<int>([&] { return ::getsockopt(fd, level, name, v, n); },
                      "getsockopt fd=%d level=%d name=%d", fd, level, name);
  }
  int setsockopt(int fd, int level, int name, const void* v, socklen_t n) override {
    return enter<int>([&] { return ::setsockopt(fd, level, name, v, n); },
                      "setsockopt fd=%d level=%d name=%d", fd, level, name);
  }
  int fcntl(int fd, int cmd, unsigned long arg) override {
    const bool copies = cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC;
    return enter<int>(
        [&] {
          const int result = ::fcntl(fd, cmd, arg);
          return copies ? mark(result, services_.fds->kind(fd)) : result;
        },
        "fcntl fd=%d cmd=%d arg=%lu", fd, cmd, arg);
  }
  int ioctl(int fd, unsigned long request, void* arg) override {
    return enter<int>([&] { return ::ioctl(fd, request, arg); }, "ioctl fd=%d request=%lu", fd, request);
  }
  int dup(int fd) override {
    return enter<int>([&] { return mark(::dup(fd), services_.fds->kind(fd)); }, "dup fd=%d", fd);
  }
  int dup3(int from, int to, int flags, bool dup2_semantics) override {
    return enter<int>(
        [&] {
          const FdKind kind = services_.fds->kind(from);
          return mark(dup2_semantics ? ::dup2(from, to) : ::dup3(from, to, flags), kind);
        },
        "dup3 from=%d to=%d flags=%d dup2=%d", from, to, flags, dup2_semantics ? 1 : 0);
  }
  int close_range(unsigned first, unsigned last, int flags) override {
    return enter<int>(
        [&] {
          const auto end = std::min<unsigned>(last, static_cast<unsigned>(services_.fds->size) - 1);
          for (unsigned fd = first; flags == 0 && fd <= end; ++fd)
            services_.fds->set(static_cast<int>(fd), FdKind::kernel);
          return ::close_range(first, last, flags);
        },
        "close_range first=%u last=%u flags=%d", first, last, flags);
  }

  ssize_t recvmsg(int fd, msghdr* m, int flags) override {
    return sleepy<ssize_t>([&] { return ::recvmsg(fd, m, flags); }, "recvmsg fd=%d iov=%zu flags=%d", fd,
                           m->msg_iovlen, flags);
  }
  ssize_t sendmsg(int fd, const msghdr* m, int flags) override {
    return sleepy<ssize_t>([&] { return ::sendmsg(fd, m, flags | MSG_NOSIGNAL); },
                           "sendmsg fd=%d iov=%zu flags=%d", fd, m->msg_iovlen, flags);
  }
  ssize_t recv(int fd, void* p, size_t n, int flags) override {
    return sleepy<ssize_t>([&] { return ::recv(fd, p, n, flags); }, "recv fd=%d n=%zu flags=%d", fd, n,
                           flags);
  }
  ssize_t send(int fd, const void* p, size_t n, int flags) override {
    return sleepy<ssize_t>([&] { return ::send(fd, p, n, flags | MSG_NOSIGNAL); },
                           "send fd=%d n=%zu flags=%d", fd, n, flags);
  }
  ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t n, unsigned flags) override {
    return sleepy<ssize_t>([&] { return ::splice(in, in_offset, out, out_offset, n, flags); }, "splice in=%d out=%d n=%zu", in, out, n);
  }
  ssize_t sendfile(int out, int in, off_t* offset, size_t n) override {
    return sleepy<ssize_t>([&] { return send_file(out, in, offset, n); }, "sendfile out=%d in=%d n=%zu", out,
                           in, n);
  }

  int epoll_ctl(int ep, int op, int fd, epoll_event* e) override {
    return enter<int>([&] { return ::epoll_ctl(ep, op, fd, e); }, "epoll_ctl ep=%d op=%d fd=%d", ep, op, fd);
  }
  int epoll_wait(int ep, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) override {
    return sleepy<int>([&] { return as_libc(services_.kernel->epoll_pwait2(ep, e, n, timeout, mask)); },
                       "epoll_wait ep=%d n=%d %s mask=%s", ep, n, text(timeout).c_str(), text(mask));
  }
  int poll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) override {
    return sleepy<int>([&] { return as_libc(services_.kernel->ppoll(p, n, timeout, mask)); },
                       "poll n=%lu %s mask=%s", n, text(timeout).c_str(), text(mask));
  }
  int select(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout, const sigset_t* mask) override {
    return sleepy<int>([&] { return ::pselect(n, r, w, x, timeout, mask); }, "select n=%d %s mask=%s", n,
                       text(timeout).c_str(), text(mask));
  }

  void pass_descriptors(const msghdr* m) override { record("pass_descriptors control=%zu", m->msg_controllen); }
  void before_fork() override { record("before_fork"); }
  void after_fork(bool child) override { record("after_fork child=%d", child ? 1 : 0); }
  void before_exec() override { record("before_exec"); }
  void after_failed_exec() override { record("after_failed_exec"); }
  intercept::Start* before_spawn(const intercept::SpawnAction* actions, std::size_t n, bool for_long) override {
    std::string text;
    for (std::size_t i = 0; i < n; ++i) {
      const char* kinds[] = {"dup2", "close", "close_from"};
      text += std::string(" ") + kinds[static_cast<int>(actions[i].kind)] + "=" + std::to_string(actions[i].fd);
      if (actions[i].to >= 0) text += "," + std::to_string(actions[i].to);
    }
    record("before_spawn%s%s", for_long ? " for_long" : "", text.c_str());
    return nullptr;
  }
  void after_spawn(intercept::Start*, bool made) override { record("after_spawn made=%d", made ? 1 : 0); }
  std::size_t describe_listeners(char* text, std::size_t room) override {
    const int n = snprintf(text, room, "%s", control.listeners.c_str());
    return static_cast<std::size_t>(n);
  }
  int take_up(int fd) override { return enter<int>([] { return -1; }, "take_up fd=%d", fd); }
  int bind_beside(int fd, const sockaddr*, socklen_t n) override {
    return enter<int>([] { return -1; }, "bind_beside fd=%d n=%u", fd, n);
  }
  void limits_changed() override {
    enter<int>([] { return 0; }, "limits_changed");
  }
  int take_up_listener(int fd, int backlog, bool nonblocking) override {
    return enter<int>([&] { return mark(fd, FdKind::socket) >= 0 ? 0 : -1; }, "take_up_listener fd=%d backlog=%d nonblocking=%d", fd, backlog,
                      nonblocking ? 1 : 0);
  }
  void before_privileges() override { record("before_privileges"); }
  void at_exit() override {
    record("at_exit");
    if (control.exit_fd >= 0 && ::write(control.exit_fd, "x", 1) != 1) abort();
  }
  void dying() override {
    if (control.exit_fd >= 0 && ::write(control.exit_fd, "d", 1) != 1) abort();
  }

 private:
  __attribute__((format(printf, 2, 3))) void record(const char* format, ...) {
    va_list args;
    va_start(args, format);
    record_list(format, args);
    va_end(args);
  }
  void record_list(const char* format, va_list args) {
    if (!control.recording) return;
    char line[200];
    vsnprintf(line, sizeof line, format, args);
    control.calls.emplace_back(line);
  }

  static std::string text(const timespec* t) {
    if (t == nullptr) return "timeout=none";
    return "timeout=" + std::to_string(t->tv_sec) + "s" + std::to_string(t->tv_nsec) + "ns";
  }
  static const char* text(const sigset_t* mask) { return mask != nullptr ? "given" : "none"; }

  int mark(int fd, FdKind kind) {
    if (fd >= 0) services_.fds->set(fd, kind);
    return fd;
  }
  static int as_libc(int result) {
    if (result >= 0) return result;
    errno = -result;
    return -1;
  }
  // The kernel's raises SIGPIPE, which is the shim's to do.
  static ssize_t send_file(int out, int in, off_t* offset, size_t n) {
    sigset_t pipe, before;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    const ssize_t sent = ::sendfile(out, in, offset, n);
    const int why = errno;
    if (sent < 0 && why == EPIPE) {
      const timespec now{};
      sigtimedwait(&pipe, nullptr, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = why;
    return sent;
  }

  // What the test wants done or returned; else `real`, by the libc names, which lead to libc in here.
  template <class R, class F>
  __attribute__((format(printf, 3, 4))) R enter(F real, const char* format, ...) {
    va_list args;
    va_start(args, format);
    record_list(format, args);
    va_end(args);
    if (control.during) {
      const auto f = std::move(control.during);
      control.during = nullptr;
      f();
    }
    if (!control.results.empty()) {
      const long result = control.results.front();
      control.results.pop_front();
      return static_cast<R>(result);
    }
    const R result = real();
    return result >= 0 ? result : -errno;
  }
  // The same for what may wait.
  template <class R, class F, class... A>
  R sleepy(F real, const char* format, A... a) {
    return enter<R>(
        [&] {
          services_.begin_sleep();
          const R result = real();
          const int why = errno;
          services_.end_sleep();
          errno = why;
          return result;
        },
        format, a...);
  }

  const Services& services_;
};

}  // namespace
}  // namespace mtcp::preload

using namespace mtcp::preload;

extern "C" __attribute__((visibility("default"))) FakeControl* fake_control() { return &control; }

extern "C" __attribute__((visibility("default"))) Engine* mtcp_engine_entry(
    std::uint32_t abi, const Services* services, mtcp::intercept::EngineFailure* failure) {
  const char* mode = getenv("FAKE_ENGINE");
  if (abi != mtcp::intercept::kEngineAbi) abort();
  if (mode != nullptr && strcmp(mode, "fail") == 0) {
    failure->message = "the fake engine fails";
    return nullptr;
  }
  if (mode != nullptr && strcmp(mode, "bad-configuration") == 0) {
    *failure = {.message = "x.toml:1:2: the fake engine dislikes this",
                .exit_status = mtcp::intercept::kExitConfiguration};
    return nullptr;
  }
  control.services = services;
  static FakeEngine* engine = new FakeEngine(*services);
  return engine;
}

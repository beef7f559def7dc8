// A thread of an event-driven program, for the tests of several stacks in one process.
#pragma once

#include <errno.h>
#include <sys/epoll.h>

#include <array>
#include <map>

#include "tests/intercept/threads.hh"

namespace mtcp::intercept::testing {

inline int watch(Threads& t, int ep, int fd, std::uint32_t events) {
  epoll_event e{};
  e.events = events;
  e.data.fd = fd;
  return t.bench->epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

// A thread with a listener and an epoll set, as an event loop has them: serves what comes to its listener, and talks to others'.
class Loop {
 public:
  explicit Loop(Threads& t) : t_(t), ep_(::epoll_create1(EPOLL_CLOEXEC)) {}
  ~Loop() {
    for (const auto& [fd, client] : open_) t_.bench->close(fd);
    if (listener_ >= 0) t_.bench->close(listener_);
    if (t_.bench->close(ep_) != 0) ::close(ep_);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // `reuse`: SO_REUSEPORT.
  static int make_listener(Threads& t, const char* address, std::uint16_t port, bool reuse) {
    const int fd = t.bench.tcp(SOCK_NONBLOCK);
    const sockaddr_in a = Bench::address(address, port);
    if (reuse) t.expect(t.bench.set(fd, SOL_SOCKET, SO_REUSEPORT, 1) == 0);
    t.expect(t.bench->bind(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0);
    t.expect(t.bench->listen(fd, 64) == 0);
    return fd;
  }
  // It is this one's from now on.
  void serve_listener(int fd) {
    listener_ = fd;
    t_.expect(watch(t_, ep_, listener_, EPOLLIN) == 0);
  }
  std::uint16_t listen(const char* address = kOwn, std::uint16_t port = 0, bool reuse = false) {
    serve_listener(make_listener(t_, address, port, reuse));
    return t_.bench.port_of(listener_);
  }
  // The socket.
  int connect(std::uint16_t port, const char* host = kOwn) {
    const int fd = t_.bench.tcp(SOCK_NONBLOCK);
    const int error = t_.bench.connect(fd, host, port);
    t_.expect(error == 0 || error == -EINPROGRESS);
    open_[fd] = true;
    t_.expect(watch(t_, ep_, fd, EPOLLIN | EPOLLOUT | EPOLLET) == 0);
    return fd;
  }
  // Another thread has accepted it.
  void serve_connection(int fd) {
    open_[fd] = false;
    t_.expect(watch(t_, ep_, fd, EPOLLIN) == 0);
  }
  [[nodiscard]] int set() const { return ep_; }
  [[nodiscard]] std::size_t connections() const { return open_.size(); }
  [[nodiscard]] int listener() const { return listener_; }
  // One wait with what comes of it.
  void turn() {
    std::array<epoll_event, 16> out;
    const timespec moment{.tv_sec = 0, .tv_nsec = 1'000'000};
    const int n = t_.bench->epoll_wait(ep_, out.data(), static_cast<int>(out.size()), &moment, nullptr);
    for (int i = 0; i < n; ++i) {
      const int fd = out[static_cast<std::size_t>(i)].data.fd;
      fd == listener_ ? accept() : open_[fd] ? hear(fd, out[static_cast<std::size_t>(i)].events) : serve(fd);
    }
  }
  int answers = 0;   // to what this one has said
  int accepted = 0;

 private:
  void accept() {
    for (int fd = 0; (fd = t_.bench->accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
      ++accepted;
      serve_connection(fd);
    }
  }
  void serve(int fd) {
    std::array<char, 64> buffer;
    const ssize_t n = t_.bench->recv(fd, buffer.data(), buffer.size(), 0);
    if (n == -EAGAIN) return;
    if (n > 0) {  // who asked may be gone
      (void)t_.bench->send(fd, buffer.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL);
      return;
    }
    t_.expect(t_.bench->close(fd) == 0);
    open_.erase(fd);
  }
  // Says four things, each when the last is answered, and closes.
  void hear(int fd, std::uint32_t events) {
    int& said = said_[fd];
    char byte = 0;
    if (said > 0) {
      const ssize_t n = t_.bench->recv(fd, &byte, 1, 0);
      if (n == -EAGAIN) return;
      t_.expect(n == 1 && byte == static_cast<char>('0' + said));
      ++answers;
    } else if ((events & EPOLLOUT) == 0) {
      return;
    }
    if (++said <= 4) {
      byte = static_cast<char>('0' + said);
      return t_.expect(t_.bench->send(fd, &byte, 1, MSG_NOSIGNAL) == 1);
    }
    said_.erase(fd);
    open_.erase(fd);
    t_.expect(t_.bench->close(fd) == 0);
  }

  Threads& t_;
  int ep_;
  int listener_ = -1;
  std::map<int, bool> open_;  // whether it is one that this thread has connected
  std::map<int, int> said_;
};

}  // namespace mtcp::intercept::testing

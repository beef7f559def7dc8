// An epoll set for the cases.
#pragma once

#include <sys/epoll.h>

#include "tests/parity/net.hh"

namespace parity {

class Epoll {
 public:
  explicit Epoll(int flags = EPOLL_CLOEXEC) : fd_(::epoll_create1(flags)) { REQUIRE(fd_ >= 0); }
  operator int() const { return fd_; }  // NOLINT: every call wants an int

  // The descriptor itself is the event's data.
  [[nodiscard]] Errno control(int op, int fd, std::uint32_t events) const {
    epoll_event e{};
    e.events = events;
    e.data.fd = fd;
    return error_of(::epoll_ctl(fd_, op, fd, &e));
  }
  void add(int fd, std::uint32_t events) const { REQUIRE(control(EPOLL_CTL_ADD, fd, events) == 0); }
  void modify(int fd, std::uint32_t events) const { REQUIRE(control(EPOLL_CTL_MOD, fd, events) == 0); }
  void remove(int fd) const { REQUIRE(control(EPOLL_CTL_DEL, fd, 0) == 0); }

  [[nodiscard]] std::vector<epoll_event> wait(int timeout = 2000, int limit = 64) const {
    std::vector<epoll_event> events(static_cast<std::size_t>(limit));
    const int n = ::epoll_wait(fd_, events.data(), limit, timeout);
    REQUIRE(error_of(n) == 0);
    events.resize(static_cast<std::size_t>(n));
    return events;
  }
  // Waits for one event, which must be of `fd`; answers what it says, 0 if none came.
  [[nodiscard]] std::uint32_t next(int fd, int timeout = 2000) const {
    const auto events = wait(timeout);
    if (events.empty()) return 0;
    REQUIRE(events.size() == 1);
    REQUIRE(events[0].data.fd == fd);
    return events[0].events;
  }
  [[nodiscard]] bool quiet(int time = 30) const { return wait(time).empty(); }

 private:
  Fd fd_;
};

}  // namespace parity

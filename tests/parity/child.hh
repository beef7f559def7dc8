// A child that can be left alone, and what it does with a connection that it shares with its parent.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include <functional>
#include <utility>

#include "tests/parity/net.hh"

namespace parity {

// A child that runs `body`, whose result is its exit status; it is killed and waited for at the end of the
// scope.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    int status = 99;
    try {
      status = body();
    } catch (...) {
    }
    ::_exit(status);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    (void)wait_for_child(pid_);
  }
  int wait() { return wait_for_child(std::exchange(pid_, -1)); }

 private:
  pid_t pid_;
};

// A pipe by which processes wait for each other. A copy of the other end in a third process does not matter.
class Gate {
 public:
  Gate() { REQUIRE(::pipe2(fds_, O_CLOEXEC) == 0); }
  ~Gate() {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() const { (void)!::write(fds_[1], "x", 1); }
  void wait() const {
    char c = 0;
    (void)!::read(fds_[0], &c, 1);
  }

 private:
  int fds_[2];
};

inline int echo_until_end(int fd) {
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) return 0;
    if (n < 0) return 1;
    if (!send_all(fd, {buffer, static_cast<std::size_t>(n)})) return 2;
  }
}

inline bool ends(int fd) { return receive_until_end(fd).empty(); }

}  // namespace parity

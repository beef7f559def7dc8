// Tests of devices in processes of their own: DPDK starts once per process, and dying is part of the subject.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <utility>

#include "stack/base/time.hh"

namespace mtcp::test {

// In a child a failed expectation says where and ends it.
#define EXPECT(condition)                                                      \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition); \
      _exit(1);                                                                \
    }                                                                          \
  } while (false)

inline stack::Time now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return stack::Time(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

// Repeats `step` until it returns true; false when `limit` has passed and it has not returned true after that
// either, so that a machine that stands still meanwhile is not taken for a device that does. Devices and
// other processes have no virtual clock.
template <typename Step>
bool within(stack::Duration limit, Step step) {
  const stack::Time end = now() + limit;
  for (bool last = false; !step(); last = now() > end)
    if (last) return false;
  return true;
}

// A process that runs `body` and exits with 0, or with 1 at the first EXPECT that fails. Killed with its
// owner.
class Process {
 public:
  template <typename Body>
  explicit Process(Body body) {
    std::array<int, 2> to_parent{}, to_child{};
    if (pipe2(to_parent.data(), O_CLOEXEC) != 0 || pipe2(to_child.data(), O_CLOEXEC) != 0) abort();
    fflush(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      alarm(90);
      close(to_parent[0]);
      close(to_child[1]);
      read_ = to_child[0];
      write_ = to_parent[1];
      body(*this);
      fflush(nullptr);
      _exit(0);
    }
    close(to_parent[1]);
    close(to_child[0]);
    read_ = to_parent[0];
    write_ = to_child[1];
  }
  ~Process() {
    if (pid_ > 0) kill_hard();
    close(read_);
    close(write_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // One byte to the other side, and from it. wait() is false when the other side is gone.
  void tell() const {
    if (write(write_, "x", 1) != 1) _exit(1);
  }
  [[nodiscard]] bool wait() const {
    char c;
    return read(read_, &c, 1) == 1;
  }
  // The other side has told something that has not been read.
  [[nodiscard]] bool told() const {
    pollfd p{read_, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  }

  // 0 if the body ran to its end.
  int join() {
    int status = 0;
    waitpid(std::exchange(pid_, 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // Leaves a zombie, as a parent does that has not looked yet.
  void kill_without_wait() const { kill(pid_, SIGKILL); }
  void kill_hard() {
    kill(pid_, SIGKILL);
    waitpid(std::exchange(pid_, 0), nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
  int read_ = -1, write_ = -1;
};

}  // namespace mtcp::test

// For tests that run under the shim with the fake engine.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/preload/fake_engine.hh"

namespace mtcp::preload {

// The engine's control; loads the engine if need be (by a socket) and starts a clean recording.
FakeControl& control();

// The calls recorded since the last look.
std::vector<std::string> recorded();

// The one call recorded since the last look, with the descriptor, if it is the first argument, as @.
std::string only_call(int fd);

// A descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& o) noexcept : fd_(o.release()) {}
  Fd& operator=(Fd&&) = delete;
  operator int() const { return fd_; }  // NOLINT: it stands for the number
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

// Two connected TCP sockets, both the (fake) engine's.
struct Connected {
  Connected();
  Fd a, b;
};

// "recv fd=@ n=10" with the descriptor in place of @.
std::string with_fd(std::string text, int fd);

// Runs f in a child made by fork; its exit status (f's result), or -signal.
int in_child(const std::function<int()>& f);

}  // namespace mtcp::preload

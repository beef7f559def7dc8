// Sockets that a program gets from another one, by exec or in a message. To the kernel they are its own. A program that left
// listeners of the stack by exec says so in a variable of the environment, socket activation (sd_listen_fds(3)) in another
// one; such a listener is taken up when the program first asks for its name, listens on it or accepts. A bound one is when it
// listens, one that comes in a message at once.
#pragma once

#include <stddef.h>
#include <sys/socket.h>

namespace mtcp::preload {

// The environment of a program that is about to be executed: `given`, and the variable if it is to have listeners.
class Environment {
 public:
  explicit Environment(char* const* given);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  [[nodiscard]] char* const* get() const { return changed_ != nullptr ? changed_ : given_; }

 private:
  char* const* given_;
  char** changed_ = nullptr;
  char text_[1024];
};

// A message that has come over a socket of the kernel: listeners that it brings (SCM_RIGHTS) are the stack's from now on, if
// the configuration says so.
void take_up_passed(const msghdr* m);

}  // namespace mtcp::preload

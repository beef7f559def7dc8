// Listeners that one program leaves to the next by exec. To the kernel they are sockets of its own, so the next one is
// told which are the stack's by a variable of the environment, and takes one up when it first asks for its name or
// listens on it.
#pragma once

#include <stddef.h>

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

}  // namespace mtcp::preload

// The arguments of calls that wait, as the engine wants them.
#pragma once

#include <signal.h>
#include <string.h>
#include <time.h>

#include <cstdint>

namespace mtcp::preload {

// A caller that came through syscall() has a mask of the kernel's eight bytes only.
class Mask {
 public:
  explicit Mask(const sigset_t* given) : given_(given != nullptr) {
    if (!given_) return;
    sigemptyset(&whole_);
    memcpy(&whole_, given, sizeof(std::uint64_t));
  }
  [[nodiscard]] const sigset_t* get() const { return given_ ? &whole_ : nullptr; }

 private:
  sigset_t whole_;
  bool given_;
};

[[nodiscard]] inline bool valid(const timespec* t) {
  return t == nullptr || (t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < 1000000000);
}

}  // namespace mtcp::preload

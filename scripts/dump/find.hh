// The sockets by which processes on mtcp can be asked: abstract ones, known in their network namespace only.
#pragma once

#include <sys/types.h>

#include <functional>
#include <set>
#include <string>

namespace mtcp::dump {

// Not answered by a process yet.
struct Socket {
  int fd = -1;    // connected
  pid_t pid = 0;  // who listens, says the kernel
};

// Finds sockets that it has not found before.
class Finder {
 public:
  // Of one process; 0: of all, in every network namespace that we may enter. `found` takes the descriptor. Empty, or why there
  // can't be any.
  std::string look(pid_t pid, const std::function<void(const Socket&)>& found);

 private:
  void look_here(pid_t pid, const std::function<void(const Socket&)>& found);
  std::string look_in_namespace_of(pid_t member, pid_t pid, const std::function<void(const Socket&)>& found);

  std::set<std::string> seen_;
};

}  // namespace mtcp::dump

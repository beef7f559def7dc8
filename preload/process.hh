// What the shim knows of the process.
#pragma once

#include <pthread.h>

#include <atomic>

#include "intercept/engine.hh"
#include "preload/thread.hh"

namespace mtcp::preload {

struct Process {
  std::atomic<intercept::Engine*> engine;  // null: everything is the kernel's
  intercept::FdTable fds;                  // empty until make_table()
  std::atomic<bool> loading;               // a thread is about to set `engine`
  std::atomic<bool> decided;               // `engine` is what it will be
  std::atomic<bool> wrapping;              // handlers of signals are wrapped
  bool exited;                             // at_exit() has been called
  std::atomic<bool> related;               // fork has made more processes of this program
  unsigned forks;                          // between the first ancestor and this process
  pthread_mutex_t lock;                    // of loading, of sigaction() and of file actions (spawn.cc)
};

extern Process process;

[[nodiscard]] inline intercept::Engine* engine() { return process.engine.load(std::memory_order_acquire); }

// Whose a descriptor is: the one question that every call on a kernel descriptor pays for.
[[nodiscard]] inline intercept::FdKind kind_of(int fd) {
  // The size is published after the entries.
  const int size = __atomic_load_n(&process.fds.size, __ATOMIC_ACQUIRE);
  if (static_cast<unsigned>(fd) >= static_cast<unsigned>(size)) [[likely]]
    return intercept::FdKind::kernel;
  return static_cast<intercept::FdKind>(process.fds.kinds[fd].load(std::memory_order_relaxed));
}
[[nodiscard]] inline bool is_kernel(int fd) { return kind_of(fd) == intercept::FdKind::kernel; }
[[nodiscard]] inline bool is_socket(int fd) { return kind_of(fd) == intercept::FdKind::socket; }
// A socket or an epoll set of ours.
[[nodiscard]] inline bool is_ours(int fd) {
  const auto k = kind_of(fd);
  return k == intercept::FdKind::socket || k == intercept::FdKind::epoll;
}

// The engine, loaded now if this process has a configuration and has not decided yet; null: the kernel's.
[[nodiscard]] intercept::Engine* engine_for_tcp();
// True if MTCP_CONF or the system's configuration file is there. Asks the file system at most once.
[[nodiscard]] bool has_configuration();
// Makes the table of descriptors if it is not there yet. False: no memory.
[[nodiscard]] bool make_table();
// In a child after fork: what other threads of the parent were doing is void.
void repair_child();
// The process ends: once.
void tell_exit();

}  // namespace mtcp::preload

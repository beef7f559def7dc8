// Callbacks that DPDK would serve from its interrupt thread, served here from Port::service() instead. So a
// driver never changes its rings under the thread that polls them, and nothing is lost in a fork.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

struct rte_intr_handle;

namespace mtcp::stack::dpdk {

class Interrupts {
 public:
  using Handler = void (*)(void* arg);
  using Release = void (*)(rte_intr_handle* handle, void* arg);

  // Returns 0 or -errno, as rte_intr_callback_register() does.
  int add(rte_intr_handle* handle, Handler handler, void* arg);
  // The number removed; -ENOENT; -EAGAIN while a callback of that descriptor runs. `arg` (void*)-1 is any.
  int remove(const rte_intr_handle* handle, Handler handler, void* arg);
  // The same after the running callback has returned; then calls `release`.
  int remove_later(const rte_intr_handle* handle, Handler handler, void* arg, Release release);

  // Runs what is pending, but for the descriptors that `wait` tells to leave for later. Does not block.
  using Wait = std::function<bool(int fd)>;
  void poll(const Wait& wait = {});
  // Callbacks registered now.
  [[nodiscard]] std::size_t count() const { return sources_.size(); }
  // A descriptor that is readable while something is pending, or something is on a descriptor given to
  // watch(). It exists from the first use on. -1 if the kernel refused it.
  [[nodiscard]] int descriptor();
  // Adds a descriptor without a callback to those that descriptor() tells about. It leaves by being closed. `edge`: once for
  // each time that something comes, until the next poll(); nobody has to read it.
  enum class Trigger : bool { level, edge };
  void watch(int fd, Trigger trigger);
  // Forgets all callbacks and closes the descriptors that they were for. For a device that is gone.
  void clear();

 private:
  struct Source {
    int fd;
    rte_intr_handle* handle;
    Handler handler;
    void* arg;
    bool active = false;   // its callback is running
    bool leaving = false;  // to be removed when the callback has returned
    Release release = nullptr;
  };
  void serve(int fd);
  void forget(int fd);  // takes fd out of the epoll set if no source is left for it

  int epoll_ = -1;
  std::mutex polling_;
  std::vector<Source> sources_;
};

// The process has one, as DPDK has one table of callbacks.
Interrupts& interrupts();

}  // namespace mtcp::stack::dpdk

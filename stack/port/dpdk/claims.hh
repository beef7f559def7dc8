// Which process uses which queue, in memory that is shared over fork.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace mtcp::stack::dpdk {

// Which process this is (pid and start time), never 0; known without a system call but getpid().
[[nodiscard]] std::uint64_t own_identity();
// Whether that process lives. A zombie does not: its parent may be long in collecting it.
[[nodiscard]] bool is_alive(std::uint64_t identity);
// It lives, and is where its number means it: in this PID namespace.
[[nodiscard]] bool is_visible(std::uint64_t identity);
// From now on this process and its children show that they live by a lock on this file, which all processes of a device have, each on the
// byte of its identity: in another PID namespace, as a container has one, its number means another process, or none. `fd`, the only one of this
// file here, stays the caller's; -1: not any more.
void show_life_on(int fd);

class Claims {
 public:
  // Null if the kernel gives no shared memory. The table lives as long as this object, in each process for
  // itself.
  static std::unique_ptr<Claims> create(std::uint32_t queues);
  // The same table in a process that was forked before. `fd` is what descriptor() is there, and stays the caller's.
  static std::unique_ptr<Claims> adopt(int fd, std::uint32_t queues);
  [[nodiscard]] int descriptor() const { return fd_; }
  ~Claims();
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;

  enum class Outcome { taken, free, inherited };
  // For the calling process. free: it is ours and nobody had it; inherited: it is ours and its former owner
  // died with it; taken: a living process has it (the caller included).
  Outcome claim(std::uint32_t index);
  void release(std::uint32_t index);
  [[nodiscard]] bool any_alive() const;
  // A number of the owner's that its successor finds, even if it died: how far it has received. 0 at first.
  [[nodiscard]] std::atomic<std::uint32_t>& received(std::uint32_t index) { return queues_[index].received; }

 private:
  struct alignas(64) Queue {
    std::atomic<std::uint64_t> owner;  // pid and start time; 0: nobody
    std::atomic<std::uint32_t> received;
  };
  Claims(Queue* queues, std::uint32_t n, int fd) : queues_(queues, n), fd_(fd) {}
  std::span<Queue> queues_;
  int fd_;  // its memory; closed with the device's other descriptors
};

}  // namespace mtcp::stack::dpdk

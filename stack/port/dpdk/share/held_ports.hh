// Local ports of connections that the stack opens, held by a socket of the kernel each, so that nobody of the kernel's gets
// one of them for the same address, and the stack none that somebody has.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <unordered_map>

#include "stack/wire/address.hh"

namespace mtcp::stack::dpdk {

class HeldPorts {
 public:
  // `tell`: of each descriptor that is opened (true) and closed (false), which the application must not close.
  using Tell = std::function<void(int fd, bool opened)>;
  explicit HeldPorts(Tell tell);
  ~HeldPorts() { release_all(); }
  HeldPorts(const HeldPorts&) = delete;
  HeldPorts& operator=(const HeldPorts&) = delete;

  // False if somebody of the kernel's has it. True as well without descriptors to spare (a quarter of the process's may be held, by
  // all of its stacks together) or memory: then it is not held, and
  // a connection of the kernel's from the same to the same endpoint would win (program.bpf.c).
  bool hold(const Endpoint& local);
  void release(const Endpoint& local);
  void release_all();
  [[nodiscard]] std::size_t held() const { return held_.size(); }

 private:
  struct Hash {
    std::size_t operator()(const Endpoint& e) const { return (mix(e.address) >> 16) + e.port; }
  };
  struct Held {
    int fd = -1;
    std::uint32_t uses = 0;
  };
  std::unordered_map<Endpoint, Held, Hash> held_;
  void close(int fd) const;
  const Tell tell_;
  static inline std::atomic<std::size_t> in_process_{0};  // descriptors of all stacks; `most_` at most
  std::size_t most_;
};

}  // namespace mtcp::stack::dpdk

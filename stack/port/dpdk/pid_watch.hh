// Deaths of processes, told by the kernel (pidfd, Linux 5.3).
#pragma once

#include <functional>
#include <vector>

#include "stack/steering/death_watch.hh"

namespace mtcp::stack::dpdk {

class PidWatch final : public DeathWatch {
 public:
  // `tell` hears of each descriptor that is opened or closed here; may be empty.
  explicit PidWatch(std::function<void(int fd, bool opened)> tell) : tell_(std::move(tell)) {}
  // Also in the child of a fork, which gets its parent's.
  ~PidWatch() override;
  PidWatch(const PidWatch&) = delete;
  PidWatch& operator=(const PidWatch&) = delete;

  bool watch(std::span<const std::uint64_t> processes) override;
  [[nodiscard]] std::span<const int> descriptors() const override { return descriptors_; }
  [[nodiscard]] bool told() const override;

 private:
  bool add(std::uint64_t process);
  void remove(std::size_t i);
  std::function<void(int fd, bool opened)> tell_;
  std::vector<int> descriptors_;
  std::vector<std::uint64_t> processes_;  // whose they are
};

}  // namespace mtcp::stack::dpdk

// Follows the kernel's networking on one interface through rtnetlink: reads it when it is opened, and what changes from then on.
// Needs no privilege. Each shard has one of its own, which its lock covers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "stack/kernel_net/kernel_network.hh"
#include "stack/kernel_net/messages.hh"

namespace mtcp::intercept {

class Kernel;

class KernelFollower final : public stack::KernelNetwork {
 public:
  // `fd`: a netlink socket (rtnetlink), non-blocking, not bound yet; it is the follower's, but for being closed. Null and
  // `message` if there is no such interface, or the kernel does not tell.
  static std::unique_ptr<KernelFollower> open(Kernel& kernel, int fd, const std::string& interface, std::string& message);

  // Readable when something has changed: to be slept on.
  [[nodiscard]] int descriptor() const { return fd_; }
  // The descriptor may have been readable: the next update() looks.
  void look_soon() { next_look_ = last_look_ + kLeastInterval; }
  // As update(), whenever the last one was.
  void update_now(stack::Time now);

  // --- KernelNetwork
  void update(stack::Time now) override {
    if (now >= next_look_) update_now(now);
  }
  [[nodiscard]] const stack::KernelView& view() const override { return view_; }
  [[nodiscard]] stack::KernelNeighbour neighbour(const stack::IpAddress& a) const override;
  bool next_change(stack::KernelNeighbour& out) override;
  void use(const stack::IpAddress& neighbour, stack::Time now) override;

 private:
  static constexpr stack::Duration kLeastInterval = stack::milliseconds(1);
  static constexpr stack::Duration kInterval = stack::milliseconds(10);  // between looks while nobody sleeps on the descriptor
  static constexpr stack::Duration kExpects = stack::seconds(1);         // after a question: a look every millisecond
  static constexpr stack::Duration kLeastRest = stack::milliseconds(200);  // between readings of the view; a shorter one is none
  static constexpr std::size_t kMostNeighbours = 65536;

  struct Hash {
    std::size_t operator()(const stack::IpAddress& a) const { return stack::mix(a) >> 16; }
  };
  using Neighbours = std::unordered_map<stack::IpAddress, stack::KernelNeighbour, Hash>;

  KernelFollower(Kernel& kernel, int fd, std::string interface, std::uint32_t index)
      : kernel_(kernel), fd_(fd), interface_(std::move(interface)), index_(index), buffer_(kBuffer) {}
  bool subscribe();
  void read_all();
  void take(const stack::netlink::Message& m);
  void take_error(const stack::netlink::Message& m);
  void note(Neighbours& into, const stack::KernelNeighbour& n);
  void changed(const stack::IpAddress& a);
  bool read_view();
  bool read_neighbours();
  template <class Take>
  bool ask(const std::vector<std::byte>& question, Take take);
  void send_datagram(const stack::IpAddress& to);

  static constexpr std::size_t kBuffer = 65536;
  Kernel& kernel_;
  const int fd_;
  const std::string interface_;
  const std::uint32_t index_;
  std::vector<std::byte> buffer_;
  stack::KernelView view_;
  Neighbours neighbours_;
  std::deque<stack::IpAddress> changes_;
  std::unordered_set<stack::IpAddress, Hash> in_changes_;
  bool consumed_ = false;  // somebody asks for changes
  bool view_stale_ = false, neighbours_stale_ = false;
  bool may_use_ = true;  // CAP_NET_ADMIN, as far as is known
  struct Question {
    std::uint32_t sequence = 0;
    stack::IpAddress address;
  };
  std::array<Question, 64> questions_{};  // the last, by sequence number
  std::uint32_t sequence_ = 0;
  stack::Time last_look_{}, next_look_{}, expects_until_{}, next_view_{};
};

}  // namespace mtcp::intercept

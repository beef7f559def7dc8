// The queues of an AF_XDP device as another process is told of them: what is not in the descriptors lies in a memory of its own,
// along with the marks of their frames.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/port/dpdk/af_xdp/umem_frames.hh"

namespace mtcp::stack::dpdk {

class XdpQueues {
 public:
  // For the process that opens the device, before the queues are set up: room for the marks of so many frames of each. Null
  // without memory.
  static std::unique_ptr<XdpQueues> create(std::uint32_t queues, std::size_t marks_of_each);
  // In another process: the same queues by descriptors(), which stay the caller's. Null if they can't be had: kernels before 6.4
  // let nobody map the rings of a socket that is bound.
  static std::unique_ptr<XdpQueues> adopt(std::span<const int> descriptors);
  ~XdpQueues();
  XdpQueues(const XdpQueues&) = delete;
  XdpQueues& operator=(const XdpQueues&) = delete;

  // The opener's: the next queue. False without memory.
  bool add(Xsk& socket, MbufPool& pool, std::uint32_t send);
  [[nodiscard]] std::size_t size() const { return frames_.size(); }
  [[nodiscard]] UmemFrames& frames(std::uint32_t queue) { return *frames_[queue]; }
  // For others: this memory, the memory of the packets, and each queue's socket; empty if the packets' memory has no descriptor.
  [[nodiscard]] std::vector<int> descriptors() const;

 private:
  struct Head;
  struct Queue;
  XdpQueues(int fd, std::span<std::byte> memory) : fd_(fd), memory_(memory) {}
  [[nodiscard]] Head& head() const { return *reinterpret_cast<Head*>(memory_.data()); }
  [[nodiscard]] Queue& queue(std::size_t i) const;
  [[nodiscard]] std::span<UmemFrames::Mark> marks(std::size_t i) const;
  bool adopt_queue(const Queue& q, std::size_t i, int memory, int socket);

  int fd_;
  bool made_ = false;                 // fd_ is closed here
  std::span<std::byte> memory_;
  std::vector<std::unique_ptr<UmemFrames>> frames_;
  std::vector<Xsk> sockets_;                    // adopted ones
  std::vector<std::span<std::byte>> areas_;     // and what they have mapped
  std::vector<Xsk*> made_sockets_;              // the driver's
};

}  // namespace mtcp::stack::dpdk

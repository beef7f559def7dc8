// Whose the frames of an AF_XDP socket's memory are, so that whoever finds a queue with a dead owner goes on
// with all of them: none is lost, none is used twice, wherever the owner died.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/port/dpdk/af_xdp/xsk.hh"

namespace mtcp::stack::dpdk {

class MbufPool;

// A frame serves for receiving or for sending, for good.
//
// Receiving: all go round, socket's rx ring -> fill ring -> kernel -> rx ring. A frame that has been read is
// put into the fill ring first and taken out of the rx ring then, so the one counter tells what the other
// must be.
//
// Sending: the kernel gives frames back in any order, so each has a mark: free, or at which place in the tx
// ring it was sent. The mark is set before the place is published: one that was not is free. Marks of frames
// that came back are cleared before they leave the completion ring, and nothing is sent in one before it has
// left, so that to clear them again does no harm.
class UmemFrames {
 public:
  // For the process that opens the device: the frames in the fill ring are for receiving, `send` more are
  // taken from the memory's pool. Null without memory.
  // `marks`: zeroed memory that all processes of the device have, one for each frame and one more.
  using Mark = std::atomic<std::uint64_t>;
  static std::unique_ptr<UmemFrames> create(Xsk& socket, MbufPool& pool, std::uint32_t send, std::span<Mark> marks);
  // The same in a process that has been given the socket: from terms() there. Null if they make no sense.
  struct Terms {
    std::uint64_t first;
    std::uint32_t receive_frames, send_frames;
  };
  static std::unique_ptr<UmemFrames> adopt(Xsk& socket, std::span<Mark> marks, const Terms& terms);
  [[nodiscard]] Terms terms() const { return {first_, receive_frames_, send_frames_}; }
  UmemFrames(const UmemFrames&) = delete;
  UmemFrames& operator=(const UmemFrames&) = delete;

  [[nodiscard]] Xsk& socket() const { return socket_; }
  // Where what is sent begins in a frame, and how long it may be.
  [[nodiscard]] std::uint32_t send_offset() const { return socket_.headroom; }
  [[nodiscard]] std::uint32_t send_room() const { return socket_.frame_size - socket_.headroom; }

  // For the queue's new owner: repairs what its predecessor left half done, and says which frames are free to
  // send in.
  void take_over(std::vector<std::uint32_t>& free);
  // Frames that the kernel has sent, added to `free`.
  void collect(std::vector<std::uint32_t>& free);
  // The frame will be at this place of the tx ring when the owner publishes it.
  void mark_sent(std::uint32_t frame, std::uint32_t place);

  [[nodiscard]] std::uint64_t address(std::uint32_t frame) const {
    return first_ + std::uint64_t{frame} * socket_.frame_size;
  }
  // How many frames there are to send in.
  [[nodiscard]] std::uint32_t send_frames() const { return send_frames_; }

 private:
  enum class Use : std::uint32_t { receive, free, sent };
  static std::uint64_t mark(Use use, std::uint32_t place) {
    return std::uint64_t{static_cast<std::uint32_t>(use)} << 32 | place;
  }

  UmemFrames(Xsk& socket, std::span<Mark> marks) : socket_(socket), marks_(marks) {}
  // How many have been received, by how many were given back.
  [[nodiscard]] std::uint32_t received() const;
  [[nodiscard]] std::uint32_t frame_at(std::uint64_t address) const;

  Xsk& socket_;
  std::span<Mark> marks_;  // shared with all processes of the device
  std::uint64_t first_ = 0;
  std::uint32_t receive_frames_ = 0, send_frames_ = 0;
};

}  // namespace mtcp::stack::dpdk

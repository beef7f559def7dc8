// Frames from one stack to another: a ring of cells in shared memory with one writer and one reader, into which and
// out of which everything is copied. A process that dies while it writes or reads leaves nothing locked: what it had
// not announced was never there, and what it had not taken is found by its successor.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace mtcp::stack {

enum class MessageKind : std::uint16_t {
  frame,     // received for a flow of the reader
  transmit,  // the reader has a queue of the device, the writer has none
  handover,  // Steering::migrate
  offer,     // the writer has connections for a listener of the reader's (its Endpoint) that nobody there accepts
  pull       // the reader of such an offer asks for them
};

// A view of one cell, valid until MessageRing::release().
struct Message {
  MessageKind kind = MessageKind::frame;
  std::uint16_t flags = 0;  // PacketFlag
  std::uint64_t tag = 0;    // frame: Packet::flow_hash; handover: whose listener it is for (listeners.cc)
  std::span<const std::byte> bytes;
  std::uint64_t flow = 0;   // handover: Directory::hash
};

class MessageRing {
 public:
  // Bytes of one message ring with `cells` cells (a power of two) for frames of `frame` bytes.
  [[nodiscard]] static std::size_t memory(std::size_t frame, std::size_t cells);
  // `memory` was zero at first, or is a message ring already. Null: a message ring without room.
  MessageRing(std::byte* memory, std::size_t frame, std::size_t cells);

  // --- the writer
  [[nodiscard]] std::size_t room() const;
  // Writes cell `n` behind those that have been announced (n < room()); false if it is too large.
  [[nodiscard]] bool write(std::size_t n, const Message& message);
  void announce(std::size_t n);

  // --- the reader
  // A writer that says there are more messages than cells has none.
  [[nodiscard]] bool empty();
  // The oldest message; the message ring is not empty. Lengths are as the writer said, but not more than fits, and flags those
  // that a message may have.
  [[nodiscard]] Message read() const;
  void release(std::size_t n = 1);
  // The same, and with the description of a connection what else of it follows: its data. How many there are in `out`.
  static constexpr std::size_t kMostGroup = 128;
  using Group = std::array<Message, kMostGroup>;
  [[nodiscard]] std::span<const Message> read_group(Group& out) const;
  // Shows all messages so, as many as fit into a message ring at most, and releases them.
  void drain(const std::function<void(std::span<const Message>)>& visit);

 private:
  struct Ends {
    alignas(64) std::atomic<std::uint32_t> written;  // cells, ever
    alignas(64) std::atomic<std::uint32_t> read;
  };
  struct Cell {
    std::uint32_t length;
    MessageKind kind;
    std::uint16_t flags;
    std::uint64_t tag, flow;
    [[nodiscard]] std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };
  [[nodiscard]] Cell& cell(std::uint32_t n) const {
    return *reinterpret_cast<Cell*>(memory_ + sizeof(Ends) + stride_ * (n & (cells_ - 1)));
  }
  [[nodiscard]] Message at(std::uint32_t n) const;
  [[nodiscard]] Ends& ends() const { return *reinterpret_cast<Ends*>(memory_); }

  std::byte* memory_;
  std::size_t stride_;
  std::uint32_t cells_;
};

}  // namespace mtcp::stack

// Frames from one stack to another: a ring of slots in shared memory with one writer and one reader, into which and
// out of which everything is copied. A process that dies while it writes or reads leaves nothing locked: what it had
// not announced was never there, and what it had not taken is found by its successor.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace mtcp::stack {

enum class MailKind : std::uint16_t {
  frame,     // received for a flow of the reader
  transmit,  // the reader has a queue of the device, the writer has none
  handover,  // Port::migrate
  offer,     // the writer has connections for a listener of the reader's (its Endpoint) that nobody there accepts
  pull       // the reader of such an offer asks for them
};

// A view of one slot, valid until Mailbox::release().
struct Letter {
  MailKind kind = MailKind::frame;
  std::uint16_t flags = 0;  // PacketFlag
  std::uint64_t tag = 0;    // frame: Packet::flow_hash; handover: whose listener it is for (listeners.cc)
  std::span<const std::byte> bytes;
  std::uint64_t flow = 0;   // handover: Directory::hash
};

class Mailbox {
 public:
  // Bytes of one mailbox with `slots` slots (a power of two) for frames of `frame` bytes.
  [[nodiscard]] static std::size_t memory(std::size_t frame, std::size_t slots);
  // `memory` was zero at first, or is a mailbox already. Null: a mailbox without room.
  Mailbox(std::byte* memory, std::size_t frame, std::size_t slots);

  // --- the writer
  [[nodiscard]] std::size_t room() const;
  // Writes slot `n` behind those that have been announced (n < room()); false if it is too large.
  [[nodiscard]] bool write(std::size_t n, const Letter& letter);
  void announce(std::size_t n);

  // --- the reader
  // A writer that says there are more letters than slots has none.
  [[nodiscard]] bool empty();
  // The oldest letter; the mailbox is not empty. Lengths are as the writer said, but not more than fits, and flags those
  // that a letter may have.
  [[nodiscard]] Letter read() const;
  void release();
  // Shows all letters, as many as fit into a mailbox at most, and releases them.
  void drain(const std::function<void(const Letter&)>& visit);

 private:
  struct Ends {
    alignas(64) std::atomic<std::uint32_t> written;  // slots, ever
    alignas(64) std::atomic<std::uint32_t> read;
  };
  struct Slot {
    std::uint32_t length;
    MailKind kind;
    std::uint16_t flags;
    std::uint64_t tag, flow;
    [[nodiscard]] std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  };
  [[nodiscard]] Slot& slot(std::uint32_t n) const {
    return *reinterpret_cast<Slot*>(memory_ + sizeof(Ends) + stride_ * (n & (slots_ - 1)));
  }
  [[nodiscard]] Ends& ends() const { return *reinterpret_cast<Ends*>(memory_); }

  std::byte* memory_;
  std::size_t stride_;
  std::uint32_t slots_;
};

}  // namespace mtcp::stack

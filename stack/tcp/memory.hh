// The packets of a stack as memory that its connections share, with the three levels of Linux's tcp_mem. What is in
// use is what the pool does not have, so nothing is charged for each packet.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "stack/base/intrusive_list.hh"
#include "stack/options.hh"
#include "stack/packet/packet.hh"
#include "stack/tcp/connection.hh"

namespace mtcp::stack {

// Bytes of those packets that under pressure hold a few bytes: received data (Tcp::shrink), segments without data, little writes.
inline constexpr std::size_t kLittlePacket = 256;
inline constexpr std::size_t kLittlePayload = kLittlePacket - kHeadroom;

class MemoryBudget {
 public:
  enum class Level : std::uint8_t {
    low,       // no limit but the buffers'
    pressure,  // since `pressure` was passed, until it is below `low` again: a connection may hold its share
    high       // out-of-order data and orphans go, the largest first
  };

  // `little`: packets of kLittlePacket bytes, for what is sent under pressure; null where the device wants all to come from one pool.
  MemoryBudget(const MemoryLevels& wanted, PacketCache& cache, PacketPool* little) : wanted_(wanted), cache_(cache) {
    cache_.set_little(little);
    derive();
  }

  // For each burst and each write: the pool may drain within a millisecond. True if Tcp::reclaim() is due.
  bool update() {
    if (level_ == Level::low && cache_.has_plenty()) [[likely]] return false;
    return update_scarce();
  }
  // Packets of the pool that the device has in its rings (Port::packets_held).
  void set_device_packets(std::size_t n);

  [[nodiscard]] Level level() const { return level_; }
  // Bytes of packets that a connection may hold in each direction, beside the limits of its buffers: a small part of
  // what is left, so that something stays for the next ones (Choudhury and Hahne's dynamic thresholds). What is out of
  // order counts as left: it has to go if that is wanted.
  [[nodiscard]] std::uint32_t share() const { return share_; }
  // The same for data out of order, to which it does not.
  [[nodiscard]] std::uint32_t out_of_order_share() const { return out_of_order_share_; }
  // The pool is down to what the device needs to receive.
  [[nodiscard]] bool exhausted() const { return exhausted_; }
  // In use beyond what reclaim() leaves.
  [[nodiscard]] bool above_target() const { return used() > target(); }

  void change_out_of_order(std::int64_t bytes) { out_of_order_ += bytes; }

  // Bytes of packet buffers.
  [[nodiscard]] std::uint64_t used_bytes() const { return bytes(used()); }
  [[nodiscard]] std::uint64_t out_of_order_bytes() const { return static_cast<std::uint64_t>(out_of_order_); }
  [[nodiscard]] std::uint64_t low_bytes() const { return bytes(low_); }
  [[nodiscard]] std::uint64_t pressure_bytes() const { return bytes(pressure_); }
  [[nodiscard]] std::uint64_t high_bytes() const { return bytes(high_); }
  [[nodiscard]] std::size_t buffer() const { return buffer_; }  // bytes of a packet
  // How often pressure has begun.
  [[nodiscard]] std::uint64_t times_pressed() const { return times_pressed_; }

 private:
  void derive();
  bool update_scarce();
  [[nodiscard]] std::size_t used() const;
  [[nodiscard]] std::size_t margin() const { return high_ / 32 + 1; }
  [[nodiscard]] std::size_t target() const { return high_ - std::min(high_, 2 * margin()); }
  [[nodiscard]] std::uint32_t fair_share(std::size_t used) const;
  [[nodiscard]] std::uint64_t bytes(std::size_t packets) const { return std::uint64_t{packets} * buffer_; }

  const MemoryLevels wanted_;
  PacketCache& cache_;
  // In packets.
  std::size_t capacity_ = 0;        // of the pool, when the levels were derived from it
  std::size_t device_packets_ = 0;
  std::size_t low_ = 0, pressure_ = 0, high_ = 0;
  std::size_t buffer_ = 1;          // bytes of each
  std::int64_t out_of_order_ = 0;   // bytes
  Level level_ = Level::low;
  bool exhausted_ = false;
  std::uint32_t share_ = UINT32_MAX, out_of_order_share_ = UINT32_MAX;
  std::uint64_t times_pressed_ = 0;
};

// Connections by the bytes that they hold of something, to find the largest without a look at all: a list for each
// power of two. What has become less is noticed only when it is looked at.
class LargestFirst {
 public:
  void note(Connection& c, std::uint32_t bytes) {
    const auto size_class = static_cast<std::uint8_t>(std::bit_width(bytes));
    if (c.memory_hook.linked() && size_class <= c.memory_class) return;
    put(c, size_class);
  }
  // Null if nobody holds anything. `size` tells how much a connection really has.
  template <typename Size>
  [[nodiscard]] Connection* largest(Size size) {
    while (used_ != 0) {
      const auto top = static_cast<unsigned>(std::bit_width(used_)) - 1;
      Connection* c = lists_[top].front();
      if (c == nullptr) {
        used_ &= ~(std::uint64_t{1} << top);
        continue;
      }
      const auto size_class = static_cast<std::uint8_t>(std::bit_width(std::uint32_t{size(*c)}));
      if (size_class == top) return c;
      size_class == 0 ? c->memory_hook.unlink() : put(*c, size_class);
    }
    return nullptr;
  }

 private:
  void put(Connection& c, std::uint8_t size_class) {
    c.memory_hook.unlink();
    c.memory_class = size_class;
    lists_[size_class].push_back(c);
    used_ |= std::uint64_t{1} << size_class;
  }

  IntrusiveList<Connection, &Connection::memory_hook> lists_[33];
  std::uint64_t used_ = 0;  // a bit for each list that may not be empty
};

}  // namespace mtcp::stack

// Packet buffers. The core sees only this header; where the memory comes from is the pool's business (DPDK
// mbufs with the Packet in their private area, or the heap in tests and for the loopback wire).
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "stack/base/seq.hh"
#include "stack/base/time.hh"

namespace mtcp::stack {

class PacketPool;

// Room in front of a TCP payload for Ethernet (14) + VLAN (4) + IPv6 (40) + TCP with options (60), rounded up.
inline constexpr std::size_t kHeadroom = 128;

// One buffer. Whoever holds the pointer owns it, and links it through `next`.
struct alignas(64) Packet {
  std::byte* buf;      // start of the buffer
  std::byte* data;     // first valid byte: the frame, later the layer that is being worked on
  Packet* next;        // the owner's link
  PacketPool* pool;    // where it goes back to
  std::uint32_t len;   // valid bytes from `data`
  std::uint16_t capacity;  // bytes from `buf`
  std::uint16_t flags;     // PacketFlag bits

  // A sent packet's payload stays where it is while headers come and go in front of it; TCP keeps these.
  std::uint16_t payload_offset;  // from buf; received: where the frame begins (stack/steering)
  std::uint16_t payload_len;     // bytes
  union {
    std::uint32_t payload_sum;      // ones'-complement partial sum of the payload, with kPayloadSum; the hash with kRxHash
    std::uint32_t external_offset;  // with kExternal: where the payload begins in that memory
  };
  Seq seq;                       // sequence number of the first payload byte (sent and received)
  std::uint8_t marks;            // sent: PacketMark bits (stack/tcp/sender/scoreboard.hh)
  std::uint8_t transmissions;    // times handed to the device
  std::uint8_t tos;              // sent: the IP header's DSCP and ECN
  std::uint8_t ttl;              // sent: 0 for the usual one
  union {
    Time sent_at{};           // sent: last transmission; received data: when it came
    std::uint32_t flow_hash;  // received, with kSteered: as stacks are chosen by (stack/steering)
  };

  [[nodiscard]] std::byte* end() { return data + len; }
  [[nodiscard]] std::size_t headroom() const { return static_cast<std::size_t>(data - buf); }
  [[nodiscard]] std::size_t tailroom() const { return capacity - headroom() - len; }
  [[nodiscard]] std::span<std::byte> bytes() { return {data, len}; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data, len}; }
  // Removes n bytes in front / adds n bytes in front / cuts to n bytes. The caller has checked the room.
  void pull(std::size_t n) { assert(n <= len); data += n; len -= static_cast<std::uint32_t>(n); }
  std::byte* push(std::size_t n) { assert(n <= headroom()); data -= n; len += static_cast<std::uint32_t>(n); return data; }
  void trim(std::size_t n) { assert(n <= len); len = static_cast<std::uint32_t>(n); }
  // Back to an empty buffer with the standard headroom.
  void reset() {
    data = buf + kHeadroom;
    next = nullptr;
    len = 0;
    flags = 0;
    payload_offset = kHeadroom;
    payload_len = 0;
    marks = 0;
    transmissions = 0;
    tos = ttl = 0;
  }
};

static_assert(sizeof(Packet) == 64);

enum PacketFlag : std::uint16_t {
  kKeep = 1 << 0,         // the core keeps the packet after transmission (it may be sent again)
  kQueued = 1 << 1,       // it waits in a transmit queue: do not free it, clear kKeep instead
  kRxL4Good = 1 << 2,     // the device has verified the TCP checksum
  kTxL4Offload = 1 << 3,  // the device fills in the TCP checksum
  kPayloadSum = 1 << 4,   // payload_sum is valid
  kHandover = 1 << 5,     // no frame but a message of another stack: Steering::migrate
  kRxHash = 1 << 7,       // received: the device has computed a hash of the flow
  kSteered = 1 << 8,      // payload_offset and flow_hash are valid (stack/steering)
  kExternal = 1 << 12,    // sent: the payload is not in the buffer (stack/packet/external.hh), though `len` counts it
  kPull = 1 << 11,        // another stack asks for connections that nobody here accepts: Steering::offer
  kNotHome = 1 << 6,      // received: another stack is its flow's home (stack/steering)
  kAsked = 1 << 9,        // and has sent it here, because it does not know the flow
  kFinal = 1 << 10,       // and nobody else is to be asked
};

// What TCP's sender knows of a packet in flight.
enum PacketMark : std::uint8_t {
  kSacked = 1 << 0,      // the peer has it, says a SACK block
  kLost = 1 << 1,        // taken for lost
  kResent = 1 << 2,      // and its latest retransmission may still arrive
  kPush = 1 << 3,        // a write ends here, or several that leave together: it carries PSH
  kRecordEnd = 1 << 4,   // MSG_EOR: nothing is added to it any more
  kUrgent = 1 << 5,      // it was there when the last urgent byte was written: it carries URG
};

// `p`, with kExternal, refers to that memory no longer.
void drop_external(Packet& p);

// A source of packets, shared by all that use a device. Not for the fast path: see PacketCache.
class PacketPool {
 public:
  virtual ~PacketPool() = default;
  // Gives up to n packets (reset()), returns how many.
  virtual std::size_t alloc(Packet** out, std::size_t n) = 0;
  virtual void free(Packet* const* packets, std::size_t n) = 0;
  [[nodiscard]] virtual std::size_t capacity() const = 0;
  // Free packets in the pool itself; approximate while others use it.
  [[nodiscard]] virtual std::size_t available() const = 0;
  // Bytes of a packet's buffer, headroom included.
  [[nodiscard]] virtual std::size_t buffer_size() const = 0;
};

// A worker's own stock of packets in front of its pool. One per worker; not thread-safe (the stack's lock covers it).
// The last packets of the pool are left to the device to receive into: what a full stack waits for, ACKs above all,
// comes in there.
class PacketCache {
 public:
  explicit PacketCache(PacketPool& pool) : pool_(pool), reserve_(reserve_of(pool.capacity())) {}
  PacketCache(const PacketCache&) = delete;
  PacketCache& operator=(const PacketCache&) = delete;
  ~PacketCache() { give_back(); }

  // How many packets of such a pool are for receiving only: some bursts, and a large frame's pieces.
  [[nodiscard]] static std::size_t reserve_of(std::size_t capacity) {
    return std::clamp(capacity / 32, std::min<std::size_t>(64, capacity / 8), std::size_t{2048});
  }

  // An empty packet with kHeadroom in front, or null when the pool is down to its reserve.
  [[nodiscard]] Packet* alloc() {
    if (count_ == 0 && !refill()) return nullptr;
    Packet* p = stock_[--count_];
    p->reset();
    return p;
  }
  // The same for a few bytes, headers or little more: from the pool of small ones while the others are scarce.
  [[nodiscard]] Packet* alloc_little() {
    if (scarce_) [[unlikely]] put_little_first();
    return alloc();
  }
  // While they are scarce: the next alloc(), which must follow at once, gives a small one.
  [[gnu::noinline, gnu::cold]] void put_little_first() {
    if (count_ < stock_.size() && little_->alloc(&stock_[count_], 1) == 1) ++count_;
  }
  // Scarce, and there are small ones.
  [[nodiscard]] bool scarce() const { return scarce_; }
  // `little` may be null: there are no small ones.
  void set_little(PacketPool* little) { little_ = little; }
  // Scarce: when fewer than `plenty` are free in the pool, and in any case as long as `pressed`.
  void set_plenty(std::size_t plenty) { plenty_ = plenty; }
  [[nodiscard]] bool has_plenty() const { return pool_.available() >= plenty_; }
  void set_pressed(bool pressed) {
    pressed_ = pressed;
    note_scarcity(pool_.available());
  }
  // Takes a packet back. One that still waits in a transmit queue is released after transmission instead.
  void free(Packet* p) {
    if ((p->flags & (kQueued | kExternal)) != 0) [[unlikely]] {
      if ((p->flags & kQueued) != 0) {
        p->flags = static_cast<std::uint16_t>(p->flags & ~kKeep);
        return;
      }
      drop_external(*p);
    }
    if (p->pool != &pool_) return p->pool->free(&p, 1);
    if (count_ == stock_.size()) {
      count_ -= kBatch;
      pool_.free(stock_.data() + count_, kBatch);
    }
    stock_[count_++] = p;
  }
  // The stock goes to the pool, where the device can have it.
  void give_back() { pool_.free(stock_.data(), std::exchange(count_, 0)); }
  [[nodiscard]] PacketPool& pool() { return pool_; }
  [[nodiscard]] std::size_t stock() const { return count_; }
  [[nodiscard]] std::size_t reserve() const { return reserve_; }

 private:
  static constexpr std::size_t kBatch = 64;
  void note_scarcity(std::size_t free) { scarce_ = little_ != nullptr && (pressed_ || free < plenty_); }
  bool refill() {
    const std::size_t free = pool_.available();
    note_scarcity(free);
    if (free > reserve_) count_ = pool_.alloc(stock_.data(), std::min(kBatch, free - reserve_));
    return count_ != 0;
  }

  PacketPool& pool_;
  PacketPool* little_ = nullptr;
  bool scarce_ = false, pressed_ = false;
  std::size_t plenty_ = 0;
  const std::size_t reserve_;
  std::size_t count_ = 0;
  std::array<Packet*, 4 * kBatch> stock_{};
};

// A FIFO through Packet::next. Owns nothing.
class PacketList {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  [[nodiscard]] Packet* front() const { return head_; }
  [[nodiscard]] Packet* back() const { return tail_; }
  void push_back(Packet* p) {
    p->next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = p;
    tail_ = p;
  }
  void push_front(Packet* p) {
    p->next = head_;
    head_ = p;
    if (tail_ == nullptr) tail_ = p;
  }
  // Inserts after `at` (which is in the list), or in front when `at` is null.
  void insert_after(Packet* at, Packet* p) {
    if (at == nullptr) return push_front(p);
    p->next = at->next;
    at->next = p;
    if (tail_ == at) tail_ = p;
  }
  // Moves all of `other` to the end of this list.
  void splice_back(PacketList& other) {
    if (other.empty()) return;
    (head_ == nullptr ? head_ : tail_->next) = other.head_;
    tail_ = other.tail_;
    other.head_ = other.tail_ = nullptr;
  }
  // What is behind `at` (which is in the list) becomes a list of its own.
  [[nodiscard]] PacketList cut_after(Packet* at) {
    PacketList rest;
    if (at->next == nullptr) return rest;
    rest.head_ = at->next;
    rest.tail_ = tail_;
    at->next = nullptr;
    tail_ = at;
    return rest;
  }
  // Removes the packet after `at`, or the first when `at` is null; there is one.
  Packet* remove_after(Packet* at) {
    if (at == nullptr) return pop_front();
    Packet* p = at->next;
    at->next = p->next;
    if (tail_ == p) tail_ = at;
    p->next = nullptr;
    return p;
  }
  Packet* pop_front() {
    Packet* p = head_;
    if (p == nullptr) return nullptr;
    head_ = p->next;
    if (head_ == nullptr) tail_ = nullptr;
    p->next = nullptr;
    return p;
  }

 private:
  Packet* head_ = nullptr;
  Packet* tail_ = nullptr;
};

}  // namespace mtcp::stack

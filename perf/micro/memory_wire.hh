// Two ports joined by memory: what one sends, the other receives. Frames that the sender keeps are copied, as
// a device would; others change hands. No device, no driver: what is measured over it is the stack's own
// cost.
#pragma once

#include <array>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/bare_port.hh"


namespace mtcp::perf {

class MemoryPort final : public test::BarePort {
 public:
  // The pool serves both ports; `number` makes the hardware address.
  MemoryPort(stack::PacketPool& pool, std::uint8_t number) : BarePort(pool), cache_(pool) {
    mac_.bytes = {2, 0, 0, 0, 0, number};
  }
  ~MemoryPort() override {
    while (head_ != tail_) cache_.free(ring_[tail_++ & kMask]);
  }
  void join(MemoryPort& other) {
    peer_ = &other;
    other.peer_ = this;
  }

  std::size_t rx(stack::Packet** out, std::size_t max) override {
    std::size_t n = 0;
    while (n < max && tail_ != head_) out[n++] = ring_[tail_++ & kMask];
    return n;
  }

  std::size_t tx(stack::Packet* const* packets, std::size_t n) override {
    for (std::size_t i = 0; i < n; i++) {
      stack::Packet* p = packets[i];
      if (peer_->head_ - peer_->tail_ > kMask) return i;
      if (is_lost(*p)) {
        if ((p->flags & stack::kKeep) == 0) cache_.free(p);
        continue;
      }
      if ((p->flags & stack::kKeep) != 0) {
        stack::Packet* copy = cache_.alloc();
        if (copy == nullptr) return i;
        std::memcpy(copy->data, p->data, p->len);
        copy->len = p->len;
        p = copy;
      } else {
        // What the sender noted in the packet is not on the wire.
        std::byte* data = p->data;
        const std::uint32_t len = p->len;
        p->reset();
        p->data = data;
        p->len = len;
      }
      bytes_ += p->len;
      frames_++;
      peer_->ring_[peer_->head_++ & kMask] = p;
    }
    return n;
  }

  bool arm() override { return head_ == tail_; }
  [[nodiscard]] stack::MacAddress mac() const override { return mac_; }

  // Of what is sent from here on, one of `n` frames with data is lost; 0: none.
  void lose_one_of(unsigned n) { lose_one_of_ = n; }
  [[nodiscard]] std::uint64_t frames() const { return frames_; }  // sent
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  [[nodiscard]] bool is_lost(const stack::Packet& p) {
    constexpr std::uint32_t kData = 200;  // bytes of a frame: more than an ACK has
    if (lose_one_of_ == 0 || p.len < kData || ++since_lost_ < lose_one_of_) return false;
    since_lost_ = 0;
    return true;
  }

  static constexpr std::size_t kMask = 1023;
  stack::PacketCache cache_;
  stack::MacAddress mac_;
  MemoryPort* peer_ = nullptr;
  std::array<stack::Packet*, kMask + 1> ring_{};
  std::size_t head_ = 0, tail_ = 0;
  std::uint64_t frames_ = 0, bytes_ = 0;
  unsigned lose_one_of_ = 0, since_lost_ = 0;
};

}  // namespace mtcp::perf

// A network card in memory with several queues, for stacks that share it in one process, and one port on the other
// end of its wire. Frames are copied once, as by a card.
#pragma once

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/steering/flow_hash.hh"
#include "stack/steering/shared_device.hh"
#include "tests/bare_port.hh"

namespace mtcp::perf {

// A ring of packets from a pool of its receiver.
class PacketFifo {
 public:
  explicit PacketFifo(std::size_t size) : ring_(size) {}
  ~PacketFifo() {
    for (stack::Packet* p = nullptr; pop(&p, 1) == 1;) p->pool->free(&p, 1);
  }
  PacketFifo(const PacketFifo&) = delete;
  PacketFifo& operator=(const PacketFifo&) = delete;
  [[nodiscard]] bool empty() const { return head_ == tail_; }
  // A copy of `bytes` in a packet of `pool`; false if either is exhausted.
  bool push(stack::PacketPool& pool, std::span<const std::byte> bytes) {
    stack::Packet* p = nullptr;
    if (head_ - tail_ == ring_.size() || pool.alloc(&p, 1) == 0) return false;
    std::memcpy(p->data, bytes.data(), bytes.size());
    p->len = static_cast<std::uint32_t>(bytes.size());
    ring_[head_++ % ring_.size()] = p;
    return true;
  }
  std::size_t pop(stack::Packet** out, std::size_t max) {
    std::size_t n = 0;
    while (n < max && tail_ != head_) out[n++] = ring_[tail_++ % ring_.size()];
    return n;
  }

 private:
  std::vector<stack::Packet*> ring_;
  std::size_t head_ = 0, tail_ = 0;
};

class MemoryCard;

// Both a queue of the card and the far end: receives from a fifo, sends to the card.
class CardPort final : public test::BarePort {
 public:
  static constexpr std::uint32_t kFarEnd = UINT32_MAX;

  // `queue`: the card's, or kFarEnd.
  CardPort(MemoryCard& card, PacketFifo& received, stack::PacketPool& pool, std::uint32_t queue)
      : BarePort(pool), card_(card), received_(received), queue_(queue) {}
  ~CardPort() override;
  CardPort(const CardPort&) = delete;
  CardPort& operator=(const CardPort&) = delete;
  std::size_t rx(stack::Packet** out, std::size_t max) override { return received_.pop(out, max); }
  std::size_t tx(stack::Packet* const* packets, std::size_t n) override;
  bool arm() override { return received_.empty(); }
  [[nodiscard]] stack::MacAddress mac() const override {
    return {{2, 0, 0, 0, 0, std::uint8_t{queue_ == kFarEnd ? std::uint8_t{2} : std::uint8_t{1}}}};
  }

 private:
  MemoryCard& card_;
  PacketFifo& received_;
  const std::uint32_t queue_;
};

class MemoryCard final : public stack::SharedDevice {
 public:
  // `rss`: a card that spreads by our hash and takes a table; otherwise the queue is chosen by another hash.
  MemoryCard(std::uint32_t queues, bool rss)
      : rss_(rss), hash_(stack::FlowHash::make_key({1, 2, 3, 4})), queue_pool_(queues) {
    constexpr std::size_t kAlign = 4096;
    const stack::ControlBlock::Shape shape{.frame = 1518};
    memory_.reset(static_cast<std::byte*>(std::calloc(1, stack::ControlBlock::memory(shape) + kAlign)));  // hardly touched
    const auto at = (reinterpret_cast<std::uintptr_t>(memory_.get()) + kAlign - 1) / kAlign * kAlign;
    control_ = std::make_unique<stack::ControlBlock>(reinterpret_cast<std::byte*>(at), shape, stack::ControlBlock::Secrets{1, 2, 3, 4});
    for (std::uint32_t i = 0; i < queues; ++i) fifos_.emplace_back(8192);
    for (std::uint32_t i = 0; i < stack::kMaxStacks; ++i) pools_.emplace_back(1U << 16);
  }

  stack::ControlBlock& control() override { return *control_; }
  [[nodiscard]] std::uint64_t self() const override { return 1; }
  [[nodiscard]] bool alive(std::uint64_t) const override { return true; }
  [[nodiscard]] std::uint32_t queues() const override { return static_cast<std::uint32_t>(fifos_.size()); }
  std::unique_ptr<stack::Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override {
    if (queue_pool_[queue] != nullptr) return nullptr;
    queue_pool_[queue] = &pools_[stack];
    return std::make_unique<CardPort>(*this, fifos_[queue], pools_[stack], queue);
  }
  bool redirect(std::span<const std::uint8_t> queues) override {
    if (rss_) table_.assign(queues.begin(), queues.end());
    return rss_;
  }
  void give_back(std::uint32_t queue) { queue_pool_[queue] = nullptr; }
  stack::PacketPool* pool(std::uint32_t stack) override { return &pools_[stack]; }
  [[nodiscard]] int wake_descriptor(std::uint32_t) const override { return -1; }
  void wake(std::uint32_t) override {}
  void clear_wake(std::uint32_t) override {}
  [[nodiscard]] stack::MacAddress mac() const override { return {{2, 0, 0, 0, 0, 1}}; }
  [[nodiscard]] std::uint32_t mtu() const override { return 1500; }
  [[nodiscard]] bool tx_checksum_offload() const override { return false; }

  CardPort& far_end() { return far_; }
  bool to_far(std::span<const std::byte> frame) { return far_fifo_.push(far_pool_, frame); }
  bool from_far(std::span<const std::byte> frame) {
    const std::uint32_t hash = classify(frame, hash_).hash;
    const std::uint32_t queue =
        table_.empty() ? (hash * 2654435761U >> 16) % queues() : table_[hash % table_.size()];
    return queue_pool_[queue] != nullptr && fifos_[queue].push(*queue_pool_[queue], frame);
  }

 private:
  bool rss_;
  stack::FlowHash hash_;
  struct Free {
    void operator()(std::byte* at) const { std::free(at); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::unique_ptr<stack::ControlBlock> control_;
  std::deque<stack::HeapPool> pools_;
  std::deque<PacketFifo> fifos_;
  std::vector<stack::PacketPool*> queue_pool_;  // of whoever polls it; null: nobody
  std::vector<std::uint8_t> table_;  // queues; empty: not told
  stack::HeapPool far_pool_{1U << 17};
  PacketFifo far_fifo_{8192};
  CardPort far_{*this, far_fifo_, far_pool_, CardPort::kFarEnd};
};

inline CardPort::~CardPort() {
  if (queue_ != kFarEnd) card_.give_back(queue_);
}

inline std::size_t CardPort::tx(stack::Packet* const* packets, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    stack::Packet* p = packets[i];
    if (!(queue_ == kFarEnd ? card_.from_far(p->bytes()) : card_.to_far(p->bytes()))) return i;
    if ((p->flags & stack::kKeep) == 0) pool_.free(&p, 1);
  }
  return n;
}

}  // namespace mtcp::perf

// What the fuzz targets share: reading decisions from the fuzzer's bytes, and a device that watches what the
// stack does with its packets.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <unordered_map>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "tests/bare_port.hh"

namespace mtcp::stack {

using Bytes = std::vector<std::byte>;

// An invariant is broken: the fuzzer keeps the input.
inline void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// The fuzzer's bytes; zeros when they are used up.
class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  [[nodiscard]] bool empty() const { return at_ == end_; }
  std::uint8_t u8() { return at_ == end_ ? 0 : *at_++; }
  std::uint16_t u16() { return static_cast<std::uint16_t>(u8() << 8 | u8()); }
  Bytes bytes(std::size_t n) {
    n = std::min(n, static_cast<std::size_t>(end_ - at_));
    Bytes out(n);
    if (n != 0) std::memcpy(out.data(), at_, n);
    at_ += n;
    return out;
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

// A pool whose packets may come back while the device still reads them, as a mempool with reference counts
// allows.
class FuzzPool final : public PacketPool {
 public:
  explicit FuzzPool(std::size_t capacity) : heap_(capacity) {}
  std::size_t alloc(Packet** out, std::size_t n) override {
    n = heap_.alloc(out, n);
    for (std::size_t i = 0; i < n; ++i) out[i]->pool = this;
    return n;
  }
  void free(Packet* const* packets, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) {
      if (auto it = reading_.find(packets[i]); it != reading_.end()) {
        must(!it->second.given_back, "a packet is freed once");
        it->second.given_back = true;
      } else {
        give_back(packets[i]);
      }
    }
  }
  [[nodiscard]] std::size_t capacity() const override { return heap_.capacity(); }
  [[nodiscard]] std::size_t available() const override { return heap_.available(); }
  [[nodiscard]] std::size_t buffer_size() const override { return heap_.buffer_size(); }

  // The device begins to read a packet that stays the stack's.
  void begin_reading(Packet* p) {
    must(!is_read(*p), "a packet is not sent again while the device reads it");
    reading_[p] = {Bytes(p->data, p->end()), p->data, false};
  }
  void end_reading() {
    for (auto& [p, r] : reading_) {
      must(std::memcmp(r.at, r.bytes.data(), r.bytes.size()) == 0,
           "a packet does not change while the device reads it");
      if (r.given_back) give_back(p);
    }
    reading_.clear();
  }
  [[nodiscard]] bool is_read(const Packet& p) const { return reading_.contains(const_cast<Packet*>(&p)); }

 private:
  struct Reading {
    Bytes bytes;
    const std::byte* at = nullptr;
    bool given_back = false;
  };
  void give_back(Packet* p) {
    p->pool = &heap_;
    heap_.free(&p, 1);
  }
  HeapPool heap_;
  std::unordered_map<Packet*, Reading> reading_;
};

class FuzzPort final : public test::BarePort {
 public:
  static constexpr MacAddress kMac{{2, 0, 0, 0, 0, 2}};
  explicit FuzzPort(FuzzPool& pool) : BarePort(pool), fuzz_pool_(pool) {}

  // Queues a frame for rx(), at the end of its buffer so that the sanitizer sees a read behind it.
  void feed(const Bytes& frame, std::uint16_t flags = 0) {
    Packet* p = nullptr;
    if (pool_.alloc(&p, 1) == 0) return;
    const std::size_t n = std::min<std::size_t>(frame.size(), p->capacity);
    p->data = p->buf + p->capacity - n;
    p->len = static_cast<std::uint32_t>(n);
    p->flags = flags;
    if (n != 0) std::memcpy(p->data, frame.data(), n);
    arrived_.push_back(p);
  }
  std::size_t rx(Packet** out, std::size_t max) override {
    std::size_t n = 0;
    while (n < max && !arrived_.empty()) out[n++] = arrived_.pop_front();
    return n;
  }
  std::size_t tx(Packet* const* packets, std::size_t n) override {
    n = std::min(n, room);
    room -= n;
    for (std::size_t i = 0; i < n; ++i) {
      Packet* p = packets[i];
      must(p->data >= p->buf && p->headroom() + p->len <= p->capacity, "a frame lies within its buffer");
      sent.emplace_back(p->data, p->end());
      if ((p->flags & kKeep) == 0)
        pool_.free(&p, 1);
      else if (slow)
        fuzz_pool_.begin_reading(p);
    }
    return n;
  }
  [[nodiscard]] bool busy(const Packet& p) const override { return fuzz_pool_.is_read(p); }
  bool arm() override { return arrived_.empty(); }
  [[nodiscard]] MacAddress mac() const override { return kMac; }
  [[nodiscard]] bool has_frames() const { return !arrived_.empty(); }

  std::vector<Bytes> sent;
  std::size_t room = SIZE_MAX;  // frames that the device still takes
  bool slow = false;            // it goes on reading kept packets until end_reading()

 private:
  FuzzPool& fuzz_pool_;
  PacketList arrived_;
};

}  // namespace mtcp::stack

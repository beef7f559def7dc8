// Segments as the stack hands them to a device that fills in checksums.
#pragma once

#include <cstring>
#include <vector>

#include "stack/base/bytes.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/wire/checksum.hh"

namespace mtcp::test {

// Ethernet, IPv4 or IPv6, TCP with 12 bytes of options, payload: of one flow, one after the other.
class Segments {
 public:
  explicit Segments(stack::PacketPool& pool, bool v4 = true, std::uint32_t seq = 0xfffffff0)
      : pool_(pool), v4_(v4), seq_(seq) {}
  Segments(const Segments&) = delete;
  Segments& operator=(const Segments&) = delete;

  // The next `payload` bytes. The caller's.
  stack::Packet* next(std::size_t payload, std::uint8_t flags = 0x10) {
    stack::Packet* p = nullptr;
    if (pool_.alloc(&p, 1) != 1) return nullptr;
    std::byte* f = p->data;
    std::memset(f, 0, headers());
    std::memcpy(f, to.bytes.data(), 6);
    f[6] = f[11] = std::byte{2};
    stack::store_be<std::uint16_t>(f + 12, v4_ ? 0x0800 : 0x86dd);
    std::uint64_t sum =
        stack::sum_of_field(6) + stack::sum_of_field(static_cast<std::uint16_t>(32 + payload));
    if (v4_) {
      f[14] = std::byte{0x45};
      stack::store_be<std::uint16_t>(f + 16, static_cast<std::uint16_t>(52 + payload));
      stack::store_be<std::uint16_t>(f + 20, 0x4000);
      f[22] = std::byte{64};
      f[23] = std::byte{6};
      stack::store_be<std::uint32_t>(f + 26, 0x0a4d0002);
      stack::store_be<std::uint32_t>(f + 30, 0x0a4d0001);
      stack::store_checksum(f + 24, stack::partial_sum(f + 14, 20));
      sum += stack::partial_sum(f + 26, 8);
    } else {
      f[14] = std::byte{0x60};
      stack::store_be<std::uint16_t>(f + 18, static_cast<std::uint16_t>(32 + payload));
      f[20] = std::byte{6};
      f[21] = std::byte{64};
      f[37] = std::byte{2};
      f[53] = std::byte{1};
      sum += stack::partial_sum(f + 22, 32);
    }
    std::byte* t = f + tcp();
    stack::store_be<std::uint16_t>(t, 80);
    stack::store_be<std::uint16_t>(t + 2, port);
    stack::store_be<std::uint32_t>(t + 4, seq_);
    stack::store_be<std::uint32_t>(t + 8, ack);
    t[12] = std::byte{0x80};
    t[13] = std::byte{flags};
    stack::store_be<std::uint16_t>(t + 14, 500);
    stack::store_checksum(t + 16, ~stack::fold_sum(sum) & 0xffff);
    stack::store_be<std::uint32_t>(t + 20, 0x0101080a);  // timestamps
    stack::store_be<std::uint32_t>(t + 24, 1234);
    stack::store_be<std::uint32_t>(t + 28, 5678);
    for (std::size_t i = 0; i < payload; ++i)
      f[headers() + i] = byte_at(seq_ + static_cast<std::uint32_t>(i));
    seq_ += static_cast<std::uint32_t>(payload);
    p->len = static_cast<std::uint32_t>(headers() + payload);
    p->flags = stack::kTxL4Offload;
    return p;
  }
  [[nodiscard]] static std::byte byte_at(std::uint32_t seq) {
    return static_cast<std::byte>(seq * 2654435761U >> 21);
  }
  [[nodiscard]] std::size_t tcp() const { return v4_ ? 34 : 54; }
  [[nodiscard]] std::size_t headers() const { return tcp() + 32; }
  [[nodiscard]] std::uint32_t seq() const { return seq_; }
  void skip(std::uint32_t bytes) { seq_ += bytes; }

  // From 10.77.0.2:80 (02:00:00:00:00:02) to 10.77.0.1.
  stack::MacAddress to{{2, 0, 0, 0, 0, 1}};
  std::uint16_t port = 40000;
  std::uint32_t ack = 77;

 private:
  stack::PacketPool& pool_;
  const bool v4_;
  std::uint32_t seq_;
};

}  // namespace mtcp::test

// Memory that a stack and the reader of its packets (mtcp-dump) share: one ring of records, written by the stack and read by the
// reader. Neither trusts the other: the stack believes of the reader's `tail` only how much is free, and the reader checks each
// record before it looks at it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mtcp::stack {

// The beginning of the memory; the ring follows it. Counters are totals since the start and never go back.
struct CaptureHeader {
  alignas(64) std::atomic<std::uint64_t> head{0};  // bytes of records written
  std::atomic<std::uint64_t> accepted{0};          // packets that passed the filter, dropped ones included
  std::atomic<std::uint64_t> dropped{0};           // of these, for lack of room
  alignas(64) std::atomic<std::uint64_t> tail{0};  // bytes of records read
};
static_assert(sizeof(CaptureHeader) == 128 && std::atomic<std::uint64_t>::is_always_lock_free);

enum class CaptureDirection : std::uint32_t {
  none = 0,  // no packet: the rest of the ring, where the next record did not fit
  in = 1,
  out = 2,
};

// In front of each packet's bytes. A record begins at a multiple of its alignment, and never wraps.
struct alignas(32) CaptureRecord {
  std::uint32_t size;      // of the record in the ring, this header included; a multiple of 32
  std::uint32_t captured;  // bytes that follow
  std::uint32_t length;    // bytes of the packet
  CaptureDirection direction;
  std::int64_t time;  // nanoseconds, the stack's clock
  std::int64_t unused;
};
static_assert(sizeof(CaptureRecord) == 32);

// Of the ring alone: powers of two.
inline constexpr std::size_t kLeastCaptureRing = std::size_t{1} << 18;  // the largest packet fits in it
inline constexpr std::size_t kMostCaptureRing = std::size_t{1} << 26;

}  // namespace mtcp::stack

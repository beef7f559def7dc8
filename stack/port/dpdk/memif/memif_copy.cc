#include "stack/port/dpdk/memif/memif_copy.hh"

#include <emmintrin.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <string_view>

#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/frame.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack::dpdk {
namespace {


// So many lines hold the headers up to the TCP checksum, whatever the IP version.
constexpr std::size_t kHeadLines = 2;

struct Sums {
  __m128i low = _mm_setzero_si128(), high = low;

  void add(__m128i v) {
    low = _mm_add_epi64(low, _mm_and_si128(v, _mm_set1_epi64x(0xffffffff)));
    high = _mm_add_epi64(high, _mm_srli_epi64(v, 32));
  }
  // The halves of each lane have been added up apart, so that no carry is lost.
  [[nodiscard]] std::uint64_t total() const {
    alignas(16) std::array<std::uint64_t, 2> lanes;
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes.data()), _mm_add_epi64(low, high));
    return add_with_carry(lanes[0], lanes[1]);
  }
};

template <bool Sum>
void stream_line(std::byte* to, const std::byte* from, Sums& sums) {
  for (std::size_t i = 0; i < kCacheLine; i += 16) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), v);
    if constexpr (Sum) sums.add(v);
  }
}

// `to` is on a line's boundary and has room up to one. Returns the sum of the bytes if that is wanted.
template <bool Sum>
std::uint64_t stream(std::byte* to, const std::byte* from, std::size_t n) {
  Sums sums;
  std::size_t done = 0;
  for (; done + kCacheLine <= n; done += kCacheLine) stream_line<Sum>(to + done, from + done, sums);
  if (done != n) {
    alignas(kCacheLine) std::array<std::byte, kCacheLine> last{};
    std::memcpy(last.data(), from + done, n - done);
    stream_line<Sum>(to + done, last.data(), sums);
  }
  return Sum ? sums.total() : 0;
}

// What the segment has in the field is the sum of the pseudo-header, and is part of what is summed up.
void stream_and_fill_in(std::byte* to, const Packet& p, std::size_t tcp) {
  constexpr std::size_t kHead = kHeadLines * kCacheLine;
  static_assert(kLargeFrame >= kHead);
  const std::uint64_t behind = stream<true>(to + kHead, p.data + kHead, p.len - kHead);
  alignas(kCacheLine) std::array<std::byte, kHead> head;
  std::memcpy(head.data(), p.data, kHead);
  store_checksum(&head[tcp + kTcpChecksumOffset], std::uint64_t{partial_sum(&head[tcp], kHead - tcp)} + fold_sum(behind));
  stream<false>(to, head.data(), kHead);
}

bool is_checksum_good(std::span<const std::byte> frame, std::uint32_t sum) {
  const TcpLayout at = find_tcp(frame);
  if (at.headers == 0 || at.length != frame.size()) return false;
  // In ones' complement what is not to be in the sum is added as its complement.
  const std::uint32_t in_front = partial_sum(frame.data(), at.tcp) ^ 0xffff;
  return sum_is_good(std::uint64_t{sum} + in_front + sum_of_pseudo_header(&frame[at.ip], at.v4, at.length - at.tcp));
}

}  // namespace

Stores stores_for_this_machine() {
  std::array<char, 256> first, second;
  const std::string_view all = read_beginning("/sys/devices/system/cpu/online", first);
  // The last one that there is; without a third level the second is hardly a common one.
  const std::string_view last = read_beginning("/sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list", second);
  return !all.empty() && all == last ? Stores::cached : Stores::past_caches;
}

std::size_t whole_lines(std::size_t n) { return (n + kCacheLine - 1) / kCacheLine * kCacheLine; }

bool copy_to_ring(std::byte* to, std::size_t room, const Packet& p, Stores stores) {
  const bool streams = stores == Stores::past_caches && p.len >= kLargeFrame && room >= whole_lines(p.len) &&
                       reinterpret_cast<std::uintptr_t>(to) % kCacheLine == 0;
  const TcpLayout at = (p.flags & kTxL4Offload) != 0 ? find_tcp(p.bytes()) : TcpLayout{};
  if (at.headers == 0) {
    if (streams) stream<false>(to, p.data, p.len);
    else std::memcpy(to, p.data, p.len);
  } else if (streams) {
    stream_and_fill_in(to, p, at.tcp);
  } else {
    std::memcpy(to, p.data, at.tcp);
    store_checksum(to + at.tcp + kTcpChecksumOffset, copy_and_sum(to + at.tcp, p.data + at.tcp, p.len - at.tcp));
  }
  return streams;
}

void end_streams() { _mm_sfence(); }  // such stores are ordered by nothing else

void copy_from_ring(Packet& p, const std::byte* from, std::size_t n) {
  const bool whole = p.len == 0;
  if (whole && n >= kLargeFrame) {
    const std::uint32_t sum = copy_and_sum(p.end(), from, n);
    p.len = static_cast<std::uint32_t>(n);
    if (is_checksum_good(p.bytes(), sum)) p.flags |= kRxL4Good;
    return;
  }
  std::memcpy(p.end(), from, n);
  p.len += static_cast<std::uint32_t>(n);
  p.flags = static_cast<std::uint16_t>(p.flags & ~kRxL4Good);
}

}  // namespace mtcp::stack::dpdk

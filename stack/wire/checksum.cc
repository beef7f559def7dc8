#include "stack/wire/checksum.hh"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace mtcp::stack {
namespace {

template <typename T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <bool Copy, typename Word>
Word take_word(std::byte*& dst, const std::byte*& src) {
  const Word word = load<Word>(src);
  src += sizeof word;
  if constexpr (Copy) {
    std::memcpy(dst, &word, sizeof word);
    dst += sizeof word;
  }
  return word;
}

template <bool Copy>
std::uint64_t sum_words(std::byte* dst, const std::byte* src, std::size_t n, std::uint64_t sum) {
  while (n >= 8) {
    sum = add_with_carry(sum, take_word<Copy, std::uint64_t>(dst, src));
    n -= 8;
  }
  // The rest in words of a known size: a copy of `n` bytes would be a loop, and its bytes read back at once as a word a stall.
  if ((n & 4) != 0) sum = add_with_carry(sum, take_word<Copy, std::uint32_t>(dst, src));
  if ((n & 2) != 0) sum = add_with_carry(sum, take_word<Copy, std::uint16_t>(dst, src));
  if ((n & 1) != 0) {
    std::uint16_t last = 0;
    std::memcpy(&last, src, 1);
    if constexpr (Copy) *dst = *src;
    sum = add_with_carry(sum, last);
  }
  return sum;
}

#ifdef __x86_64__
constexpr std::size_t kVectorBlock = 64;

// Sums `blocks` times 64 bytes. The halves of each 64-bit lane are added up apart, so that no carry is lost.
template <bool Copy>
__attribute__((target("avx2"))) std::uint64_t sum_blocks(std::byte* dst, const std::byte* src,
                                                         std::size_t blocks) {
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (; blocks != 0; --blocks, src += kVectorBlock) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
    const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + 32));
    if constexpr (Copy) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), x);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + 32), y);
      dst += kVectorBlock;
    }
    a = _mm256_add_epi64(a, _mm256_and_si256(x, low_half));
    b = _mm256_add_epi64(b, _mm256_srli_epi64(x, 32));
    c = _mm256_add_epi64(c, _mm256_and_si256(y, low_half));
    d = _mm256_add_epi64(d, _mm256_srli_epi64(y, 32));
  }
  alignas(32) std::uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes),
                     _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d)));
  return add_with_carry(add_with_carry(lanes[0], lanes[1]), add_with_carry(lanes[2], lanes[3]));
}
#endif

template <bool Copy>
std::uint32_t sum_any(std::byte* dst, const std::byte* src, std::size_t n) {
  std::uint64_t sum = 0;
#ifdef __x86_64__
  if (n >= 2 * kVectorBlock && __builtin_cpu_supports("avx2")) {
    const std::size_t blocks = n / kVectorBlock, bytes = blocks * kVectorBlock;
    sum = sum_blocks<Copy>(dst, src, blocks);
    if constexpr (Copy) dst += bytes;
    src += bytes;
    n -= bytes;
  }
#endif
  return fold_sum(sum_words<Copy>(dst, src, n, sum));
}

}  // namespace

std::uint32_t partial_sum(const std::byte* p, std::size_t n) { return sum_any<false>(nullptr, p, n); }

std::uint32_t copy_and_sum(std::byte* dst, const std::byte* src, std::size_t n) {
  return sum_any<true>(dst, src, n);
}

}  // namespace mtcp::stack

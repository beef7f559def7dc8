// SipHash (Aumasson and Bernstein, 2012): a short-input keyed hash. 2-4 where an attacker sees the output
// (ISN, ports, cookies), 1-3 for hash tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace mtcp::stack {

struct SipKey {
  std::uint64_t k0 = 0, k1 = 0;
};

template <int C, int D>
class SipState {
 public:
  constexpr explicit SipState(SipKey key)
      : v0_(key.k0 ^ 0x736f6d6570736575U),
        v1_(key.k1 ^ 0x646f72616e646f6dU),
        v2_(key.k0 ^ 0x6c7967656e657261U),
        v3_(key.k1 ^ 0x7465646279746573U) {}

  constexpr void word(std::uint64_t m) {
    v3_ ^= m;
    for (int i = 0; i < C; ++i) round();
    v0_ ^= m;
  }
  // `last` holds the bytes that do not fill a word, and the message's length in its top byte.
  constexpr std::uint64_t finish(std::uint64_t last) {
    word(last);
    v2_ ^= 0xff;
    for (int i = 0; i < D; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

 private:
  static constexpr std::uint64_t rotl(std::uint64_t x, int b) { return x << b | x >> (64 - b); }
  constexpr void round() {
    v0_ += v1_;
    v1_ = rotl(v1_, 13);
    v1_ ^= v0_;
    v0_ = rotl(v0_, 32);
    v2_ += v3_;
    v3_ = rotl(v3_, 16);
    v3_ ^= v2_;
    v0_ += v3_;
    v3_ = rotl(v3_, 21);
    v3_ ^= v0_;
    v2_ += v1_;
    v1_ = rotl(v1_, 17);
    v1_ ^= v2_;
    v2_ = rotl(v2_, 32);
  }
  std::uint64_t v0_, v1_, v2_, v3_;
};

// Of bytes, as published (little-endian words).
template <int C = 2, int D = 4>
[[nodiscard]] inline std::uint64_t siphash(SipKey key, std::span<const std::byte> message) {
  SipState<C, D> state(key);
  std::size_t i = 0;
  for (; i + 8 <= message.size(); i += 8) {
    std::uint64_t m;
    std::memcpy(&m, message.data() + i, 8);
    state.word(m);
  }
  std::uint64_t last = static_cast<std::uint64_t>(message.size()) << 56;
  for (std::size_t j = 0; i + j < message.size(); ++j)
    last |= static_cast<std::uint64_t>(message[i + j]) << (8 * j);
  return state.finish(last);
}

// Of whole words: siphash_words<1, 3>(key, a, b).
template <int C, int D, typename... Words>
[[nodiscard]] constexpr std::uint64_t siphash_words(SipKey key, Words... words) {
  SipState<C, D> state(key);
  (state.word(words), ...);
  return state.finish(std::uint64_t{8 * sizeof...(Words)} << 56);
}

}  // namespace mtcp::stack

// Keys for purposes that must not tell of each other, all from the secrets of the worker (worker.hh).
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/siphash.hh"

namespace mtcp::stack {

enum class KeyPurpose : std::uint64_t {
  flows = 1,
  isn,
  timestamps,
  cookies,
  ports,
  listeners,
  challenges,
  islands,
  destinations,
  fast_open,
  metrics,
  filter
};

[[nodiscard]] inline SipKey derive_key(const std::array<std::uint64_t, 4>& secret, KeyPurpose purpose) {
  const SipKey a{secret[0], secret[1]}, b{secret[2], secret[3]};
  const auto number = static_cast<std::uint64_t>(purpose);
  return {siphash_words<2, 4>(a, number), siphash_words<2, 4>(b, number)};
}

}  // namespace mtcp::stack

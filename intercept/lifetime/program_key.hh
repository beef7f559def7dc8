// What all processes of a program have in common, those that forks have made of one exec, and nobody else knows: the key of
// the names under which they find each other.
#pragma once

#include <sys/auxv.h>

#include <cstddef>
#include <cstring>

#include "stack/base/siphash.hh"

namespace mtcp::intercept {

// Of the random bytes that exec has put there. They tell nothing else of them: only keyed hashes are shown.
[[nodiscard]] inline stack::SipKey program_key() {
  stack::SipKey key;
  if (const auto* random = reinterpret_cast<const std::byte*>(getauxval(AT_RANDOM)); random != nullptr) {
    std::memcpy(&key.k0, random, sizeof key.k0);
    std::memcpy(&key.k1, random + sizeof key.k0, sizeof key.k1);
  }
  return key;
}

// What tells one program from another (stack::DeviceConfig::program); not secret.
[[nodiscard]] inline std::uint64_t program_number() {
  return stack::siphash_words<2, 4>(program_key(), std::uint64_t{0x70726f6772616d}) | 1;
}

}  // namespace mtcp::intercept

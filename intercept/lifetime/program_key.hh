// What all processes of a program have in common, those that forks have made of one exec, and nobody else knows: the key of
// the names under which they find each other.
#pragma once

#include <sys/auxv.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
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

// What tells one program from another (stack::DeviceConfig::program); not secret. One that has got its listeners by exec has that of
// the program which left them to it (number_of_predecessor()): who shares a listener accepts what has come for it.
[[nodiscard]] inline std::uint64_t program_number() {
  return stack::siphash_words<2, 4>(program_key(), std::uint64_t{0x70726f6772616d}) | 1;
}

// In the environment, behind the listeners that are left to the next program: "5:511,6:128b,p0123456789abcdef". 0: it is not there.
[[nodiscard]] inline std::uint64_t number_of_predecessor() {
  const char* listeners = std::getenv("MTCP_LISTENERS");
  const char* number = listeners != nullptr ? std::strrchr(listeners, 'p') : nullptr;
  return number != nullptr ? std::strtoull(number + 1, nullptr, 16) : 0;
}

}  // namespace mtcp::intercept

#include "stack/base/siphash.hh"

#include <array>
#include <catch2/catch.hpp>

using namespace mtcp::stack;

namespace {
constexpr SipKey kPaperKey{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
}

TEST_CASE("siphash-2-4 gives the values of the paper's appendix and reference code", "[siphash]") {
  std::array<std::byte, 15> message;
  for (std::size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(i);
  CHECK(siphash<2, 4>(kPaperKey, message) == 0xa129ca6149be45e5U);
  CHECK(siphash<2, 4>(kPaperKey, {}) == 0x726fdb47dd0e0e31U);
}

TEST_CASE("siphash of words is siphash of the same bytes", "[siphash]") {
  const std::array<std::uint64_t, 2> words{0x1122334455667788U, 42};
  const auto bytes = std::as_bytes(std::span(words));
  CHECK(siphash_words<1, 3>(kPaperKey, words[0], words[1]) == siphash<1, 3>(kPaperKey, bytes));
  CHECK(siphash_words<2, 4>(kPaperKey, words[0], words[1]) == siphash<2, 4>(kPaperKey, bytes));
}

TEST_CASE("another key gives another hash", "[siphash]") {
  CHECK(siphash_words<1, 3>({1, 2}, 7UL) != siphash_words<1, 3>({1, 3}, 7UL));
  CHECK(siphash_words<1, 3>({1, 2}, 7UL) != siphash_words<1, 3>({2, 2}, 7UL));
}

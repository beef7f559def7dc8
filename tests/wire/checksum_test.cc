#include "stack/wire/checksum.hh"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace mtcp::stack;

namespace {

// RFC 1071 section 4.1, word by word in network order.
std::uint16_t reference(const std::vector<std::byte>& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << 8;
    if (i + 1 < bytes.size()) sum += std::to_integer<std::uint32_t>(bytes[i + 1]);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

std::uint16_t stored(std::uint64_t sum) {
  std::byte at[2];
  store_checksum(at, sum);
  return load_be<std::uint16_t>(at);
}

std::vector<std::byte> random_bytes(std::mt19937& random, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

}  // namespace

TEST_CASE("rfc1071: the example of section 3 sums to 0xddf2") {
  const std::byte bytes[] = {std::byte{0x00}, std::byte{0x01}, std::byte{0xf2}, std::byte{0x03},
                             std::byte{0xf4}, std::byte{0xf5}, std::byte{0xf6}, std::byte{0xf7}};
  CHECK(stored(partial_sum(bytes, sizeof bytes)) == static_cast<std::uint16_t>(~0xddf2));
}

TEST_CASE(
    "rfc1071: every length up to 300 and some large ones agree with the word-by-word sum, at any alignment") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  std::vector<std::size_t> lengths = {1447, 1448, 1500, 4095, 9000, 65535};
  for (std::size_t n = 0; n <= 300; ++n) lengths.push_back(n);
  for (const std::size_t n : lengths) {
    for (const std::size_t shift : {0U, 1U, 3U, 8U, 31U}) {
      auto bytes = random_bytes(random, n + shift);
      const std::vector<std::byte> exact(bytes.begin() + static_cast<long>(shift), bytes.end());
      INFO("length " << n << " shift " << shift);
      REQUIRE(stored(partial_sum(bytes.data() + shift, n)) == reference(exact));
    }
  }
}

TEST_CASE("A block of all ones does not lose carries") {
  for (const std::size_t n : {8U, 64U, 128U, 1500U, 65534U}) {
    const std::vector<std::byte> bytes(n, std::byte{0xff});
    CHECK(partial_sum(bytes.data(), n) == 0xffff);
  }
}

TEST_CASE("Copying sums what it copied, and touches nothing else") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (std::size_t n = 0; n < 400; ++n) {
    const auto bytes = random_bytes(random, n);
    std::vector<std::byte> copy(n + 2, std::byte{0x5a});
    const auto sum = copy_and_sum(copy.data() + 1, bytes.data(), n);
    REQUIRE(sum == partial_sum(bytes.data(), n));
    REQUIRE(std::equal(bytes.begin(), bytes.end(), copy.begin() + 1));
    REQUIRE(copy.front() == std::byte{0x5a});
    REQUIRE(copy.back() == std::byte{0x5a});
  }
}

TEST_CASE("rfc1071: sums of pieces make the sum of the whole, also when they meet at an odd offset") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto bytes = random_bytes(random, 1001);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const auto head = partial_sum(bytes.data(), cut);
    const auto tail = partial_sum(bytes.data() + cut, bytes.size() - cut);
    REQUIRE(append_sum(head, tail, cut) == partial_sum(bytes.data(), bytes.size()));
  }
}

TEST_CASE("A stored checksum verifies, and does not after any single bit has changed") {
  std::mt19937 random(1);
  auto bytes = random_bytes(random, 60);
  bytes[10] = bytes[11] = std::byte{0};
  store_checksum(&bytes[10], partial_sum(bytes.data(), bytes.size()));
  REQUIRE(sum_is_good(partial_sum(bytes.data(), bytes.size())));
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    REQUIRE_FALSE(sum_is_good(partial_sum(bytes.data(), bytes.size())));
    bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
  }
}

#include "stack/steering/flow_hash.hh"

#include <cassert>
#include <cstring>

#include "stack/base/bytes.hh"
#include "stack/base/siphash.hh"
#include "stack/wire/frame.hh"

namespace mtcp::stack {
FlowHash::FlowHash(const Key& key) {
  // Bit i of the input selects the 32 bits of the key that begin at bit i.
  const auto window = [&key](std::size_t bit) {
    std::uint32_t w = 0;
    for (std::size_t i = 0; i < 32; ++i)
      w = w << 1 | (key[(bit + i) / 8] >> (7 - (bit + i) % 8) & 1U);
    return w;
  };
  for (std::size_t half = 0; half < table_.size(); ++half)
    for (std::uint32_t value = 0; value < 16; ++value) {
      std::uint32_t& sum = table_[half][value] = 0;
      for (std::size_t bit = 0; bit < 4; ++bit)
        if ((value >> (3 - bit) & 1) != 0) sum ^= window(half * 4 + bit);
    }
}

FlowHash::Key FlowHash::make_key(const std::array<std::uint64_t, 4>& secrets) {
  Key key;
  const SipKey sip{secrets[0] ^ secrets[2], secrets[1] ^ secrets[3]};
  for (std::size_t i = 0; i < key.size(); ++i)
    key[i] = static_cast<std::uint8_t>(siphash_words<2, 4>(sip, std::uint64_t{0x5455'0000} + i));
  return key;
}

std::uint32_t FlowHash::of(std::span<const std::byte> input) const {
  assert(input.size() <= kInput);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < input.size(); ++i) {
    const auto b = std::to_integer<std::uint8_t>(input[i]);
    sum ^= table_[2 * i][b >> 4] ^ table_[2 * i + 1][b & 15];
  }
  return sum;
}

std::uint32_t FlowHash::of_v4(std::uint32_t remote, std::uint32_t local, std::uint16_t remote_port,
                              std::uint16_t local_port) const {
  std::array<std::byte, 12> input;
  const auto put = [&input](std::size_t at, std::uint32_t v, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) input[at + i] = static_cast<std::byte>(v >> (8 * (n - 1 - i)));
  };
  put(0, remote, 4);
  put(4, local, 4);
  put(8, remote_port, 2);
  put(10, local_port, 2);
  return of(input);
}

std::uint32_t FlowHash::of(const FlowKey& key) const {
  if (key.local.is_v4() && key.remote.is_v4())
    return of_v4(key.remote.as_v4(), key.local.as_v4(), key.remote_port, key.local_port);
  std::array<std::byte, kInput> input;
  std::memcpy(input.data(), key.remote.bytes.data(), 16);
  std::memcpy(input.data() + 16, key.local.bytes.data(), 16);
  for (std::size_t i = 0; i < 2; ++i) {
    input[32 + i] = static_cast<std::byte>(key.remote_port >> (8 - 8 * i));
    input[34 + i] = static_cast<std::byte>(key.local_port >> (8 - 8 * i));
  }
  return of(input);
}

FrameKind classify(std::span<const std::byte> frame, const FlowHash& hash) {
  using Kind = FrameKind::Kind;
  if (tells_address_to_all(frame)) return {Kind::all, 0};
  const FlowHeaders flow = find_flow_headers(frame);
  if (!flow.found) return {};
  // Addresses and ports lie in the order that the hash wants, but for options between them.
  if (flow.v4 && !flow.quoted) {
    const std::byte *ip = flow.ip.data(), *tcp = flow.tcp.data();
    return {Kind::flow,
            hash.of_v4(load_be<std::uint32_t>(ip + 12), load_be<std::uint32_t>(ip + 16), source_port(tcp), destination_port(tcp)),
            true};
  }
  return {Kind::flow, hash.of(flow.key()), !flow.quoted};
}

}  // namespace mtcp::stack

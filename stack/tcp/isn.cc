// Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 section 5.4): keyed hashes, so that
// neither can be guessed from outside and both only grow for the same pair of endpoints.
#include <cstring>

#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
struct Words {
  std::uint64_t w[5] = {};
};
Words words_of(const FlowKey& key) {
  Words words;
  std::memcpy(words.w, &key, sizeof key);
  return words;
}
}  // namespace

Seq Tcp::choose_isn(const FlowKey& key, Time now) const {
  const auto [w] = words_of(key);
  const auto f = static_cast<std::uint32_t>(siphash_words<2, 4>(priv->isn_key, w[0], w[1], w[2], w[3], w[4]));
  // RFC 6528 section 3: ISN = M + F, M a clock of 4 microseconds.
  return Seq(f + static_cast<std::uint32_t>(now.time_since_epoch().count() / 4000));
}

std::uint32_t Tcp::choose_ts_offset(const FlowKey& key) const {
  // One per pair of hosts, so that timestamps grow from one connection to the next and RFC 6191 can use them.
  const auto [w] = words_of(key);
  return static_cast<std::uint32_t>(siphash_words<1, 3>(priv->ts_key, w[0], w[1], w[2], w[3]));
}

}  // namespace mtcp::stack

// Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 section 5.4): keyed hashes, so that
// neither can be guessed from outside and both only grow for the same pair of endpoints, from one process to the next as
// well: the clock is the machine's, and the keys outlive the process (worker.hh).
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
  // RFC 6528 section 3: ISN = M + F. M is a clock of 64 ns, as in Linux, not of 4 us: so the next ISN is beyond what was
  // sent at up to 15 MB/s, and beyond the window of the last one 5 ms later. Within it, a SYN that meets a half-open
  // connection of an earlier life is answered by a reset (RFC 9293 3.10.7.4, fourth step) and not by an ACK.
  return Seq(f + static_cast<std::uint32_t>(now.time_since_epoch().count() >> 6));
}

std::uint32_t Tcp::choose_ts_offset(const FlowKey& key) const {
  // One per pair of hosts, so that timestamps grow from one connection to the next and RFC 6191 can use them.
  const auto [w] = words_of(key);
  return static_cast<std::uint32_t>(siphash_words<1, 3>(priv->ts_key, w[0], w[1], w[2], w[3]));
}

std::uint64_t Tcp::destination_id(const FlowKey& key) const {
  const auto [w] = words_of({key.local, key.remote, 0, key.remote_port});
  return siphash_words<2, 4>(priv->destination_key, w[0], w[1], w[2], w[3], w[4]);
}

}  // namespace mtcp::stack

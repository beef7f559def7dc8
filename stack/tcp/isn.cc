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

// IPv4 has fewer bytes than IPv6. The hash knows their number, so no two flows are the same to it.
bool is_v4(const FlowKey& flow) { return flow.local.is_v4() && flow.remote.is_v4(); }
std::uint64_t addresses_of(const FlowKey& flow) {
  return std::uint64_t{flow.local.as_v4()} << 32 | flow.remote.as_v4();
}

// Of addresses and ports, where nobody who sees the result may guess the key.
std::uint64_t hash_of(SipKey key, const FlowKey& flow) {
  if (is_v4(flow)) {
    SipState<2, 4> state(key);
    state.word(addresses_of(flow));
    return state.finish(std::uint64_t{12} << 56 | std::uint32_t{flow.local_port} << 16 | flow.remote_port);
  }
  const auto [w] = words_of(flow);
  return siphash_words<2, 4>(key, w[0], w[1], w[2], w[3], w[4]);
}

}  // namespace

Seq Tcp::choose_isn(const FlowKey& key, Time now) const {
  const auto f = static_cast<std::uint32_t>(hash_of(priv->isn_key, key));
  // RFC 6528 section 3: ISN = M + F. M is a clock of 64 ns, as in Linux, not of 4 us: so the next ISN is beyond what was
  // sent at up to 15 MB/s, and beyond the window of the last one 5 ms later. Within it, a SYN that meets a half-open
  // connection of an earlier life is answered by a reset (RFC 9293 3.10.7.4, fourth step) and not by an ACK.
  return Seq(f + static_cast<std::uint32_t>(now.time_since_epoch().count() >> 6));
}

std::uint32_t Tcp::choose_ts_offset(const FlowKey& key) const {
  // One per pair of hosts, so that timestamps grow from one connection to the next and RFC 6191 can use them.
  if (is_v4(key)) return static_cast<std::uint32_t>(siphash_words<1, 3>(priv->ts_key, addresses_of(key)));
  const auto [w] = words_of(key);
  return static_cast<std::uint32_t>(siphash_words<1, 3>(priv->ts_key, w[0], w[1], w[2], w[3]));
}

std::uint64_t ActiveOpens::destination_id(const FlowKey& key) const {
  return hash_of(destination_key_, {key.local, key.remote, 0, key.remote_port});
}

}  // namespace mtcp::stack

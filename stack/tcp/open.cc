// What active and passive opens have in common: the MSS of our SYN, and what both SYNs have agreed on becomes a connection.
#include <algorithm>

#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
constexpr std::uint32_t kMinPeerMss = 48;  // as Linux's TCP_MIN_SND_MSS: room for data beside all options
constexpr std::uint32_t kTimestampsLength = 12;
}  // namespace

std::uint16_t Tcp::local_mss(const Path& path, const FlowKey& key, const SocketOptions& o) {
  const std::uint32_t headers = key.local.is_v4() ? 40 : 60;
  const std::uint32_t largest = std::clamp(path.mtu, headers + 88, headers + 65495U) - headers;
  return static_cast<std::uint16_t>(o.max_segment != 0 ? std::min<std::uint32_t>(o.max_segment, largest)
                                                       : largest);
}

void Tcp::apply_terms(Connection& c, const SynTerms& terms, std::uint32_t peer_window, bool window_is_scaled,
                      Time now) {
  auto& h = c.hot;
  h.timestamps = terms.timestamps;
  h.wscale = terms.wscale;
  h.sack_ok = terms.sack;
  h.ecn = terms.ecn;
  h.snd_wscale = terms.wscale ? terms.snd_wscale : std::uint8_t{0};
  if (!terms.wscale) h.rcv_wscale = 0;
  c.peer_mss = static_cast<std::uint16_t>(std::max<std::uint32_t>(terms.peer_mss, kMinPeerMss));
  const std::uint32_t mss = std::min(c.peer_mss, local_mss(*c.path, c.key, c.options));
  // RFC 6691: the MSS does not count options, what we send must.
  h.mss = static_cast<std::uint16_t>(h.timestamps ? mss - kTimestampsLength : mss);
  h.snd_wnd = window_is_scaled ? peer_window << h.snd_wscale : peer_window;
  c.tx.max_window = h.snd_wnd;
  h.snd_wl1 = c.irs;
  h.snd_wl2 = c.iss;
  h.rcv_adv = c.irs + 1 + receiver.initial_window(c.options);  // what our SYN said
  h.last_ack_sent = h.rcv_nxt;
  h.state = State::established;
  probe::established(c.key);
  init_transfer(c, now);
}

void Tcp::apply_syn_options(Connection& c, const TcpOptions& peer, std::uint32_t peer_window,
                            bool window_is_scaled, bool ecn, Time now) {
  SynTerms terms;
  if (peer.mss != 0) terms.peer_mss = peer.mss;
  terms.timestamps = options.tcp.timestamps && peer.has_timestamps;
  terms.wscale = options.tcp.window_scaling && peer.has_window_scale;
  terms.snd_wscale = peer.window_scale;
  terms.sack = options.tcp.sack && peer.sack_permitted;
  terms.ecn = ecn;
  if (terms.timestamps) c.hot.ts_recent = peer.ts_val;
  apply_terms(c, terms, peer_window, window_is_scaled, now);
}

}  // namespace mtcp::stack

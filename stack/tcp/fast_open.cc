// TCP Fast Open (RFC 7413): data with the SYN, and a server that answers it before the handshake is over. The connection that
// such a SYN makes is in ESTABLISHED at once, with SND.UNA on its own SYN until that is acknowledged.
#include <algorithm>
#include <cstring>

#include "stack/base/bytes.hh"
#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

constexpr std::uint8_t kCookieLength = 8;
constexpr std::uint32_t kDefaultMss = 536;
// RFC 7413 section 5.1: a spoofed SYN whose RST comes back counts for as long, or it would make room for the next.
constexpr Duration kResetCounts = seconds(60);
constexpr Duration kLossPause = seconds(60);  // doubled for each SYN that was lost in a row

FastOpenCookie make_cookie(SipKey key, const FlowKey& flow) {
  std::uint64_t w[4];
  std::memcpy(w, &flow.remote.bytes, 16);
  std::memcpy(w + 2, &flow.local.bytes, 16);
  FastOpenCookie cookie;
  cookie.length = kCookieLength;
  store_be(cookie.bytes.data(), siphash_words<2, 4>(key, w[0], w[1], w[2], w[3]));
  return cookie;
}

}  // namespace

// --- the server's side

FastOpenCookie Tcp::fast_open_cookie(const Listener& l, const FlowKey& key) const {
  return make_cookie(l.fast_open_keys.count != 0 ? l.fast_open_keys.keys[0] : priv->fast_open_key, key);
}

// Whose handshake is not over, and those that were reset in it lately.
std::size_t Tcp::count_fast_opens(const Listener& l, Time now) {
  std::erase_if(priv->fast_opens, [&](const Private::FastOpen& f) {
    if (f.until != Time{}) return now >= f.until;
    const FlowRef ref = find_flow(f.key, f.hash);
    if (ref.kind() != FlowRef::Kind::connection) return true;
    const Connection& c = connections.at(ref.index());
    return !(c.iss == f.iss) || !awaits_ack_of_syn(c);
  });
  return static_cast<std::size_t>(
      std::ranges::count_if(priv->fast_opens, [&](const Private::FastOpen& f) { return f.local == l.local; }));
}

void Tcp::note_fast_open_reset(const Connection& c, Time now) {
  for (Private::FastOpen& f : priv->fast_opens)
    if (f.key == c.key && f.iss == c.iss) f.until = now + kResetCounts;
}

// Section 4.2.2, as Linux's tcp_try_fastopen(). True: the SYN has made a connection, and the entry is gone.
bool Tcp::open_fast(Listener& l, SynEntry& e, Segment& s, Time now) {
  const std::uint32_t bits = options.tcp.fast_open;
  const std::uint32_t limit =
      l.fast_open_limit != 0 ? l.fast_open_limit : (bits & kFastOpenAllListeners) != 0 ? l.backlog : 0;
  if ((bits & kFastOpenServer) == 0 || limit == 0) return false;
  FastOpenCookie given;
  const bool has = read_fast_open(s, given);
  const bool needs_none = (bits & kFastOpenServerNoCookie) != 0 || l.options.fast_open_no_cookie;
  if (!has && !(needs_none && s.len != 0)) return false;
  if (priv->fast_opens.size() >= limit && count_fast_opens(l, now) >= limit) return stats.add(Counter::fast_opens_refused), false;
  e.experimental = given.experimental;
  if (!needs_none && !given.is(fast_open_cookie(l, e.key))) {
    e.fast_open = true;  // the answer has a good one
    const bool former = l.fast_open_keys.count == 2 && given.is(make_cookie(l.fast_open_keys.keys[1], e.key));
    if (!former) {
      if (given.length != 0) stats.add(Counter::fast_opens_refused);
      return false;
    }
  }
  return begin_fast(l, e, s, now);
}

bool Tcp::begin_fast(Listener& l, SynEntry& e, Segment& s, Time now) {
  Connection* made = new_connection(e.key, e.hash, *e.path, l.options, now);
  if (made == nullptr) return false;
  Connection& c = *made;
  if (!flows.insert(e.hash, FlowRef(FlowRef::Kind::connection, c.index))) return destroy(c), false;
  enter_table(c);
  take_entry(c, e);
  c.fast_open = true;
  c.experimental_fast_open = e.experimental;
  auto& h = c.hot;
  h.snd_una = e.iss;
  h.snd_nxt = e.iss + 1;
  apply_terms(c, e.terms, s.window, false, now);
  if ((s.packet->flags & kNotHome) != 0) [[unlikely]] c.published = port->settle(c.key, true);
  const std::uint32_t taken = std::min(s.len, e.window);
  if (taken != 0) {
    s.packet->trim(taken);
    c.syn_data_acked = true;
    receiver.enqueue_in_order(c, s.packet);
    h.rcv_nxt += taken;
    c.bytes_received += taken;
  }
  priv->fast_opens.push_back({c.key, c.hash, c.iss, l.local, Time{}});
  const bool with_cookie = e.fast_open;
  priv->syn_entries.destroy(e.index);
  stats.add(Counter::passive_opens);
  stats.add(Counter::fast_opens_accepted);
  queue_for_accept(l, c);
  answer_fast_open(c, with_cookie ? &l : nullptr, now);
  sender.arm_retransmit(c, now);
  return true;
}

// The SYN-ACK, which acknowledges the SYN's data. `l`: it has a new cookie of this listener.
void Tcp::answer_fast_open(Connection& c, const Listener* l, Time now) {
  const auto& h = c.hot;
  Header hd = syn_header(c, true, now);
  hd.window = after(h.rcv_adv, h.rcv_nxt) ? h.rcv_adv - h.rcv_nxt : 0;
  if (h.wscale) hd.window_scale = h.rcv_wscale;  // as agreed, whatever SO_RCVBUF says by now
  FastOpenCookie cookie;
  if (l != nullptr) {
    cookie = fast_open_cookie(*l, c.key);
    cookie.experimental = c.experimental_fast_open;
    hd.fast_open = &cookie;
  }
  ++c.segments_sent;
  receiver.note_ack_sent(c);
  send_bare(hd, *c.path, TxPriority::control, now);
}

bool Tcp::awaits_ack_of_syn(const Connection& c) {
  return c.fast_open && c.was_passive && c.hot.snd_una == c.iss && c.bytes_acked == 0;
}

// --- the client's side

bool Tcp::is_fast_open_ready(const IpAddress& local, const IpAddress& remote, const SocketOptions& o, Time now) const {
  const std::uint32_t bits = options.tcp.fast_open;
  if ((bits & kFastOpenClient) == 0) return false;
  const HostRecord* known = priv->destinations.find(local, remote);
  // Section 4.1.3.1: what drops such SYNs is left alone for a while.
  if (known != nullptr && known->syn_losses > 1 &&
      now < known->last_syn_loss + kLossPause * (1 << std::min<int>(known->syn_losses, 10)))
    return false;
  if ((bits & kFastOpenClientNoCookie) != 0 || o.fast_open_no_cookie) return true;
  return known != nullptr && known->cookie.length != 0;
}

// Section 4.2.1: the first SYN, with data and the cookie, or asking for one.
void Tcp::send_fast_open_syn(Connection& c, FastOpenStart& start, Time now) {
  const std::uint32_t bits = options.tcp.fast_open;
  const HostRecord* known = priv->destinations.find(c.key.local, c.key.remote);
  const bool ready = is_fast_open_ready(c.key.local, c.key.remote, c.options, now);
  const bool pauses = known != nullptr && !ready && known->cookie.length != 0;
  if ((bits & kFastOpenClient) == 0 || pauses) return send_syn(c, now);
  c.fast_open = true;
  const bool without = (bits & kFastOpenClientNoCookie) != 0 || c.options.fast_open_no_cookie;
  Header hd = syn_header(c, false, now);
  FastOpenCookie cookie;
  if (known != nullptr) {
    cookie = known->cookie;
    if (cookie.length == 0) cookie.experimental = known->other_option == HostRecord::Option::experimental;
  }
  c.experimental_fast_open = cookie.experimental;
  if (!without) hd.fast_open = &cookie;
  std::span<const std::byte> payload;
  if (ready) {
    const std::uint32_t mss = known != nullptr && known->mss != 0 ? known->mss : kDefaultMss;
    const std::uint32_t largest = std::min<std::uint32_t>(mss, local_mss(*c.path, c.key, c.options));
    const std::uint32_t room = largest - static_cast<std::uint32_t>(kMaxTcpOptions);
    payload = sender.queue_syn_data(c, start.data, room, now);
    start.taken = payload.size();
  }
  if (!payload.empty()) stats.add(Counter::fast_opens_sent);
  send_bare(hd, *c.path, TxPriority::control, now, payload);
}

// The SYN-ACK has come and the connection is in ESTABLISHED, with SND.UNA behind its SYN.
void Tcp::finish_fast_open(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  FastOpenCookie cookie;
  const bool given = read_fast_open(s, cookie) && cookie.length != 0;
  // Who answers a request without a cookie may know the other option only; after that, none (as Linux).
  const bool in_vain = !given && !h.retransmitting_syn && c.tx.queue.empty() && !c.options.fast_open_no_cookie;
  if (given || h.retransmitting_syn || in_vain) {
    if (HostRecord* d = priv->destinations.note(c.key.local, c.key.remote, now); d != nullptr) {
      if (given) {
        d->cookie = cookie;
        d->mss = c.peer_mss;
        d->syn_losses = 0;
      } else if (in_vain) {
        if (d->cookie.length == 0 && d->other_option != HostRecord::Option::none)
          d->other_option = c.experimental_fast_open ? HostRecord::Option::none : HostRecord::Option::experimental;
      } else {
        if (d->syn_losses != UINT8_MAX) ++d->syn_losses;
        d->last_syn_loss = now;
      }
    }
  }
  if (c.tx.queue.empty()) return;
  if (after(s.ack, h.snd_una)) {
    c.syn_data_acked = true;
    // The window of a SYN is not scaled (RFC 7323 section 2.2).
    const std::uint32_t window = h.snd_wnd, largest = c.tx.max_window;
    (void)sender.on_ack(c, s, now);
    h.snd_wnd = window;
    c.tx.max_window = largest;
  }
  sender.rewind_syn_data(c);
}

}  // namespace mtcp::stack

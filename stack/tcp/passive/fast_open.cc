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
// RFC 7413 section 5.1: a spoofed SYN whose RST comes back counts for as long, or it would make room for the next.
constexpr Duration kResetCounts = seconds(60);

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

FastOpenCookie PassiveOpens::fast_open_cookie(const Listener& l, const FlowKey& key) const {
  return make_cookie(l.fast_open_keys.count != 0 ? l.fast_open_keys.keys[0] : fast_open_key_, key);
}

// Whose handshake is not over, and those that were reset in it lately.
std::size_t PassiveOpens::count_fast_opens(const Listener& l, Time now) {
  std::erase_if(fast_opens_, [&](const PassiveOpens::FastOpen& f) {
    if (f.until != Time{}) return now >= f.until;
    const FlowRef ref = tcp_.find_flow(f.key, f.hash);
    if (ref.kind() != FlowRef::Kind::connection) return true;
    const Connection& c = tcp_.connections.at(ref.index());
    return !(c.iss == f.iss) || !awaits_ack_of_syn(c);
  });
  return static_cast<std::size_t>(
      std::ranges::count_if(fast_opens_, [&](const PassiveOpens::FastOpen& f) { return f.local == l.local; }));
}

void PassiveOpens::note_fast_open_reset(const Connection& c, Time now) {
  for (PassiveOpens::FastOpen& f : fast_opens_)
    if (f.key == c.key && f.iss == c.iss) f.until = now + kResetCounts;
}

// Section 4.2.2, as Linux's tcp_try_fastopen(). True: the SYN has made a connection, and the entry is gone.
bool PassiveOpens::open_fast(Listener& l, SynEntry& e, Segment& s, Time now) {
  const std::uint32_t bits = options_.tcp.fast_open;
  const std::uint32_t limit =
      l.fast_open_limit != 0 ? l.fast_open_limit : (bits & kFastOpenAllListeners) != 0 ? l.backlog : 0;
  if ((bits & kFastOpenServer) == 0 || limit == 0) return false;
  FastOpenCookie given;
  const bool has = read_fast_open(s, given);
  const bool needs_none = (bits & kFastOpenServerNoCookie) != 0 || l.options.fast_open_no_cookie;
  if (!has && !(needs_none && s.len != 0)) return false;
  if (fast_opens_.size() >= limit && count_fast_opens(l, now) >= limit) return stats_.add(Counter::fast_opens_refused), false;
  e.experimental = given.experimental;
  if (!needs_none && !given.is(fast_open_cookie(l, e.key))) {
    e.fast_open = true;  // the answer has a good one
    const bool former = l.fast_open_keys.count == 2 && given.is(make_cookie(l.fast_open_keys.keys[1], e.key));
    if (!former) {
      if (given.length != 0) stats_.add(Counter::fast_opens_refused);
      return false;
    }
  }
  return begin_fast(l, e, s, now);
}

bool PassiveOpens::begin_fast(Listener& l, SynEntry& e, Segment& s, Time now) {
  Connection* made = tcp_.new_connection(e.key, e.hash, *e.path, l.options, now);
  if (made == nullptr) return false;
  Connection& c = *made;
  if (!tcp_.flows.insert(e.hash, FlowRef(FlowRef::Kind::connection, c.index))) return tcp_.destroy(c), false;
  tcp_.others.enter_table(c);
  take_entry(c, e);
  c.fast_open = true;
  c.experimental_fast_open = e.experimental;
  auto& h = c.hot;
  h.snd_una = e.iss;
  h.snd_nxt = e.iss + 1;
  tcp_.apply_terms(c, e.terms, s.window, false, now);
  if ((s.packet->flags & kNotHome) != 0) [[unlikely]] tcp_.others.settle(c);
  const std::uint32_t taken = std::min(s.len, e.window);
  if (taken != 0) {
    s.packet->trim(taken);
    c.syn_data_acked = true;
    tcp_.receiver.enqueue_in_order(c, s.packet);
    h.rcv_nxt += taken;
    c.bytes_received += taken;
  }
  fast_opens_.push_back({c.key, c.hash, c.iss, l.local, Time{}});
  const bool with_cookie = e.fast_open;
  entries.destroy(e.index);
  stats_.add(Counter::passive_opens);
  stats_.add(Counter::fast_opens_accepted);
  queue_for_accept(l, c);
  answer_fast_open(c, with_cookie ? &l : nullptr, now);
  tcp_.sender.arm_retransmit(c, now);
  return true;
}

// The SYN-ACK, which acknowledges the SYN's data. `l`: it has a new cookie of this listener.
void PassiveOpens::answer_fast_open(Connection& c, const Listener* l, Time now) {
  const auto& h = c.hot;
  Tcp::Header hd = tcp_.syn_header(c, true, now);
  hd.window = after(h.rcv_adv, h.rcv_nxt) ? h.rcv_adv - h.rcv_nxt : 0;
  if (h.wscale) hd.window_scale = h.rcv_wscale;  // as agreed, whatever SO_RCVBUF says by now
  FastOpenCookie cookie;
  if (l != nullptr) {
    cookie = fast_open_cookie(*l, c.key);
    cookie.experimental = c.experimental_fast_open;
    hd.fast_open = &cookie;
  }
  ++c.segments_sent;
  tcp_.receiver.note_ack_sent(c);
  tcp_.send_bare(hd, *c.path, TxPriority::control, now);
}

bool PassiveOpens::awaits_ack_of_syn(const Connection& c) {
  return c.fast_open && c.was_passive && c.hot.snd_una == c.iss && c.bytes_acked == 0;
}

}  // namespace mtcp::stack

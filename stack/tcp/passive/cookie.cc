// SYN cookies (RFC 4987 section 3.6): when the SYN queue is full, what a SynEntry would hold travels in our
// ISN and, with RFC 7323, in the low bits of our timestamp, and comes back in the ACK.
#include <array>
#include <cstring>

#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

// Sequence number: 5 bits of time, 3 of MSS, 24 of keyed hash over all of it, the 4-tuple and the peer's ISN.
constexpr std::array<std::uint16_t, 8> kMss{536, 1220, 1300, 1400, 1440, 1452, 1460, 8940};
constexpr std::uint32_t kTimeBits = 31;
constexpr std::uint32_t kHashBits = 0xffffff;
constexpr Duration kPeriod = seconds(64);  // one step of the time; a cookie is good for this one and the next
constexpr Duration kLife = 2 * kPeriod;
// Timestamp: the peer's window scale in the low 4 bits of 6, then whether SACK is permitted and whether ECN is in use, so
// that it takes 64 ms at most from the clock.
constexpr std::uint32_t kOptionBits = 63;
constexpr std::uint32_t kNoScale = 15;
constexpr std::uint32_t kSackBit = 16;
constexpr std::uint32_t kEcnBit = 32;

std::uint64_t period_of(Time now) {
  return static_cast<std::uint64_t>(now.time_since_epoch().count() / kPeriod.count());
}

std::uint32_t cookie_hash(SipKey key, const FlowKey& flow, Seq irs, std::uint64_t period, std::uint32_t mss) {
  std::uint64_t w[5] = {};
  std::memcpy(w, &flow, sizeof flow);
  return static_cast<std::uint32_t>(siphash_words<2, 4>(key, w[0], w[1], w[2], w[3], w[4],
                                                        std::uint64_t{irs.value()} << 32 | mss, period)) &
         kHashBits;
}

std::uint32_t mss_index(std::uint16_t mss) {
  std::uint32_t i = kMss.size() - 1;
  while (i > 0 && kMss[i] > mss) --i;
  return i;
}

}  // namespace

void PassiveOpens::send_cookie(const SynEntry& e, Time now) {
  const std::uint64_t period = period_of(now);
  const std::uint32_t mss = mss_index(e.terms.peer_mss);
  const Seq iss(static_cast<std::uint32_t>(period & kTimeBits) << 27 | mss << 24 |
                cookie_hash(cookie_key_, e.key, e.irs, period, mss));
  std::uint32_t clock = Tcp::ts_clock(now);
  if (e.terms.timestamps) {
    const std::uint32_t scale = e.terms.wscale ? e.terms.snd_wscale : kNoScale;
    const std::uint32_t marked = (clock & ~kOptionBits) | scale | (e.terms.sack ? kSackBit : 0U) | (e.terms.ecn ? kEcnBit : 0U);
    clock = marked > clock ? marked - (kOptionBits + 1) : marked;  // never ahead of the clock
  }
  SynEntry answer_terms;
  answer_terms.key = e.key;
  answer_terms.irs = e.irs;
  answer_terms.ts_recent = e.ts_recent;
  answer_terms.terms = e.terms;
  // Without timestamps nothing can remember them.
  answer_terms.terms.wscale = e.terms.wscale && e.terms.timestamps;
  answer_terms.terms.sack = e.terms.sack && e.terms.timestamps;
  answer_terms.terms.ecn = e.terms.ecn && e.terms.timestamps;
  answer_terms.rcv_wscale = e.rcv_wscale;
  answer_terms.window = e.window;
  answer_terms.listener = e.listener;
  answer_terms.path = e.path;
  cookies_until_ = now + kLife;
  stats_.add(Counter::syn_cookies_sent);
  send_syn_ack(answer_terms, iss, clock + e.ts_offset, now);
}

bool PassiveOpens::on_cookie_ack(Listener& l, Segment& s, std::uint32_t hash, Time now) {
  if (!options_.tcp.syncookies || now >= cookies_until_) return false;
  SynEntry e;
  e.iss = s.ack - 1;
  e.irs = s.seq - 1;
  const std::uint32_t cookie = e.iss.value();
  const std::uint32_t mss = cookie >> 24 & 7;
  const std::uint64_t period = period_of(now);
  const std::uint64_t age = (period - (cookie >> 27)) & kTimeBits;
  if (age > 1 || cookie_hash(cookie_key_, s.key, e.irs, period - age, mss) != (cookie & kHashBits)) {
    stats_.add(Counter::syn_cookies_failed);
    return false;
  }
  stats_.add(Counter::syn_cookies_received);
  if (l.accept_count > l.backlog) {
    stats_.add(Counter::accept_queue_full);
    return true;
  }
  const Result<const Path*> path = tcp_.network.path(s.key.remote, s.key.local);
  if (!path) return stats_.add(Counter::no_route), true;
  e.key = s.key;
  e.hash = hash;
  e.path = *path;
  e.listener = &l;
  e.ts_offset = tcp_.choose_ts_offset(s.key);
  e.ts_recent = s.options.ts_val;
  e.window = tcp_.receiver.initial_window(l.options);
  e.rcv_wscale = tcp_.receiver.choose_window_scale(l.options);
  e.terms.peer_mss = kMss[mss];
  if (options_.tcp.timestamps && s.options.has_timestamps) {
    e.terms.timestamps = true;
    const std::uint32_t marks = s.options.ts_ecr - e.ts_offset;
    const std::uint32_t scale = marks & 15U;
    e.terms.sack = (marks & kSackBit) != 0 && options_.tcp.sack;
    e.terms.ecn = (marks & kEcnBit) != 0 && options_.tcp.ecn != 0;
    e.terms.wscale = scale != kNoScale && options_.tcp.window_scaling;
    e.terms.snd_wscale = e.terms.wscale ? static_cast<std::uint8_t>(scale) : std::uint8_t{0};
  }
  establish(e, FlowRef(), s, now);
  return true;
}

}  // namespace mtcp::stack

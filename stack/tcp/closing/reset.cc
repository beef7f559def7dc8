// RST: sending (RFC 9293 3.5.2) and believing (RFC 5961); and the end of the only peer, who sends none.
#include <vector>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

void Tcp::send_reset_for(const Segment& s, Time now) {
  if (s.has(kRst)) return;
  const Result<const Path*> path = network.path(s.key.remote, s.key.local);
  if (!path) return stats.add(Counter::no_route);
  Header h;
  h.key = s.key;
  h.flags = kRst;
  if (s.has(kAck)) {
    h.seq = s.ack;
  } else {
    h.flags |= kAck;
    h.ack = s.seq + s.seq_len();
  }
  stats.add(Counter::resets_sent);
  send_bare(h, **path, TxPriority::control, now);
}

void Tcp::send_reset(Connection& c, Time now) {
  const auto& hot = c.hot;
  if (hot.state == State::closed || hot.state == State::syn_sent || hot.state == State::time_wait) return;
  Header h;
  h.key = c.key;
  h.seq = hot.snd_nxt;
  h.ack = hot.rcv_nxt;
  h.flags = kRst | kAck;
  h.timestamps = hot.timestamps;
  h.ts_val = ts_clock(now) + c.ts_offset;
  h.ts_ecr = hot.ts_recent;
  stats.add(Counter::resets_sent);
  // It must not overtake our own data in the transmit queue: beyond what has arrived it would not be believed (RFC 5961).
  const auto priority = hot.snd_una == hot.snd_nxt ? TxPriority::control : TxPriority::data;
  // What nobody will send or read any more may be what has taken the last packets.
  c.detached ? free_packets(c) : sender.free_queue(c);
  send_bare(h, *c.path, priority, now);
}

namespace {

// As Linux's tcp_reset().
Errc errc_of_reset(State s) {
  switch (s) {
    case State::syn_sent:
      return Errc::connection_refused;
    case State::close_wait:
      return Errc::broken_pipe;
    default:
      return Errc::connection_reset;
  }
}

// RFC 5961 section 3.2 (2), and the sequence number of the peer's FIN: that is where a peer that is killed right after
// its FIN puts the RST, and what answers our challenge may never come (Linux's tcp_reset_check).
bool is_exact(const Connection::Hot& h, Seq seq) {
  if (seq == h.rcv_nxt) return true;
  return seq + 1 == h.rcv_nxt &&
         (h.state == State::close_wait || h.state == State::last_ack || h.state == State::closing);
}

}  // namespace

bool Tcp::on_reset_or_syn(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  if (s.has(kRst)) {
    if (is_exact(h, s.seq)) {
      stats.add(Counter::resets_received);
      if (PassiveOpens::awaits_ack_of_syn(c)) passive.note_fast_open_reset(c, now);
      finish(c, errc_of_reset(h.state));
    } else if (in_window(s.seq, h.rcv_nxt, h.rcv_adv - h.rcv_nxt)) {  // RFC 5961 section 3.2 (3)
      send_challenge_ack(c, now);
    } else {
      stats.add(Counter::out_of_window);
    }
    return true;
  }
  if (!s.has(kSyn)) return false;
  if (h.state == State::syn_received && s.has(kAck) && s.seq_len() == 1 && s.seq + 1 == h.rcv_nxt && s.ack == h.snd_nxt) {
    // RFC 9293 3.5, figure 7: the other side of a simultaneous open answers our SYN, too.
    s.flags = static_cast<std::uint8_t>(s.flags & ~kSyn);
    s.seq += 1;
    request_ack(c);
    return false;
  }
  if (PassiveOpens::awaits_ack_of_syn(c) && s.seq == c.irs && !s.has(kAck)) {  // the peer has not seen our answer
    stats.add(Counter::retransmitted_segments);
    probe::retransmit(c.key, c.iss.value(), 0);
    return passive.answer_fast_open(c, nullptr, now), true;
  }
  send_challenge_ack(c, now);  // RFC 5961 section 4.2, whatever the sequence number
  return true;
}

bool Tcp::take_challenge_budget(Time now) {
  if (options.tcp.challenge_ack_limit >= INT32_MAX) {
    stats.add(Counter::challenge_acks);
    return true;
  }
  const auto second = static_cast<std::uint64_t>(now.time_since_epoch() / seconds(1));
  if (second != priv->challenge_second) {
    priv->challenge_second = second;
    // RFC 5961 section 7 with a limit that nobody can measure from outside: between half and three halves of
    // it.
    const std::uint32_t limit = options.tcp.challenge_ack_limit;
    priv->challenge_random = siphash_words<1, 3>(priv->isn_key, priv->challenge_random, second);
    priv->challenge_budget =
        limit / 2 + static_cast<std::uint32_t>(priv->challenge_random % (std::uint64_t{limit} + 1));
  }
  if (priv->challenge_budget == 0) {
    stats.add(Counter::challenge_acks_limited);
    return false;
  }
  --priv->challenge_budget;
  stats.add(Counter::challenge_acks);
  return true;
}

// As Linux's tcp_invalid_ratelimit: neither may two ends that are out of step ACK each other for ever, nor one connection
// use up what all have.
bool Tcp::may_answer(Time& last_answer, Time now) {
  if (last_answer != Time{} && now - last_answer < options.tcp.invalid_ratelimit) {
    stats.add(Counter::challenge_acks_limited);
    return false;
  }
  last_answer = now;
  return true;
}

void Tcp::send_challenge_ack(Connection& c, Time now) {
  if (may_answer(c.rx.last_oow_ack, now) && take_challenge_budget(now)) send_ack(c, now);
}

// --- the end of the only peer

namespace {

// The peer has closed it and owes us nothing: a kernel in its place would not speak before it is spoken to.
bool is_at_rest(const Connection& c) {
  const auto& h = c.hot;
  return h.fin_received && !h.fin_queued && h.snd_una == h.snd_nxt && c.tx.queue.empty();
}

}  // namespace

void Tcp::end_connections_of_peer() {
  tx.clear(cache, TxPriority::ack);  // SYNs stay: the next peer may answer them
  std::vector<Connection*> ended;    // finish() gives the slots back
  connections.for_each([&](Connection& c, std::uint32_t) {
    const State s = c.hot.state;
    if (!c.path->local && s != State::closed && s != State::syn_sent && !is_at_rest(c)) ended.push_back(&c);
  });
  for (Connection* c : ended) {
    stats.add(Counter::peer_ended);
    const bool complete = c->hot.fin_received && c->tx.queue.empty();  // but for the ACK of our FIN
    finish(*c, complete ? Errc::ok : errc_of_reset(c->hot.state));
  }
  passive.entries.for_each([&](SynEntry& e, std::uint32_t) {
    if (!e.path->local) passive.drop(e);
  });
}

void Tcp::follow_peer(bool just_ended) {
  const bool gone = !port->link_up();
  // One that was at rest may have something to say meanwhile, which nobody will hear. The next peer answers for itself.
  const bool speaks = !tx.empty() || !sender.blocked.empty();
  if (just_ended || (gone && speaks)) end_connections_of_peer();
  priv->peer_gone = gone;
}

}  // namespace mtcp::stack

// What the socket layer asks of a connection, and the options that it changes.
#include "stack/tcp/buffers.hh"
#include "stack/tcp/sender/bbr.hh"
#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/controls.hh"
#include "stack/tcp/sender/dctcp.hh"
#include "stack/tcp/sender/rto.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

namespace {

// `skipped`: bytes in order that a read leaves out.
[[gnu::always_inline]] inline Readiness readiness_of(const Tcp& tcp, const Connection& c, bool read_shut, std::uint32_t skipped) {
  const auto& h = c.hot;
  Readiness r;
  r.error = c.error != Errc::ok;
  if (h.state == State::syn_sent || h.state == State::syn_received) return r;
  const bool closed = h.state == State::closed || h.state == State::time_wait;
  const bool no_more = h.fin_received || read_shut || closed;
  r.readable = r.error || no_more ||
               (c.rx.queued > skipped && (c.rx.queued >= c.options.rcvlowat + skipped || c.rx.queued >= largest_window(c)));
  r.writable = r.error || closed || h.fin_queued || tcp.sender.is_writable(c);
  r.peer_closed = no_more;
  r.hung_up = closed || (no_more && h.fin_queued);
  return r;
}

// Of what is shut for reading, or has urgent data.
[[gnu::noinline]] Readiness rare_readiness(const Tcp& tcp, const Connection& c) {
  Readiness r = readiness_of(tcp, c, c.read_shut, tcp.receiver.skips_next(c) ? 1 : 0);
  r.urgent = tcp.receiver.has_urgent(c);
  return r;
}

}  // namespace

Readiness Tcp::readiness(const Connection& c) const {
  if (c.read_shut || c.urgent) [[unlikely]]
    return rare_readiness(*this, c);
  return readiness_of(*this, c, false, 0);
}

Readiness Tcp::readiness(const Listener& l) const {
  Readiness r;
  r.readable = l.accept_count != 0;
  return r;
}

std::size_t Tcp::readable_bytes(const Connection& c) const { return receiver.readable_before_mark(c); }

std::size_t Tcp::writable_bytes(const Connection& c) const {
  return can_send(c.hot.state) && !c.hot.fin_queued ? sender.send_room(c) : 0;
}

bool Tcp::drained(const Connection& c) const {
  const auto& h = c.hot;
  if (h.state == State::closed || h.state == State::time_wait) return true;
  return c.tx.queue.empty() && h.snd_una == h.snd_nxt && (!h.fin_queued || h.fin_sent);
}

void Tcp::set_options(Connection& c, const SocketOptions& o, Time now) {
  const SocketOptions old = std::exchange(c.options, o);
  auto& h = c.hot;
  if (!is_synchronized(h.state) || h.state == State::time_wait) return;
  resize_buffers(c);
  if (o.quickack) {
    h.pingpong = false;
    c.rx.quickack_left = std::max<std::uint8_t>(c.rx.quickack_left, 16);
    if (h.last_ack_sent != h.rcv_nxt) request_ack(c);
  } else if (old.quickack) {
    h.pingpong = true;
  }
  if (o.keepalive != old.keepalive || o.keepalive_time != old.keepalive_time ||
      o.keepalive_intvl != old.keepalive_intvl) {
    c.tx.probes = 0;
    arm_keepalive(c, now);
  }
  sender.on_options(c, old, now);
  // What a smaller low-water mark or a larger buffer makes ready.
  if (c.rx.queued >= o.rcvlowat && c.rx.queued != 0 && o.rcvlowat < old.rcvlowat)
    raise(c, SocketBase::kReadEdge);
  sender.wake_writer(c, now);
}

namespace {

// Bytes, and what was agreed on with the peer.
void tell_stream(const Connection& c, ConnectionInfo& i) {
  const auto& h = c.hot;
  i.rx_queued = c.rx.queued;
  i.tx_queued = h.snd_queued;
  i.tx_unsent = unsent_bytes(c);
  i.snd_wnd = h.snd_wnd;
  i.rcv_wnd = after(h.rcv_adv, h.rcv_nxt) ? h.rcv_adv - h.rcv_nxt : 0;
  i.mss = h.mss;
  i.rcv_mss = c.rx.mss_estimate;
  i.peer_mss = c.peer_mss;
  i.path_mtu = c.path_mtu != 0 ? c.path_mtu : c.path->mtu;
  i.snd_wscale = h.snd_wscale;
  i.rcv_wscale = h.rcv_wscale;
  i.timestamps = h.timestamps;
  i.wscale = h.wscale;
  i.sack = h.sack_ok;
  i.ecn = h.ecn;
  i.ecn_seen = c.recovery.ecn_seen;
  i.syn_data_acked = c.syn_data_acked;
  i.fast_open_failure = c.fast_open_failure;
}

void tell_congestion(const Connection& c, ConnectionInfo& i) {
  const auto& h = c.hot;
  i.congestion_control = c.tx.cc != nullptr ? c.tx.cc->name() : nullptr;
  i.cwnd = h.cwnd;
  i.ssthresh = c.tx.ssthresh;
  i.flight = h.flight();
  i.app_limited = c.tx.unsent == nullptr && h.flight() < h.cwnd;
}

// What is taken for lost, and how long it takes until it is.
void tell_recovery(const Connection& c, const TcpTuning& tuning, ConnectionInfo& i) {
  i.srtt = c.tx.srtt;
  i.rttvar = c.tx.deviation;
  i.min_rtt = std::min(c.recovery.min_rtt, c.recovery.former_min_rtt);
  i.rto = backed_off(c.tx.rto, c.tx.backoff, tuning);
  i.backoff = c.tx.backoff;
  i.retries = c.tx.retries;
  i.probes = c.tx.probes;
  i.retransmits = c.retransmits;
  i.phase = c.hot.phase;
  if (const Scoreboard* b = c.tx.scoreboard) {
    i.sacked = b->sacked();
    i.lost = b->lost();
    i.resent = b->resent();
  }
  i.sacked += c.recovery.reno_sacked;
  i.duplicate_threshold = c.recovery.duplicate_threshold;
}

void tell_rates(const Connection& c, ConnectionInfo& i) {
  i.pacing_rate = Sender::window_rate(c);
  i.max_pacing_rate = c.options.max_pacing_rate;
  if (c.tx.cc == &dctcp()) {
    const DctcpInfo d = dctcp_info(c);
    i.dctcp_enabled = d.enabled;
    i.dctcp_marked = d.marked;
    i.dctcp_alpha = d.alpha;
    i.dctcp_acked_marked = d.acked_marked;
    i.dctcp_acked = d.acked;
  }
  if (c.pacing == nullptr) return;
  if (c.pacing->paced) i.pacing_rate = c.pacing->rate;
  i.delivery_rate = c.pacing->delivery.bytes_per_second();
  i.delivery_app_limited = c.pacing->delivery.latest_was_app_limited();
  if (c.tx.cc != &bbr()) return;
  const BbrState& s = bbr_state(*c.pacing);
  i.model_rate = static_cast<std::uint64_t>(s.use_policed ? s.policed_rate : s.rates.best());
  i.model_min_rtt = s.min_rtt;
  i.model_pacing_gain = s.pacing_gain;
  i.model_cwnd_gain = s.cwnd_gain;
}

void tell_counts(const Connection& c, ConnectionInfo& i) {
  i.bytes_received = c.bytes_received;
  i.bytes_acked = c.bytes_acked;
  i.segments_received = c.segments_received;
  i.data_segments_received = c.data_segments_received;
  i.segments_sent = c.segments_sent;
  i.data_segments_sent = c.data_segments_sent;
  const std::uint32_t on_the_way = c.hot.snd_queued - unsent_bytes(c);
  i.bytes_sent = c.bytes_acked + on_the_way;
  const ConnectionExtras* x = c.extras.get();
  if (x == nullptr) return;
  i.bytes_resent = x->bytes_resent;
  i.bytes_sent += x->bytes_resent;
  i.marked_received = x->marked_received;
  i.marked_delivered = x->marked_delivered;
  i.duplicates_reported = x->duplicates_reported;
  i.reorderings = x->reorderings;
  i.timeouts = x->timeouts;
  i.timeout_episodes = x->timeout_episodes;
}

// Moments, and what sending has waited for.
void tell_times(const Connection& c, ConnectionInfo& i) {
  using For = Connection::Waits::For;
  i.busy = {c.waits.busy, !c.tx.queue.empty()};
  i.for_window = {c.waits.for_window, c.waits.now_for == For::window};
  i.for_buffer = {c.waits.for_buffer, c.waits.now_for == For::buffer};
  if (const ConnectionExtras* x = c.extras.get())
    i.in_timeouts = {x->in_timeouts - x->timeouts_since.time_since_epoch(), x->timeouts_since != Time{}};
  const auto time_of = [&](std::uint32_t clock) {
    return c.created + milliseconds(clock - Tcp::ts_clock(c.created));
  };
  i.created = c.created;
  i.last_sent = c.tx.last_sent;
  i.last_received = time_of(c.hot.last_received);
  i.last_data_received = c.rx.ato != 0 ? time_of(c.rx.last_data) : Time{};
}

void tell_receiver(const Connection& c, ConnectionInfo& i) {
  i.delayed_ack = milliseconds(c.rx.ato);
  i.rcv_rtt = c.rx.rtt;
  i.rcv_space = c.rx.drs_space;
  i.out_of_order_received = c.rx.out_of_order_received;
}

}  // namespace

ConnectionInfo Tcp::info(const Connection& c) const {
  ConnectionInfo i;
  i.key = c.key;
  i.state = PassiveOpens::awaits_ack_of_syn(c) ? State::syn_received : c.hot.state;
  i.advertised_mss = local_mss(*c.path, c.key, c.options) - (c.hot.timestamps ? 12U : 0U);
  tell_stream(c, i);
  tell_congestion(c, i);
  tell_recovery(c, options.tcp, i);
  tell_rates(c, i);
  tell_counts(c, i);
  tell_times(c, i);
  tell_receiver(c, i);
  return i;
}

}  // namespace mtcp::stack

// Closing: RFC 9293 3.10.4 (CLOSE), 3.10.5 (ABORT), 3.6 (what FIN does to the states); what ICMP does (RFC
// 5927).
#include <vector>

#include "stack/tcp/private.hh"

namespace mtcp::stack {

// --- the application's side

bool Tcp::detach(Connection& c, Time now) {
  c.detached = true;
  c.user = nullptr;
  c.event_hook.unlink();
  ++priv->orphans;
  if (c.hot.state == State::closed) {
    destroy(c);
    return false;
  }
  // Nobody will read what is missing a piece; what is still to be acknowledged pays early when packets are scarce.
  if (!c.rx.out_of_order.empty()) receiver.free_out_of_order(c);
  c.memory_hook.unlink();
  if (c.tx.memory != 0) priv->closed.note(c, c.tx.memory);
  if (priv->orphans <= priv->max_orphans) return true;
  stats.add(Counter::orphans_killed);
  send_reset(c, now);
  finish(c, Errc::ok);
  return false;
}

void Tcp::queue_fin(Connection& c, Time now) {
  auto& h = c.hot;
  if (h.fin_queued) return;
  if (h.state == State::established)
    h.state = State::fin_wait_1;
  else if (h.state == State::close_wait)
    h.state = State::last_ack;
  else if (h.state != State::syn_received)
    return;
  // In SYN-RECEIVED the FIN waits until the SYN is acknowledged (RFC 9293 3.10.4).
  h.fin_queued = true;
  h.more = false;
  sender.push(c, now);
}

void Tcp::shutdown(Connection& c, bool read, bool write, Time now) {
  if (read && !c.read_shut) {
    c.read_shut = true;
    raise(c, SocketBase::kReadEdge | SocketBase::kCloseEdge);
  }
  if (!write || c.hot.fin_queued || !(can_send(c.hot.state) || c.hot.state == State::syn_received)) return;
  queue_fin(c, now);
  raise(c, SocketBase::kWriteEdge);
}

void Tcp::close(Connection& c, Time now) {
  const bool unread = !c.rx.queue.empty();
  if (!detach(c, now)) return;
  const State s = c.hot.state;
  if (s == State::syn_sent) return finish(c, Errc::ok);
  // RFC 2525 section 2.17: data that nobody will read is told to the peer by a reset. SO_LINGER with time
  // zero resets on purpose.
  if (unread || (c.options.linger && c.options.linger_time == Duration::zero())) {
    stats.add(Counter::connections_aborted);
    send_reset(c, now);
    return finish(c, Errc::ok);
  }
  c.options.cork = false;
  wheel.cancel(c.life_timer);  // keep-alive; from here on it is the limit of FIN-WAIT-2
  if (s == State::fin_wait_2) return await_fin(c, now);
  queue_fin(c, now);
}

void Tcp::abort(Connection& c, Time now) {
  if (!detach(c, now)) return;
  if (c.hot.state != State::syn_sent) {
    stats.add(Counter::connections_aborted);
    send_reset(c, now);
  }
  finish(c, Errc::ok);
}

void Tcp::abort_orphans(Time now) {
  (void)migration.end_listeners(true, now);
  std::vector<Connection*> doomed;  // finish() gives the slots back
  connections.for_each([&](Connection& c, std::uint32_t) {
    const State s = c.hot.state;
    if (c.detached &&
        (s == State::fin_wait_1 || s == State::closing || s == State::last_ack || s == State::syn_received))
      doomed.push_back(&c);
  });
  for (Connection* c : doomed) {
    stats.add(Counter::orphans_killed);
    send_reset(*c, now);
    finish(*c, Errc::ok);
  }
}

// --- the peer's side

// FIN-WAIT-2 without an application: RFC 9293 has no limit here, every system does.
void Tcp::await_fin(Connection& c, Time now) {
  const Duration limit =
      c.options.fin_timeout != Duration::zero() ? c.options.fin_timeout : options.tcp.fin_timeout;
  wheel.arm(c.life_timer, limit > Duration::zero() ? now + limit : now);  // TCP_LINGER2 below zero: at once
}

void Tcp::on_fin_received(Connection& c, Time now) {
  auto& h = c.hot;
  h.fin_received = true;
  switch (h.state) {
    case State::syn_received:
    case State::established:
      h.state = State::close_wait;
      break;
    case State::fin_wait_1:
      h.state = State::closing;
      break;  // ours is not acknowledged, or this were FIN-WAIT-2
    case State::fin_wait_2:
      raise(c, SocketBase::kReadEdge | SocketBase::kCloseEdge);
      return time_waits.enter(c, now);
    default:
      return;
  }
  request_ack(c);
  raise(c, SocketBase::kReadEdge | SocketBase::kCloseEdge);
}

void Tcp::on_fin_acked(Connection& c, Time now) {
  switch (c.hot.state) {
    case State::fin_wait_1:
      c.hot.state = State::fin_wait_2;
      wheel.cancel(c.retransmit_timer);
      if (c.detached) await_fin(c, now);
      return;
    case State::closing:
      return time_waits.enter(c, now);
    case State::last_ack:
      active.save_metrics(c, now);
      return finish(c, Errc::ok);
    default:
      return;
  }
}

// --- ICMP

namespace {

// As Linux's icmp_err_convert.
Errc errc_of(const IcmpError& e) {
  if (e.type != 3) return e.type == 12 ? Errc::protocol_error : Errc::host_unreachable;  // parameter problem, time exceeded
  switch (e.code) {
    case 0:
    case 6:
    case 9:
    case 11:
      return Errc::network_unreachable;
    case 2:
      return Errc::protocol_unreachable;
    case 3:
      return Errc::connection_refused;
    case 4:
      return Errc::message_size;
    case 5:
      return Errc::not_supported;
    default:
      return Errc::host_unreachable;
  }
}

// As Linux's tcp_v4_err(): of a half-open connection only these are believed. Whatever refuses a port, or forbids, is not
// the peer whose SYN has come.
bool ends_half_open(const IcmpError& e) {
  if (e.type == 3) return e.code == 0 || e.code == 1;  // network, host unreachable
  return e.type == 11 || e.type == 12;                 // time to live exceeded, parameter problem
}

}  // namespace

void Tcp::on_icmp(IcmpError& e, Time now) {
  const FlowRef ref = find_flow(e.key, flows.hash(e.key));
  if (ref)
    on_icmp(ref, e, now);
  else
    (void)others.offer(e.packet, e.key, false, now);  // what nobody knows it is about is nobody's business
  if (e.packet != nullptr) cache.free(e.packet);
}

void Tcp::on_icmp(FlowRef ref, const IcmpError& e, Time now) {
  if (ref.kind() == FlowRef::Kind::syn_entry) {
    SynEntry& entry = passive.entries.at(ref.index());
    if (!(e.seq == entry.iss) || !ends_half_open(e)) return;
    stats.add(Counter::icmp_errors_received);
    return passive.drop(entry);
  }
  if (ref.kind() != FlowRef::Kind::connection) return;
  Connection& c = connections.at(ref.index());
  // RFC 5927 section 4.1: only about something in flight.
  if (before(e.seq, c.hot.snd_una) || !before(e.seq, c.hot.snd_nxt))
    return stats.add(Counter::icmp_out_of_window);
  stats.add(Counter::icmp_errors_received);
  if (e.type == 4) return;  // RFC 6633: source quench is ignored
  if (e.type == 3 && e.code == 4) return sender.on_path_mtu(c, e.mtu, now);
  if (c.hot.state == State::syn_sent || c.hot.state == State::syn_received) return finish(c, errc_of(e));
  c.soft_error = errc_of(e);  // RFC 5927 section 5.2, RFC 9293 3.9.2.2: a synchronized connection survives
}

}  // namespace mtcp::stack

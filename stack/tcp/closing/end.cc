// The end of a connection: what it holds is given back, and its application is told.
#include <new>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

void Tcp::free_packets(Connection& c) {
  sender.free_queue(c);
  while (Packet* p = c.rx.queue.pop_front()) cache.free(p);
  receiver.free_out_of_order(c);
}

void Tcp::leave_table(Connection& c) {
  if (!c.in_table) return;
  flows.erase(c.hash, FlowRef(FlowRef::Kind::connection, c.index));
  c.in_table = false;
  others.forget_flow(c);
  if (c.holds_port) {
    active.ports.release(c.key.local_port);
    c.holds_port = false;
  }
  if (c.published) steering->withdraw(c.key);
  c.published = false;
}

ConnectionExtras* Tcp::need_extras(Connection& c) {
  if (c.extras == nullptr) c.extras.reset(new (std::nothrow) ConnectionExtras);
  return c.extras.get();
}

void Tcp::destroy(Connection& c) {
  leave_table(c);
  migration.forget_adoption(c);
  if (c.detached) --priv->orphans;
  free_packets(c);
  connections.destroy(c.index);
}

void Tcp::finish(Connection& c, Errc error) {
  leave_table(c);
  migration.forget_adoption(c);
  wheel.cancel(c.retransmit_timer);
  wheel.cancel(c.delayed_ack_timer);
  wheel.cancel(c.life_timer);
  c.ack_hook.unlink();
  c.push_hook.unlink();
  c.hot.ack_queued = c.hot.ack_now = c.hot.tx_blocked = false;
  if (c.hot.state == State::syn_sent) {
    c.accept_hook.unlink();
    if (error != Errc::ok) stats.add(Counter::connect_failures);
  }
  c.hot.state = State::closed;
  if (c.detached) return destroy(c);
  Sender::end_waits(c, Time(milliseconds(priv->last_tick)));
  sender.free_queue(c);
  receiver.free_out_of_order(c);
  if (error != Errc::ok) c.error = error;
  std::uint8_t edges = SocketBase::kReadEdge | SocketBase::kWriteEdge | SocketBase::kCloseEdge;
  if (error != Errc::ok) edges |= SocketBase::kErrorEdge;
  raise(c, edges);
}

}  // namespace mtcp::stack

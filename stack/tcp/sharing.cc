// One stack among several on the same device: what it asks of the others and tells them, through its Port.
#include <vector>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
constexpr int kOrphansPerTick = 64;
constexpr std::uint8_t kTellings = 3;
constexpr Duration kTellAgain = seconds(1);  // longer than peers limit their answers (Linux: 500 ms)
}  // namespace

// The packet has been cut to its payload, but no byte of it has been changed: the port finds the frame again.
bool Tcp::offer(Packet*& p, const FlowKey& key, bool opens, Time now) {
  // From our own address it came by the loopback wire, which nobody shares.
  if (port == nullptr || network.is_local(key.remote) || !port->forward_unknown(p, key, opens, now)) return false;
  p = nullptr;
  stats.add(Counter::forwarded_unknown);
  return true;
}

bool Tcp::forward_unknown(Segment& s, Time now) {
  return offer(s.packet, s.key, (s.flags & (kSyn | kAck | kRst)) == kSyn, now);
}

void Tcp::enter_table(Connection& c) {
  c.in_table = true;
  if (port != nullptr && !c.path->local) port->note_flow(c.index, c.key);
}

void Tcp::forget_flow(const Connection& c) {
  if (port != nullptr && !c.path->local) port->forget_flow(c.index);
}

// The table has changed, and this stack is no longer the home of some of its flows: they go into the directory.
void Tcp::publish_flows() {
  constexpr int kTimeWaits = 16384;  // the newest of them: the others' peers have long heard our last ACK
  const auto strays = [this](const auto& flow) {
    return !flow.published && !network.is_local(flow.key.remote) && !port->is_home(flow.key);
  };
  connections.for_each([&](Connection& c, std::uint32_t) {
    if (!c.in_table || c.published || c.path->local) return;
    // What has been opened here the new home might open as well.
    if (!c.was_passive)
      c.published = port->publish(c.key, Port::FlowKind::connection);
    else if (strays(c))
      c.published = port->settle(c.key, true);
  });
  priv->syn_entries.for_each([&](SynEntry& e, std::uint32_t) {
    if (strays(e)) publish(e);
  });
  std::uint32_t at = priv->tw_newest;
  for (int n = 0; n < kTimeWaits && at != Slab<TimeWaitEntry>::kNone; ++n) {
    TimeWaitEntry& e = priv->time_waits.at(at);
    if (strays(e)) e.published = port->publish(e.key, Port::FlowKind::time_wait);
    at = e.prev;
  }
  port->all_published();
}

// A half-open connection whose home lacks the listener. That many of them whatever anybody sends.
void Tcp::publish(SynEntry& e) {
  constexpr std::uint32_t kMostHalfOpen = 4096;
  if (priv->half_open_published >= kMostHalfOpen) return;
  e.published = port->publish(e.key, Port::FlowKind::half_open);
  priv->half_open_published += e.published ? 1 : 0;
}

void Tcp::update_serving() {
  if (port == nullptr) return;
  bool serving = false;
  priv->listeners.for_each(
      [&](const Listener& l, std::uint32_t) { serving = serving || (!l.left && !l.local.address.is_loopback()); });
  if (serving != priv->serving) port->set_serving(serving);
  priv->serving = serving;
}

// What the others may send to `l`.
void Tcp::note_listener(const Listener& l) {
  if (port == nullptr || l.local.address.is_loopback()) return;
  const Listening how = l.left ? Listening::left : l.unwatched ? Listening::yes : Listening::accepting;
  port->note_listener(l.index, l.local, l.v6_only, how);
}

// A peer of a process that has died learns of it as from a host that has rebooted (RFC 9293 3.5.1, turned
// round: we speak first): what we send is not acceptable to it, it answers with an ACK (3.10.7.4 first step),
// and that one, for a flow that nobody knows, draws a reset with the right numbers.
void Tcp::tell_orphan(const FlowKey& key, Time now) {
  const std::uint32_t hash = flows.hash(key);
  if (find_flow(key, hash)) return;  // it has a successor here
  const Result<const Path*> path = network.path(key.remote, key.local);
  if (!path) return stats.add(Counter::no_route);
  const auto ticks = static_cast<std::uint64_t>(now.time_since_epoch().count());
  const std::uint64_t random = siphash_words<2, 4>(priv->isn_key, ticks, std::uint64_t{hash});
  Header h;
  h.key = key;
  h.flags = kAck;
  h.seq = Seq(static_cast<std::uint32_t>(random));
  h.ack = Seq(static_cast<std::uint32_t>(random >> 32));
  stats.add(Counter::orphans_told);
  send_bare(h, **path, TxPriority::control, now);
}

// Each one several times: nothing says that it has been heard.
void Tcp::tell_orphans(Time now) {
  auto& told = priv->told;
  int n = 0;
  for (; n < kOrphansPerTick && !told.empty() && told.front().again <= now; ++n) {
    Private::Orphan o = told.front();
    told.pop_front();
    tell_orphan(o.key, now);
    o.again = now + kTellAgain;
    --o.left != 0 ? told.push_back(o) : port->orphan_told(o.number);
  }
  FlowKey key;
  std::uint32_t number = 0;
  for (; n < kOrphansPerTick && port->next_orphan(key, number); ++n) {
    tell_orphan(key, now);
    told.push_back({key, number, now + kTellAgain, kTellings - 1});
  }
  priv->orphans_waiting = n == kOrphansPerTick;
}

// The application has stopped listening and only finishes what it has; another process waits for its place to serve. What is
// left are peers that may take for ever: they are told, and the application, which has nothing to do any more, ends.
void Tcp::give_way(Time now) {
  std::vector<Connection*> open;  // finish() gives the slots back
  connections.for_each([&](Connection& c, std::uint32_t) {
    if (!c.path->local && c.hot.state != State::closed && c.hot.state != State::time_wait) open.push_back(&c);
  });
  for (Connection* c : open) {
    stats.add(Counter::gave_way);
    send_reset(*c, now);
    finish(*c, Errc::connection_reset);
  }
  port->has_given_way();
}

}  // namespace mtcp::stack

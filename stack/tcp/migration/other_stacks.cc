// One stack among several on the same device: what it asks of the others and tells them.
#include <algorithm>
#include <vector>

#include "stack/port/steering.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {
constexpr int kOrphansPerTick = 64;
constexpr std::uint8_t kTellings = 3;
constexpr Duration kTellAgain = seconds(1);  // longer than peers limit their answers (Linux: 500 ms)
}  // namespace

OtherStacks::OtherStacks(Tcp& tcp) : tcp_(tcp), stats_(tcp.stats) {}

// The packet has been cut to its payload, but no byte of it has been changed: steering finds the frame again.
bool OtherStacks::offer(Packet*& p, const FlowKey& key, bool opens, Time now) {
  // From our own address it came by the loopback wire, which nobody shares.
  if (tcp_.steering == nullptr || tcp_.network.is_local(key.remote) || !tcp_.steering->forward_unknown(p, key, opens, now)) return false;
  p = nullptr;
  stats_.add(Counter::forwarded_unknown);
  return true;
}

bool OtherStacks::forward_unknown(Segment& s, Time now) {
  return offer(s.packet, s.key, (s.flags & (kSyn | kAck | kRst)) == kSyn, now);
}

// Who sent it here, as the last one to be asked, did not know that yet.
bool OtherStacks::send_on(Segment& s, Time now) {
  if (tcp_.steering == nullptr || !tcp_.steering->others_listen({s.key.local, s.key.local_port})) return false;
  s.packet->flags &= static_cast<std::uint16_t>(~kFinal);
  return forward_unknown(s, now);
}

void OtherStacks::enter_table(Connection& c) {
  c.in_table = true;
  if (c.path->local) return;
  if (tcp_.steering != nullptr) tcp_.steering->note_flow(c.index, c.key);
  if (tcp_.kernel_share != nullptr) tcp_.kernel_share->note_flow(c.index, c.key);
}

void OtherStacks::forget_flow(const Connection& c) {
  if (c.path->local) return;
  if (tcp_.steering != nullptr) tcp_.steering->forget_flow(c.index);
  if (tcp_.kernel_share != nullptr) tcp_.kernel_share->forget_flow(c.index);
}

// The table has changed, and this stack is no longer the home of some of its flows: they go into the directory.
void OtherStacks::publish_flows() {
  constexpr int kTimeWaits = 16384;  // the newest of them: the others' peers have long heard our last ACK
  const auto strays = [this](const auto& flow) {
    return !flow.published && !tcp_.network.is_local(flow.key.remote) && !tcp_.steering->is_home(flow.key);
  };
  tcp_.connections.for_each([&](Connection& c, std::uint32_t) {
    if (!c.in_table || c.path->local) return;
    // What has been opened here the new home might open as well.
    if (!c.published && !c.was_passive) c.published = tcp_.steering->publish(c.key, Steering::FlowKind::connection);
    if (c.published || (c.was_passive && strays(c))) settle(c);
  });
  tcp_.passive.entries.for_each([&](SynEntry& e, std::uint32_t) {
    if (strays(e)) publish(e);
  });
  tcp_.time_waits.for_newest(kTimeWaits, [&](TimeWaitEntry& e) {
    if (strays(e)) e.published = tcp_.steering->publish(e.key, Steering::FlowKind::time_wait);
  });
  tcp_.steering->all_published();
}

// A half-open connection whose home lacks the listener. That many of them whatever anybody sends.
void OtherStacks::publish(SynEntry& e) {
  constexpr std::uint32_t kMostHalfOpen = 4096;
  if (tcp_.steering == nullptr || tcp_.passive.published >= kMostHalfOpen) return;
  e.published = tcp_.steering->publish(e.key, Steering::FlowKind::half_open);
  tcp_.passive.published += e.published ? 1 : 0;
}

void OtherStacks::settle(Connection& c) {
  if (tcp_.steering == nullptr) return;
  if (c.published)  // since it was half open, or opened here
    tcp_.steering->point(c.key, true);
  else
    c.published = tcp_.steering->settle(c.key, true);
}

void OtherStacks::update_serving() {
  if (tcp_.steering == nullptr) return;
  bool serving = false;
  tcp_.passive.listeners.for_each(
      [&](const Listener& l, std::uint32_t) { serving = serving || (!l.left && !l.local.address.is_loopback()); });
  if (serving != serving_) tcp_.steering->set_serving(serving);
  serving_ = serving;
}

// What the others may send to `l`.
void OtherStacks::note_listener(const Listener& l) {
  if (l.local.address.is_loopback()) return;
  const Listening how = l.left ? Listening::left : l.unwatched ? Listening::yes : Listening::accepting;
  // First the kernel: connections that have waited for this listener no longer keep the port from it.
  if (tcp_.kernel_share != nullptr) tcp_.kernel_share->note_listener(l.index, l.local, l.v6_only, true);
  if (tcp_.steering != nullptr) tcp_.steering->note_listener(l.index, l.local, l.v6_only, how);
}

void OtherStacks::forget_listener(const Listener& l) {
  if (l.local.address.is_loopback()) return;
  if (tcp_.steering != nullptr) tcp_.steering->note_listener(l.index, l.local, l.v6_only, Listening::no);
  if (tcp_.kernel_share != nullptr) tcp_.kernel_share->note_listener(l.index, l.local, l.v6_only, false);
}

// A peer of a process that has died learns of it as from a host that has rebooted (RFC 9293 3.5.1, turned
// round: we speak first): what we send is not acceptable to it, it answers with an ACK (3.10.7.4 first step),
// and that one, for a flow that nobody knows, draws a reset with the right numbers.
void OtherStacks::tell_orphan(const FlowKey& key, Time now) {
  const std::uint32_t hash = tcp_.flows.hash(key);
  if (tcp_.find_flow(key, hash)) return;  // it has a successor here
  const Result<const Path*> path = tcp_.network.path(key.remote, key.local);
  if (!path) return stats_.add(Counter::no_route);
  const auto ticks = static_cast<std::uint64_t>(now.time_since_epoch().count());
  const std::uint64_t random = siphash_words<2, 4>(tcp_.priv->isn_key, ticks, std::uint64_t{hash});
  Tcp::Header h;
  h.key = key;
  h.flags = kAck;
  h.seq = Seq(static_cast<std::uint32_t>(random));
  h.ack = Seq(static_cast<std::uint32_t>(random >> 32));
  stats_.add(Counter::orphans_told);
  tcp_.send_bare(h, **path, TxPriority::control, now);
}

// Each one several times: nothing says that it has been heard.
void OtherStacks::tell_orphans(Time now) {
  auto& told = told_;
  int n = 0;
  for (; n < kOrphansPerTick && !told.empty() && told.front().again <= now; ++n) {
    OtherStacks::Orphan o = told.front();
    told.pop_front();
    tell_orphan(o.key, now);
    o.again = now + kTellAgain;
    --o.left != 0 ? told.push_back(o) : tcp_.steering->orphan_told(o.number);
  }
  FlowKey key;
  std::uint32_t number = 0;
  for (; n < kOrphansPerTick && tcp_.steering->next_orphan(key, number); ++n) {
    tell_orphan(key, now);
    told.push_back({key, number, now + kTellAgain, kTellings - 1});
  }
  orphans_waiting_ = n == kOrphansPerTick;
}

// The application has stopped listening and only finishes what it has; another process waits for its slot to serve. What is
// left are peers that may take for ever: they are told, and the application, which has nothing to do any more, ends.
void OtherStacks::give_way(Time now) {
  std::vector<Connection*> open;  // finish() gives the slots back
  tcp_.connections.for_each([&](Connection& c, std::uint32_t) {
    if (!c.path->local && c.hot.state != State::closed && c.hot.state != State::time_wait) open.push_back(&c);
  });
  for (Connection* c : open) {
    stats_.add(Counter::gave_way);
    tcp_.send_reset(*c, now);
    tcp_.finish(*c, Errc::connection_reset);
  }
  tcp_.steering->has_given_way();
}

void OtherStacks::run_timers(Time now) {
  if (tcp_.steering->must_publish()) [[unlikely]] publish_flows();
  tell_orphans(now);
  if (tcp_.steering->must_give_way()) [[unlikely]] give_way(now);
}

Time OtherStacks::next_deadline() const {
  const Time again = told_.empty() ? kNever : told_.front().again;
  return orphans_waiting_ ? std::min(again, Time(milliseconds(tcp_.priv->last_tick + 1))) : again;
}

}  // namespace mtcp::stack

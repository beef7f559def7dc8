// The worker's loop: bursts of packets, demultiplexing, timers, and what is queued for the device.
#include "stack/tcp/tcp.hh"

#include <algorithm>

#include "stack/capture/capture.hh"
#include "stack/port/port.hh"
#include "stack/tcp/private.hh"
#include "stack/tcp/sender/congestion.hh"

namespace mtcp::stack {

namespace {
constexpr std::size_t kMaxBursts = 4;    // per poll, so that timers and the application get their turn
constexpr std::size_t kLoopbackRounds = 16;
constexpr std::size_t kTxBound = 16384;  // packets per priority that may wait: a burst of that many connects
// The part of a Connection that a segment touches: all but the options and what is only counted.
constexpr std::size_t kSegmentBytes = 640;

// A segment waits for dispatch_batch(), an error of ICMP is handled at once, and all else was not TCP's.
void collect(Tcp& tcp, Network::Input input, IcmpError& error, Time now) {
  if (input == Network::Input::segment)
    ++tcp.priv->batch.count;
  else if (input == Network::Input::icmp_error)
    tcp.on_icmp(error, now);
}

}  // namespace

Tcp::Private::Private(const Options& options, const Secrets& secrets, Time now)
    : isn_key(derive_key(secrets.lasting, KeyPurpose::isn)),
      ts_key(derive_key(secrets.host, KeyPurpose::timestamps)),
      max_orphans(std::max(options.tcp.max_connections / 4, 1024U)),
      last_tick(TimerWheel::tick_of(now)),
      challenge_random(siphash_words<2, 4>(derive_key(secrets.key, KeyPurpose::challenges), 0U)) {}

Tcp::Tcp(const Options& o, const Attachment& device, PacketPool& pool, Stats& st, const Secrets& s, Time now, KernelNetwork* kernel)
    : options(o),
      stats(st),
      secrets(s),
      port(device.port),
      tx_burst(port != nullptr ? port->tx_burst() : kTxBurst),
      steering(device.steering),
      kernel_share(device.kernel_share),
      sums_payload(port != nullptr && !port->tx_checksum_offload()),
      cache(pool),
      memory(o.tcp.mem, cache, port == nullptr || port->takes_any_pool() ? &little_packets : nullptr),
      little_packets(pool.capacity(), kLittlePacket),
      tx(kTxBound, st),
      network(o, port, cache, tx, st, kernel),
      wheel(now),
      flows(derive_key(s.key, KeyPurpose::flows)),
      connections(std::min(o.tcp.max_connections, FlowRef::kMaxIndex), 1024),
      passive(*this, s),
      active(*this, s, now),
      receiver(*this, siphash_words<2, 4>(derive_key(s.key, KeyPurpose::islands), 0U)),
      sender(*this),
      time_waits(*this),
      others(*this),
      migration(*this),
      priv(std::make_unique<Private>(o, s, now)) {}

void Tcp::init_transfer(Connection& c, Time now) {
  receiver.start(c, now);
  sender.start(c, now);
  sender.resize_buffer(c);
  arm_keepalive(c, now);
}

void Tcp::resize_buffers(Connection& c) {
  receiver.resize_buffer(c);
  sender.resize_buffer(c);
}

Tcp::~Tcp() {
  connections.for_each([this](Connection& c, std::uint32_t) { free_packets(c); });
  tx.clear(cache);
}

// --- receiving

void Tcp::dispatch_batch(Time now) {
  auto& b = priv->batch;
  for (std::size_t i = 0; i < b.count; ++i) {
    b.hashes[i] = flows.hash(b.segments[i].key);
    flows.prefetch(b.hashes[i]);
  }
  for (std::size_t i = 0; i < b.count; ++i) {
    const FlowRef ref = flows.guess(b.hashes[i]);
    if (ref.kind() == FlowRef::Kind::connection) {
      const auto* c = reinterpret_cast<const std::byte*>(&connections.at(ref.index()));
      for (std::size_t line = 0; line < kSegmentBytes; line += 64) __builtin_prefetch(c + line, 1);
    } else if (ref.kind() == FlowRef::Kind::syn_entry) {
      __builtin_prefetch(&passive.entries.at(ref.index()));
    } else if (ref.kind() == FlowRef::Kind::time_wait) {
      __builtin_prefetch(&time_waits.entries.at(ref.index()));
    }
  }
  for (std::size_t i = 0; i < b.count; ++i) demultiplex(b.segments[i], b.hashes[i], now);
  stats.add(Counter::segments_received, b.count);
  b.count = 0;
}

std::size_t Tcp::receive_burst(Time& now, Clock clock) {
  auto& b = priv->batch;
  const std::size_t n = port->rx(b.packets.data(), Private::Batch::kSize);
  if (n == 0) return 0;
  if (clock != nullptr) now = std::max(now, clock());
  if (CaptureSet* captures = tx.captures(); captures != nullptr) [[unlikely]] captures->received(b.packets.data(), n);
  update_memory(now);
  for (std::size_t i = 0; i < n; ++i) __builtin_prefetch(b.packets[i]->data);
  for (std::size_t i = 0; i < n; ++i) {
    if ((b.packets[i]->flags & (kHandover | kPull)) != 0) [[unlikely]] {
      migration.receive(b.packets[i], now);
      continue;
    }
    IcmpError error;
    collect(*this, network.input(b.packets[i], b.segments[b.count], error, now), error, now);
  }
  dispatch_batch(now);
  if (steering != nullptr) steering->announce();
  return n;
}

std::size_t Tcp::receive_loopback(Time now) {
  auto& b = priv->batch;
  if (!network.loopback_waiting()) return 0;
  update_memory(now);
  CaptureSet* const captures = tx.captures();
  std::size_t n = 0;
  for (; n < Private::Batch::kSize; ++n) {
    Packet* p = network.next_loopback();
    if (p == nullptr) break;
    if (captures != nullptr) [[unlikely]] captures->looped(*p);
    IcmpError error;
    collect(*this, network.input_ip(p, b.segments[b.count], error, now, true), error, now);
  }
  dispatch_batch(now);
  return n;
}

FlowRef Tcp::find_flow(const FlowKey& key, std::uint32_t hash) const {
  return flows.find(hash, [this, &key](FlowRef r) {
    switch (r.kind()) {
      case FlowRef::Kind::connection:
        return connections.at(r.index()).key == key;
      case FlowRef::Kind::syn_entry:
        return passive.entries.at(r.index()).key == key;
      case FlowRef::Kind::time_wait:
        return time_waits.entries.at(r.index()).key == key;
      case FlowRef::Kind::none:
        break;
    }
    return false;
  });
}

void Tcp::demultiplex(Segment& s, std::uint32_t hash, Time now) {
  const FlowRef ref = find_flow(s.key, hash);
  switch (ref.kind()) {
    case FlowRef::Kind::connection: {
      Connection& c = connections.at(ref.index());
      c.hot.state == State::syn_sent ? active.on_syn_sent(c, s, now) : on_segment(c, s, now);
      break;
    }
    case FlowRef::Kind::syn_entry:
      passive.on_syn_entry(passive.entries.at(ref.index()), s, now);
      break;
    case FlowRef::Kind::time_wait:
      time_waits.on_segment(ref.index(), s, hash, now);
      break;
    case FlowRef::Kind::none:
      on_new_flow(s, hash, now);
      break;
  }
  if (s.packet != nullptr) cache.free(s.packet);
}

void Tcp::on_new_flow(Segment& s, std::uint32_t hash, Time now) {
  // It came here because the table was another one: its home is to see it first.
  if ((s.packet->flags & (kNotHome | kFinal)) == kNotHome && others.forward_unknown(s, now)) return;
  if (migration.closing() && s.has(kSyn) && !s.has(kAck) && !network.is_local(s.key.remote)) [[unlikely]] {
    if (!others.send_on(s, now)) stats.add(Counter::left_to_another);  // it comes again
    return;
  }
  const Endpoint local{s.key.local, s.key.local_port};
  if (Listener* l = passive.find_listener(local, hash)) return passive.on_listen(*l, s, hash, now);
  // A listener that was left sees to what it has begun, and to the rest until another process serves.
  if (!passive.left.empty() && !network.is_local(s.key.remote)) {
    const bool opens = s.has(kSyn) && !s.has(kAck);
    if (Listener* l = passive.find_listener(local, hash, true); l != nullptr && (!opens || migration.takes_new(*l, local, now)))
      return passive.on_listen(*l, s, hash, now);
  }
  const bool left = !others.parting() && passive.left_to_another(s);
  if (left ? others.send_on(s, now) : others.forward_unknown(s, now)) return;
  if (left || others.parting() || passive.is_expected(s, now) || passive.is_kernels_next(s)) return stats.add(Counter::left_to_another);
  stats.add(Counter::no_socket);
  passive.refuse(s, now);
}

// --- the loop

std::size_t Tcp::run_timers(Time now) {
  const std::uint64_t tick = TimerWheel::tick_of(now);
  if (tick == priv->last_tick) return 0;
  priv->last_tick = tick;
  std::size_t fired = 0;
  while (TimerNode* node = wheel.expire(now)) {
    run_timer(*node, now);
    ++fired;
  }
  passive.run_timers(now);
  time_waits.run_timers(now);
  migration.run_timers(now);
  memory.set_device_packets(port != nullptr ? port->packets_held() : 0);
  update_memory(now);
  if (port != nullptr) {
    port->service(now);
    if (steering != nullptr) others.run_timers(now);
    const Port::Link link = port->link();
    const bool ended = std::exchange(priv->peers_ended, link.peers_ended) != link.peers_ended;
    if (ended || priv->peer_gone) [[unlikely]] follow_peer(ended);
    if (link.up && !priv->link_was_up) network.announce(now);
    priv->link_was_up = link.up;
    follow_kernel(now);
  }
  priv->network_due = network.run_timers(now);
  IpAddress next_hop;
  while (network.next_moved(next_hop)) on_neighbour_moved(next_hop, now);
  while (network.next_unreachable(next_hop)) active.on_unreachable(next_hop);
  return fired;
}

void Tcp::follow_kernel(Time now) {
  if (network.follow_kernel(now)) [[unlikely]] follow_routes(now);
  if (std::uint32_t mtu = 0; network.follow_mtu(mtu)) follow_mtu(mtu, now);
}

// The interface carries less than what the connections were made for: as a router would say it.
void Tcp::follow_mtu(std::uint32_t mtu, Time now) {
  connections.for_each([&](Connection& c, std::uint32_t) {
    if (!c.path->local) sender.on_path_mtu(c, mtu, now);
  });
}

// The kernel's addresses or routes have changed: connections go the way that new ones would. One whose address is gone, or
// that has no way, stays as in Linux: it sends nothing until that is back, or it times out.
void Tcp::follow_routes(Time now) {
  if (kernel_share != nullptr) kernel_share->forget_left();
  connections.for_each([&](Connection& c, std::uint32_t) {
    const Path* before = std::exchange(c.path, network.path_again(*c.path, c.key.remote, c.key.local));
    if (c.path == before) return;
    sender.on_path_mtu(c, c.path->mtu, now);
    if (c.tx.retries != 0 && !c.path->broken && c.retransmit_timer.armed())
      wheel.arm(c.retransmit_timer, now + milliseconds(1));
  });
  passive.entries.for_each(
      [&](SynEntry& e, std::uint32_t) { e.path = network.path_again(*e.path, e.key.remote, e.key.local); });
}

// What has been sent to its former address is lost: those that wait for an answer ask again at once.
void Tcp::on_neighbour_moved(const IpAddress& next_hop, Time now) {
  connections.for_each([&](Connection& c, std::uint32_t) {
    if (c.tx.retries != 0 && !c.path->local && c.path->next_hop(c.key.remote) == next_hop && c.retransmit_timer.armed())
      wheel.arm(c.retransmit_timer, now + milliseconds(1));
  });
}

std::size_t Tcp::poll(Time& now, Clock clock) {
  std::size_t work = 0;
  if (port != nullptr) {
    for (std::size_t i = 0; i < kMaxBursts; ++i) {
      const std::size_t n = receive_burst(now, clock);
      work += n;
      if (n < Private::Batch::kSize) break;
    }
  }
  // As in the kernel, what is sent to ourselves is there when the call is over, and so are the answers.
  for (std::size_t i = 0; i < kLoopbackRounds; ++i) {
    const std::size_t n = receive_loopback(now);
    if (n == 0) break;
    work += n;
  }
  work += run_timers(now);
  if (sender.pacing_due(now)) [[unlikely]] work += sender.run_pacing(now);
  migration.look(now);
  transmit(now);
  return work;
}

void Tcp::flush(Time now) {
  while (Connection* c = acks.pop_front()) {
    c->hot.ack_queued = false;
    if (c->hot.ack_now) send_ack(*c, now);
  }
  transmit(now);
  priv->network_due = network.run_timers(now);  // a first packet to a neighbour has begun to wait for it
}

void Tcp::transmit(Time now) {
  if (port == nullptr) return;
  sender.device_full = !tx.flush(*port);
  if (sender.blocked.empty() || sender.device_full) return;
  sender.push_blocked(now);
  if (!sender.device_full) sender.device_full = !tx.flush(*port);
}

bool Tcp::pending() const {
  if (!acks.empty() || network.loopback_waiting()) return true;
  return port != nullptr && !tx.empty() && port->link_up();
}

bool Tcp::must_poll() const {
  if (!acks.empty() || network.loopback_waiting()) return true;
  return pending() && !port->tx_state().congested;
}

Time Tcp::next_deadline() const {
  return std::min({wheel.next_deadline(), priv->network_due, sender.pacing_deadline(), others.next_deadline(), migration.next_deadline(),
                   passive.next_deadline(), time_waits.next_deadline()});
}

void Tcp::run_timer(TimerNode& node, Time now) {
  const auto owner = [&node](TimerNode Connection::*member) -> Connection& {
    alignas(Connection) static const std::byte probe[1] = {};
    const auto* base = reinterpret_cast<const Connection*>(probe);
    const auto offset = reinterpret_cast<const std::byte*>(&(base->*member)) - probe;
    return *reinterpret_cast<Connection*>(reinterpret_cast<std::byte*>(&node) - offset);
  };
  switch (static_cast<TimerKind>(node.kind())) {
    case TimerKind::retransmit:
      return sender.on_retransmit_timer(owner(&Connection::retransmit_timer), now);
    case TimerKind::delayed_ack:
      return receiver.on_delayed_ack_timer(owner(&Connection::delayed_ack_timer), now);
    case TimerKind::life:
      return on_life_timer(owner(&Connection::life_timer), now);
  }
}

// --- connections and events

Connection* Tcp::new_connection(const FlowKey& key, std::uint32_t hash, const Path& path,
                                const SocketOptions& o, Time now) {
  const std::uint32_t index = connections.create();
  if (index == Slab<Connection>::kNone) {
    stats.add(Counter::no_connection_slots);
    return nullptr;
  }
  Connection& c = connections.at(index);
  c.index = index;
  c.key = key;
  c.hash = hash;
  c.path = &path;
  c.options = o;
  c.created = now;
  return &c;
}

void Tcp::raise(SocketBase& s, std::uint8_t edges) {
  if (s.kind == SocketBase::Kind::connection) {
    const auto& c = static_cast<Connection&>(s);
    // Nobody listens: the application has gone, or has not accepted it yet (it will look when it does).
    if (c.detached || c.listener != nullptr) return;
  }
  s.edges = static_cast<std::uint8_t>(s.edges | edges);
  if (!s.event_hook.linked()) events.push_back(s);
}

void Tcp::request_ack(Connection& c) {
  c.hot.ack_now = true;
  if (c.hot.ack_queued) return;
  c.hot.ack_queued = true;
  acks.push_back(c);
}

}  // namespace mtcp::stack

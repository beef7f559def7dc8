#include "stack/ip/resolver.hh"

#include <algorithm>

#include "stack/kernel_net/kernel_network.hh"

namespace mtcp::stack {

using State = Neighbour::State;

Resolver::~Resolver() {
  for (Neighbour& n : table_.all())
    while (Packet* p = n.queue.pop_front()) link_.release(p);
}

Neighbour* Resolver::create(const IpAddress& address) {
  PacketList evicted;
  Neighbour* n = table_.insert(address, evicted);
  drop_waiting(evicted, Counter::neighbour_queue_full);
  return n;
}

void Resolver::pin(const IpAddress& address) {
  Neighbour* n = table_.find(address);
  if (n == nullptr) n = create(address);
  if (n == nullptr) return;
  n->pinned = true;
  n->state = State::failed;  // nothing known, nothing asked
}

void Resolver::drop_waiting(PacketList& list, Counter reason) {
  while (Packet* p = list.pop_front()) {
    --waiting_;
    link_.drop(p, reason);
  }
}

void Resolver::send_slowly(Packet* p, Neighbour* n, const IpAddress& next_hop, TxPriority priority, Time now) {
  if (n == nullptr) {
    n = create(next_hop);
    if (n == nullptr) return link_.drop(p, Counter::neighbour_queue_full);
    n->state = State::failed;  // nothing known, nothing asked
  }
  if (n->state == State::failed) {
    if (known_to_kernel(*n, now)) return transmit(p, *n, priority);
    start_probing(*n, State::incomplete, now);
  }
  switch (n->state) {
    case State::reachable:
    case State::stale:
      start_probing(*n, State::probe, now);
      return transmit(p, *n, priority);
    case State::probe:
      return transmit(p, *n, priority);
    case State::failed:
    case State::incomplete:
      return wait(p, *n);
  }
}

// Another program has used the neighbour, or we have: it need not be asked.
bool Resolver::known_to_kernel(Neighbour& n, Time now) {
  if (kernel_ == nullptr) return false;
  const KernelNeighbour known = kernel_->neighbour(n.address);
  if (known.state != KernelNeighbour::State::known) return false;
  if (known.stale) kernel_->use(n.address, now);
  confirm(n, known.mac, State::reachable, now);
  return true;
}

// As Linux's unres_qlen: the oldest gives way, since its sender is the first to try again.
void Resolver::wait(Packet* p, Neighbour& n) {
  if (n.waiting == kMaxWaiting) {
    Packet* oldest = n.queue.pop_front();
    --n.waiting;
    --waiting_;
    link_.drop(oldest, Counter::neighbour_queue_full);
  }
  // Of a small pool no more than a part: others go on sending.
  const std::size_t most = std::min(kMaxWaitingInAll, link_.cache.pool().capacity() / 8);
  if (waiting_ >= most) return link_.drop(p, Counter::neighbour_queue_full);
  if ((p->flags & kKeep) != 0) {
    // Its link is in use (the sender's retransmission queue), and it may change before the answer comes.
    p = link_.copy(*p);
    if (p == nullptr) return;
  }
  n.queue.push_back(p);
  ++n.waiting;
  ++waiting_;
}

void Resolver::start_probing(Neighbour& n, State state, Time now) {
  if (kernel_ != nullptr && state == State::probe) {
    // It asks when it thinks that it is time, and says so if there is no answer.
    n.updated = now;
    n.state = State::reachable;
    return kernel_->use(n.address, now);
  }
  n.state = state;
  n.probes = 0;
  probe(n, now);
}

// A known MAC is asked directly first, so that confirming costs the others on the link nothing (RFC
// 1122 2.3.2.1).
void Resolver::probe(Neighbour& n, Time now) {
  if (n.state == State::incomplete && n.probes > 0 && known_to_kernel(n, now)) return;
  if (n.state == State::probe && n.probes < kProbes) {
    ask(n, n.mac);
  } else if (!requests_.take(now)) {
    link_.stats.add(Counter::arp_rate_limited);
  } else if (kernel_ != nullptr) {
    kernel_->use(n.address, now);
  } else {
    ask(n, kBroadcastMac);
  }
  ++n.probes;
  n.next_probe = now + kProbeInterval;
  due_ = std::min(due_, n.next_probe);
}

void Resolver::fail(Neighbour& n) {
  n.state = State::failed;
  n.waiting = 0;
  drop_waiting(n.queue, Counter::neighbour_failed);
  if (failed_.size() < kMaxNeighbours) failed_.push_back(n.address);
}

void Resolver::suspect(const IpAddress& address, Time now) {
  Neighbour* n = table_.find(address);
  if (n == nullptr || !n->resolved() || n->state == State::probe || now - n->updated < kLockTime) return;
  if (now < n->next_probe || !requests_.take(now)) return;
  n->next_probe = now + kProbeInterval;
  if (kernel_ != nullptr) return kernel_->use(n->address, now);
  ask(*n, kBroadcastMac);
}

bool Resolver::next_moved(IpAddress& address) {
  if (moved_.empty()) return false;
  address = moved_.front();
  moved_.pop_front();
  return true;
}

bool Resolver::next_failed(IpAddress& address) {
  if (failed_.empty()) return false;
  address = failed_.front();
  failed_.pop_front();
  return true;
}

Time Resolver::run_timers(Time now) {
  if (now < due_) return due_;
  due_ = kNever;
  for (Neighbour& n : table_.all()) {
    if (n.state != State::incomplete && n.state != State::probe) continue;
    if (now < n.next_probe) {
      due_ = std::min(due_, n.next_probe);
      continue;
    }
    const std::uint8_t limit = n.state == State::probe ? 2 * kProbes : kProbes;
    if (n.probes < limit)
      probe(n, now);
    else
      fail(n);
  }
  return due_;
}

void Resolver::confirm(Neighbour& n, const MacAddress& mac, State state, Time now) {
  if (n.resolved() && n.mac != mac && moved_.size() < kMaxNeighbours) moved_.push_back(n.address);
  n.state = state;
  n.mac = mac;
  n.updated = now;
  n.probes = 0;
  write_header(n);
  n.waiting = 0;
  while (Packet* p = n.queue.pop_front()) {
    --waiting_;
    transmit(p, n, TxPriority::control);  // one priority for all: their order stays
  }
}

// Only of neighbours that we have to do with: the others are looked up when they are needed.
void Resolver::follow(const KernelNeighbour& said, Time now) {
  Neighbour* n = table_.find(said.address);
  if (n == nullptr) return;
  const bool asked = n->state == State::incomplete;
  switch (said.state) {
    case KernelNeighbour::State::known:
      // A known one's time runs on: it has not been used for that.
      if (asked || (n->resolved() && n->mac != said.mac)) confirm(*n, said.mac, State::reachable, now);
      return;
    case KernelNeighbour::State::failed:
      if (asked || n->resolved()) fail(*n);
      return;
    case KernelNeighbour::State::unknown:
      if (n->resolved()) n->state = State::failed;  // forgotten: asked again when it is used
      return;
  }
}

void Resolver::write_header(Neighbour& n) const {
  write_ethernet(n.header.data(), {n.mac, link_.mac, n.address.is_v4() ? kEtherIpv4 : kEtherIpv6});
}

void Resolver::refresh_headers() {
  for (Neighbour& n : table_.all())
    if (n.resolved()) write_header(n);
}

}  // namespace mtcp::stack

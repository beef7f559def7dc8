#include "stack/port/dpdk/share/sharing_port.hh"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/steering/steering_port.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/frame.hh"

namespace mtcp::stack::dpdk {

OwnedAttachment SharingPort::join(SharedDevice& device, SharedPorts* ports, const std::string& interface, bool follows,
                                  HeldPorts::Tell tell) {
  auto stack = SteeringPort::join(device);
  SteeringPort* const steering = stack.get();
  if (steering == nullptr || ports == nullptr) return {std::move(stack), steering};
  auto port = std::make_unique<SharingPort>(std::move(stack), *ports, steering->number(), interface, follows, std::move(tell));
  SharingPort* const kernel_share = port.get();
  return {std::move(port), steering, kernel_share};
}

SharingPort::SharingPort(std::unique_ptr<Port> inner, SharedPorts& ports, std::uint32_t stack, const std::string& interface, bool follows,
                         HeldPorts::Tell tell)
    : ForwardingPort(std::move(inner)),
      ports_(ports),
      stack_(stack),
      owner_(getpid()),
      interface_(interface),
      follows_(follows),
      addresses_(ports.addresses()),
      neighbours_(interface),
      held_(std::move(tell)),
      uses_(static_cast<Use*>(calloc(std::size_t{MTCP_SHARE_ADDRESSES} * MTCP_SHARE_PORTS, sizeof(Use)))) {
  ports_.join(stack_);
}

// The number is another's as soon as the inner port has left.
SharingPort::~SharingPort() {
  if (owner_ == getpid()) ports_.leave(stack_);  // else this is the child of a fork
}

// --- frames

bool SharingPort::is_arp(const Packet& p) {
  return type_of(p.bytes()) == kEtherArp;
}

// A question of ours is the kernel's to answer; what we would tell others it has told them.
void SharingPort::take_arp(Packet* p) {
  ArpPacket a;
  if (parse_arp(p->bytes().subspan(kEthernetHeader), a) == ParseError::none && a.operation == kArpRequest && a.sender != a.target)
    neighbours_.ask(a.target, a.sender, now_);
  if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
}

std::size_t SharingPort::tx(Packet* const* packets, std::size_t n) {
  std::size_t done = 0;
  while (done < n) {
    const auto* const end = packets + n;
    const auto* const arp = std::find_if(packets + done, end, [](const Packet* p) { return is_arp(*p); });
    const auto before = static_cast<std::size_t>(arp - packets) - done;
    const std::size_t sent = before == 0 ? 0 : inner().tx(packets + done, before);
    done += sent;
    if (sent < before) return done;
    if (arp != end) take_arp(packets[done++]);
  }
  return done;
}

Packet* SharingPort::make_answer(const KernelNeighbours::Answer& answer) {
  Packet* p = nullptr;
  if (pool().alloc(&p, 1) == 0) return nullptr;
  p->len = kEthernetHeader + kArpPacket;
  write_ethernet(p->data, {mac(), answer.mac, kEtherArp});
  write_arp(p->data + kEthernetHeader, {kArpReply, answer.mac, answer.address, mac(), answer.asked_by});
  return p;
}

std::size_t SharingPort::rx(Packet** out, std::size_t max) {
  std::size_t n = 0;
  while (!answers_.empty() && n < max) [[unlikely]] {
    Packet* p = make_answer(answers_.front());
    if (p == nullptr) break;
    answers_.pop_front();
    out[n++] = p;
  }
  return n + inner().rx(out + n, max - n);
}

Port::TxState SharingPort::tx_state() const {
  TxState s = inner().tx_state();
  s.delivered = s.delivered && answers_.empty() && !neighbours_.waiting();
  return s;
}

Duration SharingPort::max_sleep() const {
  return neighbours_.waiting() ? std::min<Duration>(milliseconds(1), inner().max_sleep()) : inner().max_sleep();
}

void SharingPort::service(Time now) {
  now_ = now;
  inner().service(now);
  if (neighbours_.waiting()) neighbours_.look(answers_, now);
  if (now < next_round_) return;
  next_round_ = now + kRound;
  ports_.look_for_the_dead(stack_);
  follow_addresses(now);
  end_lingering(now);
}

// --- ports

// A new address is the kernel's until then.
void SharingPort::follow_addresses(Time now) {
  if (!follows_) return;
  if (now >= next_addresses_ && ports_.is_first(stack_)) {
    next_addresses_ = now + kAddresses;
    ports_.add(addresses_of(interface_));
  }
  if (ports_.addresses() == addresses_) return;
  addresses_ = ports_.addresses();
  for (const Listens& l : listeners_)
    if (l.local.port != 0) ports_.set_listener(stack_, l.local, true, l.v6_only);
}

void SharingPort::note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, bool here) {
  if (index >= listeners_.size()) listeners_.resize(index + 1);
  listeners_[index] = here ? Listens{local, v6_only} : Listens{};
  if (here) {
    ports_.set_listener(stack_, local, true, v6_only);
  } else {
    ports_.set_listener(stack_, local, false, v6_only);
    for (const Listens& other : listeners_)  // a wildcard's and an address's share some
      if (other.local.port == local.port) ports_.set_listener(stack_, other.local, true, other.v6_only);
  }
}

// One that the kernel has just got may not be there yet: whoever looks after that does so now, others leave it to the kernel.
bool SharingPort::receives(const IpAddress& local) {
  if (ports_.index_of(local) >= 0) [[likely]] return true;
  next_addresses_ = {};
  follow_addresses(now_);
  return ports_.index_of(local) >= 0;
}

bool SharingPort::reserve_flow(const FlowKey& key) {
  if (!held_.hold({key.local, key.local_port})) return false;
  reserved_ = key;
  return true;
}

void SharingPort::release_flow(const FlowKey& key) {
  if (reserved_ != key) return;
  held_.release({key.local, key.local_port});
  reserved_ = {};
}

void SharingPort::note_flow(std::uint32_t index, const FlowKey& key) {
  if (index >= flow_ports_.size()) flow_ports_.resize(std::max<std::size_t>(index + 1, 2 * flow_ports_.size()), kNone);
  const int address = ports_.index_of(key.local);
  if (address < 0 || uses_ == nullptr) return;
  const std::uint32_t port = static_cast<std::uint32_t>(address) * MTCP_SHARE_PORTS + key.local_port;
  flow_ports_[index] = port;
  if (reserved_.local_port != 0 && reserved_ == key) {
    flow_ports_[index] |= kHeld;
    reserved_ = {};
  }
  ++uses_[port].flows;
  ports_.add_flow(stack_, port, {key.remote, key.remote_port});
}

void SharingPort::forget_flow(std::uint32_t index) {
  if (index >= flow_ports_.size() || flow_ports_[index] == kNone) return;
  const std::uint32_t noted = std::exchange(flow_ports_[index], kNone), port = noted & ~kHeld;
  if ((noted & kHeld) != 0) held_.release(ports_.endpoint(port));
  Use& use = uses_[port];
  if (--use.flows > 0 || use.lingers) return;
  use.lingers = true;
  lingering_.push_back({port, now_ + kLinger});
}

void SharingPort::end_lingering(Time now) {
  while (!lingering_.empty() && lingering_.front().until <= now) {
    const std::uint32_t port = lingering_.front().port;
    lingering_.pop_front();
    uses_[port].lingers = false;
    if (uses_[port].flows == 0) ports_.forget_flows(stack_, port);
  }
}

}  // namespace mtcp::stack::dpdk

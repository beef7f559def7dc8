#include "stack/port/dpdk/share/shared_ports.hh"

#include <arpa/inet.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>

#include "stack/port/dpdk/interface/bpf_calls.hh"
#include "stack/port/dpdk/claims.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

// Of an owner (pid and start time): who withdraws what a dead one had.
constexpr __u64 kWithdrawing = __u64{1} << 63;

std::size_t whole_pages(std::size_t bytes) { return (bytes + 4095) & ~std::size_t{4095}; }

void* map(int fd, std::size_t bytes) {
  const long at = system_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return at == -1 ? nullptr : reinterpret_cast<void*>(at);
}

// Whether it was otherwise.
bool change(__u64& set, std::uint64_t bits, bool on) {
  std::atomic_ref<__u64> all(set);
  if ((all.load(std::memory_order_relaxed) & bits) == (on ? bits : 0)) return false;
  on ? all.fetch_or(bits, std::memory_order_seq_cst) : all.fetch_and(~bits, std::memory_order_seq_cst);
  return true;
}

}  // namespace

std::unique_ptr<SharedPorts> SharedPorts::create(std::uint32_t room) {
  const auto create_high = [](const MapShape& shape) { return move_high(static_cast<int>(create_map(shape))); };
  const int state = create_high({BPF_MAP_TYPE_ARRAY, sizeof(mtcp_share_state), 1, BPF_F_MMAPABLE, "mtcp_state"});
  const int ports =
      create_high({BPF_MAP_TYPE_ARRAY, sizeof(mtcp_share_port), room * MTCP_SHARE_PORTS, BPF_F_MMAPABLE, "mtcp_ports"});
  std::unique_ptr<SharedPorts> made(new SharedPorts(room, {state, ports}, true));
  return made->map_memory() ? std::move(made) : nullptr;
}

// The kernel maps no more than there is of a map.
std::unique_ptr<SharedPorts> SharedPorts::adopt(std::span<const int> maps, std::uint32_t room) {
  if (maps.size() != kMaps || room == 0 || room > MTCP_SHARE_ADDRESSES) return nullptr;
  std::unique_ptr<SharedPorts> adopted(new SharedPorts(room, {maps[0], maps[1]}, false));
  return adopted->map_memory() ? std::move(adopted) : nullptr;
}

bool SharedPorts::map_memory() {
  const std::size_t n = std::size_t{room_} * MTCP_SHARE_PORTS;
  state_ = static_cast<mtcp_share_state*>(map(maps_[0], whole_pages(sizeof *state_)));
  auto* ports = static_cast<mtcp_share_port*>(map(maps_[1], whole_pages(n * sizeof(mtcp_share_port))));
  if (ports != nullptr) ports_ = {ports, n};
  return state_ != nullptr && ports != nullptr;
}

SharedPorts::~SharedPorts() {
  if (state_ != nullptr) munmap(state_, whole_pages(sizeof *state_));
  if (!ports_.empty()) munmap(ports_.data(), whole_pages(ports_.size_bytes()));
  for (const int fd : maps_)
    if (made_ && fd >= 0) mtcp_dpdk_close(fd);
}

void SharedPorts::join(std::uint32_t stack) {
  const std::atomic_ref<__u64> owner(state_->owner[stack]);
  __u64 whose = owner.load(std::memory_order_acquire);
  // Somebody may be at it just now, because who had the number before has died; or begins to be.
  while (((whose & kWithdrawing) != 0 && is_alive(whose & ~kWithdrawing)) ||
         !owner.compare_exchange_strong(whose, own_identity() | kWithdrawing, std::memory_order_acq_rel)) {
    system_call(SYS_sched_yield);
    whose = owner.load(std::memory_order_acquire);
  }
  // Who left, or found it dead, has withdrawn before storing 0: then the 12 MB need not be walked.
  if (whose != 0) withdraw(stack);
  owner.store(own_identity(), std::memory_order_release);
}

void SharedPorts::leave(std::uint32_t stack) {
  withdraw(stack);
  std::atomic_ref(state_->owner[stack]).store(0, std::memory_order_release);
}

// The one after it, or itself if there is no other.
std::uint32_t SharedPorts::next_joined(std::uint32_t stack) const {
  for (std::uint32_t i = 1; i < MTCP_SHARE_STACKS; ++i) {
    const std::uint32_t other = (stack + i) % MTCP_SHARE_STACKS;
    if (std::atomic_ref(state_->owner[other]).load(std::memory_order_acquire) != 0) return other;
  }
  return stack;
}

// Should this process die meanwhile, it is in the dead one's slot, and the next one that looks begins again.
bool SharedPorts::withdraw_if_dead(std::uint32_t stack) {
  const std::atomic_ref<__u64> owner(state_->owner[stack]);
  __u64 whose = owner.load(std::memory_order_acquire);
  if (whose == 0 || is_alive(whose & ~kWithdrawing)) return false;
  if (!owner.compare_exchange_strong(whose, own_identity() | kWithdrawing, std::memory_order_acq_rel)) return false;
  withdraw(stack);
  owner.store(0, std::memory_order_release);
  return true;
}

void SharedPorts::look_for_the_dead(std::uint32_t stack) {
  while (withdraw_if_dead(next_joined(stack))) {
  }
  const std::uint32_t in_turn = next_joined(looked_at_.load(std::memory_order_relaxed));
  looked_at_.store(in_turn, std::memory_order_relaxed);
  (void)withdraw_if_dead(in_turn);
}

void SharedPorts::withdraw(std::uint32_t stack) {
  const std::uint64_t bit = std::uint64_t{1} << stack;
  for (mtcp_share_port& p : ports_) {
    change(p.listeners, bit, false);
    forget_flows(p, bit);
  }
}

std::uint32_t SharedPorts::addresses() const {
  return std::min<std::uint32_t>(std::atomic_ref(state_->addresses).load(std::memory_order_acquire), room_);
}

void SharedPorts::add(std::span<const IpAddress> addresses) {
  for (const IpAddress& a : addresses) {
    const std::uint32_t n = this->addresses();
    if (n == room_ || index_of(a) >= 0) continue;
    memcpy(&state_->address[n], a.bytes.data(), sizeof state_->address[n]);
    std::atomic_ref(state_->addresses).store(n + 1, std::memory_order_release);
  }
}

bool SharedPorts::is_first(std::uint32_t stack) const {
  for (std::uint32_t i = 0; i < stack; ++i)
    if (std::atomic_ref(state_->owner[i]).load(std::memory_order_relaxed) != 0) return false;
  return true;
}

int SharedPorts::index_of(const IpAddress& address) const {
  const std::uint32_t n = addresses();
  for (std::uint32_t i = 0; i < n; ++i)
    if (memcmp(&state_->address[i], address.bytes.data(), sizeof state_->address[i]) == 0) return static_cast<int>(i);
  return -1;
}

Endpoint SharedPorts::endpoint(std::uint32_t port) const {
  Endpoint e;
  memcpy(e.address.bytes.data(), &state_->address[port / MTCP_SHARE_PORTS], e.address.bytes.size());
  e.port = static_cast<std::uint16_t>(port);
  return e;
}

void SharedPorts::set_listener(std::uint32_t stack, const Endpoint& local, bool on, bool v6_only) {
  const std::uint64_t bit = std::uint64_t{1} << stack;
  const bool v4 = local.address.is_v4() || !v6_only, v6 = !local.address.is_v4();
  const std::uint32_t n = addresses();
  for (std::uint32_t i = 0; i < n; ++i) {
    const IpAddress its = endpoint(i * MTCP_SHARE_PORTS).address;
    if (local.address.is_any() ? !(its.is_v4() ? v4 : v6) : its != local.address) continue;
    change(port(i, local.port).listeners, bit, on);
  }
}

// Once more at the end: another stack may have found no flow there in between.
void SharedPorts::add_flow(std::uint32_t stack, std::uint32_t port, const Endpoint& remote) {
  mtcp_share_address address;
  memcpy(&address, remote.address.bytes.data(), sizeof address);
  const __u64 bits = mtcp_share_remote(&address, htons(remote.port));
  mtcp_share_port& p = ports_[port];
  change(p.remotes, bits, true);
  if (change(p.flows, std::uint64_t{1} << stack, true)) change(p.remotes, bits, true);
}

void SharedPorts::forget_flows(std::uint32_t stack, std::uint32_t port) { forget_flows(ports_[port], std::uint64_t{1} << stack); }

// With whom the last ones were is forgotten, unless another stack has just come: then whatever it has said counts, and more.
void SharedPorts::forget_flows(mtcp_share_port& port, std::uint64_t bit) {
  if (!change(port.flows, bit, false)) return;
  const std::atomic_ref flows(port.flows), remotes(port.remotes);
  if (flows.load(std::memory_order_seq_cst) != 0) return;
  remotes.store(0, std::memory_order_seq_cst);
  if (flows.load(std::memory_order_seq_cst) != 0) remotes.store(~__u64{0}, std::memory_order_seq_cst);
}

void SharedPorts::keep(std::uint16_t port, bool on) { change(state_->waiting[port / 64], std::uint64_t{1} << (port % 64), on); }

// The program may see the halves of two: it compares both.
void SharedPorts::leave_opens_of(const IpAddress& remote) {
  mtcp_share_address address;
  memcpy(&address, remote.bytes.data(), sizeof address);
  mtcp_share_address& there = state_->elsewhere[mtcp_share_hash(&address)];
  for (std::size_t i = 0; i < std::size(address.half); ++i)
    std::atomic_ref(there.half[i]).store(address.half[i], std::memory_order_relaxed);
}

void SharedPorts::forget_left() {
  for (mtcp_share_address& there : state_->elsewhere)
    for (__u64& half : there.half)
      if (std::atomic_ref each(half); each.load(std::memory_order_relaxed) != 0) each.store(0, std::memory_order_relaxed);
}

bool SharedPorts::owned(const Endpoint& local) const {
  const int index = index_of(local.address);
  if (index < 0) return false;
  const mtcp_share_port& p = port(static_cast<std::uint32_t>(index), local.port);
  return (p.listeners | p.flows) != 0;
}

}  // namespace mtcp::stack::dpdk

#include "stack/port/dpdk/guest.hh"

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "stack/port/dpdk/af_packet/af_packet.hh"
#include "stack/port/dpdk/af_xdp/af_xdp.hh"
#include "stack/port/dpdk/pool.hh"
#include "stack/port/dpdk/share/sharing_port.hh"

namespace mtcp::stack::dpdk {
namespace {

constexpr std::uint32_t kVersion = 6;

std::size_t maps_of(const GuestTerms& t) { return t.addresses != 0 ? SharedPorts::kMaps : 0; }

bool plausible(const GuestTerms& t, std::size_t descriptors) {
  return t.version == kVersion && t.queues > 0 && t.queues <= kMaxStacks && t.slots > 0 && t.slots <= kMaxStacks &&
         t.entries > 0 && t.entries <= kMaxSteeringEntries && t.rings <= t.queues && t.spare <= t.rings && t.packets > 0 &&
         t.interface.back() == 0 &&
         (t.xdp == 0 || t.xdp == t.queues + 2) && (t.senders == 0 || (t.xdp != 0 && t.senders == t.queues)) &&
         descriptors == 1 + SharedState::descriptors(t.slots) + t.locks + maps_of(t) + t.xdp + t.senders + t.rings + t.fanout && t.fanout <= 1;
}

// A path in the file system leads to other network namespaces, too, where an interface of the same name is another one. True where
// the kernel does not tell (before Linux 5.14).
bool is_of_this_namespace(int socket) {
#ifndef SO_NETNS_COOKIE
  constexpr int SO_NETNS_COOKIE = 71;
#endif
  const int own = static_cast<int>(system_call(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t theirs = 0, ours = 0;
  socklen_t size = sizeof theirs;
  const auto ask = [&](int fd, std::uint64_t& cookie) {
    return system_call(SYS_getsockopt, fd, SOL_SOCKET, SO_NETNS_COOKIE, arg(&cookie), arg(&size)) == 0;
  };
  const bool differs = ask(own, ours) && ask(socket, theirs) && ours != theirs;
  if (own >= 0) system_call(SYS_close, own);
  return !differs;
}

}  // namespace

DeviceInvitation invitation(const GuestTerms& terms, std::vector<int> descriptors) {
  DeviceInvitation out;
  GuestTerms copy = terms;
  copy.version = kVersion;
  static_assert(sizeof copy <= sizeof out.terms);
  memcpy(out.terms.data(), &copy, sizeof copy);
  out.descriptors = std::move(descriptors);
  return out;
}

std::unique_ptr<GuestDevice> GuestDevice::create(const DeviceInvitation& invitation, std::uint64_t program, std::uint32_t cpus) {
  GuestTerms terms;
  memcpy(&terms, invitation.terms.data(), sizeof terms);
  std::vector<int> high;
  for (const int fd : invitation.descriptors) high.push_back(move_high(fd));
  const bool complete = std::ranges::all_of(high, [](int fd) { return fd >= 0; });
  std::unique_ptr<GuestDevice> device(new GuestDevice(terms, std::move(high), cpus));
  if (complete && plausible(terms, device->descriptors_.size()) && device->open(program)) return device;
  const std::size_t taken = device->shared_ != nullptr ? SharedState::descriptors(terms.slots) : 0;  // closed by it
  for (std::size_t i = 0; i < device->descriptors_.size(); ++i)
    if (i == 0 || i > taken) mtcp_dpdk_close(device->descriptors_[i]);
  return nullptr;
}

bool GuestDevice::open(std::uint64_t program) {
  state_.mtu = terms_.mtu;
  state_.mac = terms_.mac;
  state_.tx_checksum = terms_.tx_checksum != 0;
  state_.started = true;
  const std::span<const int> fds = descriptors_;
  const std::size_t shared = SharedState::descriptors(terms_.slots);
  state_.claims = Claims::adopt(fds[0], terms_.queues);
  shared_ = SharedState::adopt({.frame = terms_.frame, .slots = terms_.slots, .entries = terms_.entries}, fds.subspan(1, shared));
  if (state_.claims == nullptr || shared_ == nullptr) return false;
  if (terms_.locks != 0 && !is_of_this_namespace(fds[1 + shared])) return false;
  if (const std::size_t maps = maps_of(terms_); maps != 0) {
    ports_ = SharedPorts::adopt(fds.subspan(1 + shared + terms_.locks, maps), terms_.addresses);
    if (ports_ == nullptr) return false;
  }
  // What is asked of the other program's processes is not what becomes of this one's.
  if (std::exchange(terms_.program, program) != program && !shared_->begin_family()) return false;
  std::ranges::copy(shared_->descriptors(), descriptors_.begin() + 1);
  open_xdp_queues(fds.subspan(1 + shared + terms_.locks + maps_of(terms_), terms_.xdp + terms_.senders));
  return open_rings();
}

void GuestDevice::open_xdp_queues(std::span<const int> descriptors) {
  if (terms_.xdp != 0) xdp_queues_ = XdpQueues::adopt(descriptors.first(terms_.xdp));
  const auto senders = descriptors.last(terms_.senders);
  senders_.assign(senders.begin(), senders.end());
}

bool GuestDevice::open_rings() {
  const std::span<const int> fds = descriptors_;
  if (terms_.fanout != 0 && (fanout_ = PacketFanout::adopt(fds.back())) == nullptr) return false;
  const std::uint32_t per_block = terms_.frame_size == 0 ? 0 : terms_.block_size / terms_.frame_size;
  for (const int fd : fds.subspan(fds.size() - terms_.fanout - terms_.rings, terms_.rings)) {
    if (per_block == 0) return false;
    const std::uint32_t slots = rings_.size() < terms_.rings - terms_.spare ? terms_.frames : terms_.spare_frames;
    const tpacket_req frames{terms_.block_size, slots / per_block, terms_.frame_size, slots};
    rings_.push_back({.fd = fd, .frames = frames, .offload = terms_.offload != 0, .map = nullptr, .tagged = terms_.addresses != 0});
  }
  return true;
}

GuestDevice::~GuestDevice() {
  leave_parents_pools();
  for (PacketRing& r : rings_) unmap_ring(r);
}

bool GuestDevice::redirect(std::span<const std::uint8_t> queues) {
  if (fanout_ == nullptr) return false;
  fanout_->direct(queues);
  return true;
}

OwnedAttachment GuestDevice::join() {
  return SharingPort::join(*this, ports_.get(), terms_.interface.data(), terms_.follows != 0, tell_);
}

// What a parent had before a fork: its memory is not here (HeapPool).
void GuestDevice::leave_parents_pools() {
  if (std::exchange(process_, getpid()) == getpid()) return;
  for (auto& pool : pools_) (void)pool.release();
}

PacketPool* GuestDevice::pool(std::uint32_t stack) {
  leave_parents_pools();
  (void)pools_[stack].release();
  pools_[stack] = std::make_unique<HeapPool>(terms_.packets, MbufPool::data_room(terms_.frame));
  return pools_[stack].get();
}

bool GuestDevice::add_queue() {
  const std::lock_guard guard(queues_lock_);
  return fanout_ != nullptr && fanout_->add(rings_);
}

std::unique_ptr<Port> GuestDevice::claim_queue(std::uint32_t queue, std::uint32_t stack) {
  const std::lock_guard guard(queues_lock_);
  const bool by_xdp = xdp_queues_ != nullptr;
  if (queue >= queues() || queue >= (by_xdp ? xdp_queues_->size() : rings_.size())) return nullptr;
  if (!by_xdp && map_ring(rings_[queue]) == nullptr) return nullptr;
  const auto outcome = state_.claims->claim(queue);
  if (outcome == Claims::Outcome::taken) return nullptr;
  if (by_xdp)
    return std::make_unique<AfXdpPort>(state_, static_cast<std::uint16_t>(queue), *pools_[stack], xdp_queues_->frames(queue),
                                       terms_.on_virtual != 0, terms_.pieces != 0, senders_.empty() ? -1 : senders_[queue],
                                       DeviceConfig{.port = std::string("net_af_xdp0,iface=") + terms_.interface.data()});
  return std::make_unique<AfPacketPort>(state_, static_cast<std::uint16_t>(queue), *pools_[stack], rings_[queue],
                                        outcome == Claims::Outcome::inherited, std::vector<std::uint32_t>{}, false);
}

std::unique_ptr<Port> GuestDevice::claim(std::uint32_t queue, std::uint32_t stack) {
  if (stack >= kMaxStacks) return nullptr;
  (void)pool(stack);
  return claim_queue(queue, stack);
}

}  // namespace mtcp::stack::dpdk

namespace mtcp::stack {

std::unique_ptr<Device> open_as_guest(const DeviceInvitation& invitation, std::uint64_t program, std::uint32_t cpus) {
  return dpdk::GuestDevice::create(invitation, program, cpus);
}

}  // namespace mtcp::stack

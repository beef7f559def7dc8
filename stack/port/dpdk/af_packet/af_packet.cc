#include "stack/port/dpdk/af_packet/af_packet.hh"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <utility>

#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/interface/split.hh"
#include "stack/port/dpdk/share/sharing.hh"

namespace mtcp::stack::dpdk {

namespace {

// A tag that the program on a shared interface has put into a frame: behind the addresses.
constexpr std::size_t kTagAt = 12, kTag = 4;

// Frame slots: a power of two that holds TPACKET's headers, at most 76 bytes, and the frame.
std::uint32_t frame_size(std::uint32_t mtu) { return std::bit_ceil(std::max(2048u, mtu + 22 + 76)); }

// A program that may have little address space (RLIMIT_AS) has other uses for it.
bool has_room() {
  rlimit space{};
  return getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur >= rlim_t{1} << 30;
}

// Slots of a queue's ring. They are the kernel's memory and hold no packets of the stack, so there are more than `rx_ring`
// asks for: what comes while this process waits for its turn would be lost, which on a path of gigabits happens within the few
// milliseconds that another program has the processor. The more queues, the fewer connections has each; of large frames 16 MB are enough.
std::uint32_t ring_frames(std::uint32_t rx_ring, std::uint32_t queues, std::uint32_t frame) {
  constexpr std::uint32_t kFrames = 4096, kFramesOfAll = 8192, kBytes = 16u << 20;
  if (!has_room()) return rx_ring;
  return std::max(rx_ring, std::min({kFrames, kFramesOfAll / std::max(queues, 1u), kBytes / frame}));
}

}  // namespace

std::uint32_t af_packet_slot(const DeviceConfig& config) {
  const std::string chosen = value_of(config.port, "framesz");
  const auto size = static_cast<std::uint32_t>(strtoul(chosen.c_str(), nullptr, 10));
  return size != 0 ? size : frame_size(config.mtu);
}

std::string af_packet_arguments(const DeviceConfig& config, std::uint32_t queues) {
  std::string port = value_of(config.port, "share").empty() ? config.port : without_sharing(config.port);
  const auto add = [&](const char* key, std::uint32_t value) {
    if (value_of(port, key).empty()) port += "," + std::string(key) + "=" + std::to_string(value);
  };
  const std::uint32_t frame = frame_size(config.mtu);
  const std::uint32_t block = std::max(frame, 32768u);
  const std::uint32_t per_block = block / frame;
  add("qpairs", queues);
  add("framesz", frame);
  add("blocksz", block);
  add("framecnt", (ring_frames(config.rx_ring, queues, frame) + per_block - 1) / per_block * per_block);
  return port;
}

bool af_packet_check(const DeviceConfig& config, std::uint32_t& mtu, std::string& message) {
  if (!check_interface(config.port, mtu, message)) return false;
  const long fd = system_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    message =
        "no permission to open interface " + interface_of(config.port) + " (" + strerror(errno) + "); " +
        with_capabilities({"net_raw"});
    return false;
  }
  system_call(SYS_close, fd);
  return true;
}

// The driver gives the interface the address and the flags that it has: without the privileges for it, nothing is lost.
extern "C" int mtcp_dpdk_ioctl(int fd, unsigned long request, void* argument) {
  if (request == SIOCSIFHWADDR || request == SIOCSIFFLAGS) return 0;
  return static_cast<int>(system_call(SYS_ioctl, fd, static_cast<long>(request), reinterpret_cast<long>(argument)));
}

void af_packet_prepare(const PacketRing& ring, std::uint32_t tx_ring) {
  const auto set = [&ring](int level, int name, int value) { (void)set_option(ring.fd, level, name, value); };
  // A packet too large for its slot is queued on the socket as well.
  set(SOL_PACKET, PACKET_COPY_THRESH, 1);
  set(SOL_SOCKET, SO_RCVBUF, 8 << 20);
  set(SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
  const int room = sending_room(tx_ring);
  set(SOL_SOCKET, SO_SNDBUF, room);
  set(SOL_SOCKET, SO_SNDBUFFORCE, room);
  set(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  // What passes by the queueing discipline is dropped if it is still to be cut into segments.
  if (ring.offload) set(SOL_PACKET, PACKET_QDISC_BYPASS, 0);
}

AfPacketPort::AfPacketPort(DeviceState& state, std::uint16_t index, PacketPool& pool, const PacketRing& ring,
                           bool inherited, const std::vector<std::uint32_t>& addresses, bool guarded)
    : state_(state),
      index_(index),
      pool_(pool),
      owner_(getpid()),
      ring_(ring),
      next_(state.claims->received(index)),
      sender_(ring.fd, ring.offload),
      link_(state.watch(interface_of_socket(ring.fd))) {
  // One of the device's queues is enough to look after its addresses.
  if (index == 0 && !addresses.empty()) addresses_.emplace(interface_of_socket(ring.fd), addresses, guarded);
  if (ring.tagged) sender_.send_any_protocol();
  if (inherited) repair();
}

AfPacketPort::~AfPacketPort() {
  if (owner_ != getpid()) return;  // the child of a fork: everything is the parent's
  while (Packet* p = cut_.pop_front()) pool_.free(&p, 1);
  state_.claims->release(index_);
}

// The former owner may have died between any two steps.
void AfPacketPort::repair() {
  // release_frame() moves on first and then gives the frame back.
  const std::uint32_t next = position();
  const std::uint32_t last = before(next);
  if (!ready(next) && ready(last)) std::atomic_ref(frame(last)->tp_status).store(TP_STATUS_KERNEL);
}

tpacket2_hdr* AfPacketPort::frame(std::uint32_t n) const {
  return reinterpret_cast<tpacket2_hdr*>(ring_.map + std::size_t{n} * ring_.frames.tp_frame_size);
}

bool AfPacketPort::ready(std::uint32_t n) const {
  return (std::atomic_ref(frame(n)->tp_status).load(std::memory_order_acquire) & TP_STATUS_USER) != 0;
}

std::size_t AfPacketPort::count_ready(std::size_t most) const {
  std::uint32_t n = position();
  std::size_t count = 0;
  while (count < most && ready(n)) {
    ++count;
    n = after(n);
  }
  return count;
}

void AfPacketPort::release_frame() {
  const std::uint32_t n = position();
  next_.store(after(n), std::memory_order_release);
  std::atomic_ref(frame(n)->tp_status).store(TP_STATUS_KERNEL, std::memory_order_release);
}

AfPacketPort::Frame AfPacketPort::look_at(std::uint32_t n) const {
  const tpacket2_hdr* slot = frame(n);
  tpacket2_hdr header;
  memcpy(&header, slot, sizeof header);
  const std::uint32_t size = ring_.frames.tp_frame_size;
  const std::uint32_t offset = std::min<std::uint32_t>(header.tp_mac, size);
  return {header.tp_status, header.tp_len, std::min(header.tp_snaplen, size - offset),
          reinterpret_cast<const std::byte*>(slot) + offset};
}

bool AfPacketPort::take(const Frame& frame, Packet* p) {
  // A tag that the kernel took off: another VLAN's packet.
  if (frame.present < frame.length || frame.present > p->tailroom() || (frame.status & TP_STATUS_VLAN_VALID) != 0) return false;
  if (ring_.tagged) {
    if (frame.present < kTagAt + kTag) return false;
    memcpy(p->data, frame.data, kTagAt);
    memcpy(p->data + kTagAt, frame.data + kTagAt + kTag, frame.present - kTagAt - kTag);
    p->len = static_cast<std::uint32_t>(frame.present - kTag);
  } else {
    memcpy(p->data, frame.data, frame.present);
    p->len = frame.present;
  }
  // Not ready: it comes from this machine, and a network card would fill the checksum in.
  if ((frame.status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID)) != 0) p->flags = kRxL4Good;
  return true;
}

// The slot holds the beginning, the socket's queue the whole: received straight into the pieces' buffers. A
// process that died in the midst of this may have left the queue one packet ahead of the slots.
void AfPacketPort::take_large(const Frame& frame) {
  constexpr std::size_t kMaxPieces = 128;
  std::array<Packet*, kMaxPieces> pieces;
  std::array<iovec, kMaxPieces + 4> parts;
  VirtioHeader work;
  std::array<std::byte, kTag> tag;
  std::array<std::byte, 256> headers, start;
  if (std::exchange(ahead_, false)) {
    ++dropped_;
    return;
  }
  const std::size_t begin = read_beginning(frame, start), in_tag = ring_.tagged ? kTag : 0;
  const LargeFrame large = analyse_large({start.data(), begin}, frame.length - in_tag, state_.mtu);
  std::size_t n = large.headers == 0 || large.headers > headers.size() ? 0 : large.pieces();
  if (n > kMaxPieces) n = 0;
  const std::size_t got = n == 0 ? 0 : pool_.alloc(pieces.data(), n);
  const std::size_t known = n > 0 && got == n ? large.headers : begin, first = ring_.tagged ? std::min(kTagAt, known) : 0;
  std::size_t count = 0;
  if (ring_.offload) parts[count++] = {&work, sizeof work};
  if (ring_.tagged) {
    parts[count++] = {headers.data(), first};
    parts[count++] = {tag.data(), tag.size()};
  }
  parts[count++] = {headers.data() + first, known - first};
  const std::span payloads(&parts[count], got == n ? n : 0);
  for (std::size_t i = 0; i < payloads.size(); ++i)
    payloads[i] = {pieces[i]->data + large.headers, std::min(large.segment, large.payload - i * large.segment)};
  // In any case it must leave the queue.
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count + payloads.size();
  const long received = system_call(SYS_recvmsg, ring_.fd, reinterpret_cast<long>(&message), MSG_DONTWAIT | MSG_TRUNC) -
                        static_cast<long>(ring_.offload ? sizeof work : 0);
  if (received > 0 && memcmp(headers.data(), start.data(), std::min(known, static_cast<std::size_t>(received))) != 0)
    ahead_ = true;
  if (n == 0 || got < n || received != static_cast<long>(frame.length) || ahead_) {
    ++dropped_;
    if (got > 0) pool_.free(pieces.data(), got);
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    memcpy(pieces[i]->data, headers.data(), large.headers);
    write_piece_headers(large, i, pieces[i]->data);
    pieces[i]->len = static_cast<std::uint32_t>(large.headers + payloads[i].iov_len);
    pieces[i]->flags = kRxL4Good;  // as the card that would have cut it
    cut_.push_back(pieces[i]);
  }
}

// Without the tag. How many bytes there are of it; of a large frame in a slot, so many as are wanted.
std::size_t AfPacketPort::read_beginning(const Frame& frame, std::span<std::byte> out) const {
  if (!ring_.tagged) {
    const std::size_t n = std::min<std::size_t>(out.size(), frame.present);
    memcpy(out.data(), frame.data, n);
    return n;
  }
  if (frame.present < out.size() + kTag) return 0;
  memcpy(out.data(), frame.data, kTagAt);
  memcpy(out.data() + kTagAt, frame.data + kTagAt + kTag, out.size() - kTagAt);
  return out.size();
}

// The next frame, which is there: true if it is in `p`.
bool AfPacketPort::take_next(Packet* p) {
  const Frame received = look_at(position());
  if ((received.status & TP_STATUS_LOSING) != 0) [[unlikely]] count_lost();
  bool used = false;
  if ((received.status & TP_STATUS_COPY) != 0)
    take_large(received);
  else if (take(received, p))
    used = true;
  else
    ++dropped_;
  release_frame();
  return used;
}

// More than half of the ring is full: the stack, which takes a little at a time to leave the application its turn, would lose what
// comes meanwhile (the SYNs of thousands that connect at once, and each of them a second). So a quarter of it waits in packets.
void AfPacketPort::make_room() {
  std::array<Packet*, kBurst> fresh;
  for (std::size_t left = ring_.frames.tp_frame_nr / 4; left > 0 && pool_.available() > pool_.capacity() / 2;) {
    const std::size_t waiting = count_ready(std::min(left, kBurst));
    std::size_t stock = pool_.alloc(fresh.data(), waiting);
    if (stock == 0) return;
    left -= stock;
    for (std::size_t i = stock; i > 0; --i)
      if (take_next(fresh[stock - 1])) cut_.push_back(fresh[--stock]);
    if (stock > 0) pool_.free(fresh.data(), stock);
  }
}

std::size_t AfPacketPort::rx(Packet** out, std::size_t max) {
  std::size_t taken = 0;
  const auto give_out_cut = [&] {
    while (taken < max && !cut_.empty()) out[taken++] = cut_.pop_front();
  };
  give_out_cut();
  std::array<Packet*, kBurst> fresh;
  const std::size_t waiting = count_ready(std::min(max - taken, kBurst));
  std::size_t stock = waiting > 0 ? pool_.alloc(fresh.data(), waiting) : 0;
  if (waiting > 0 && stock == 0) [[unlikely]] return discard(waiting), taken;
  while (stock > 0 && taken < max && cut_.empty()) {
    if (!ready(position())) break;
    if (take_next(fresh[stock - 1]))
      out[taken++] = fresh[--stock];
    else
      give_out_cut();
  }
  if (stock > 0) pool_.free(fresh.data(), stock);
  if (taken == max && ready((position() + ring_.frames.tp_frame_nr / 2) % ring_.frames.tp_frame_nr)) [[unlikely]] make_room();
  if (taken > 0) slept_ = false;
  return taken;
}

// Frames that found no free slot since this was asked: they say so themselves (TP_STATUS_LOSING) until it is.
void AfPacketPort::count_lost() {
  tpacket_stats lost{};
  socklen_t size = sizeof lost;
  if (system_call(SYS_getsockopt, ring_.fd, SOL_PACKET, PACKET_STATISTICS, arg(&lost), arg(&size)) == 0) dropped_ += lost.tp_drops;
}

// Without packets what comes is dropped, as a card does it: nobody may wait for a ring that stands still.
void AfPacketPort::discard(std::size_t frames) {
  for (; frames > 0; --frames) {
    const Frame received = look_at(position());
    if ((received.status & TP_STATUS_COPY) != 0)
      take_large(received);  // counts it
    else
      ++dropped_;
    release_frame();
  }
}

// What goes out while the link is down would be gone; so it waits.
std::size_t AfPacketPort::tx(Packet* const* packets, std::size_t n) {
  if (!link_->up()) return 0;
  const std::size_t sent = sender_.send(packets, n);
  if (sender_.lost_link()) link_->look_soon();
  return sent;
}

void AfPacketPort::service(Time now) {
  // Woken, and not by a frame here. It is somebody else's queue, mostly.
  if (slept_ && now >= next_error_look_) {
    next_error_look_ = now + kErrorLook;
    take_error();
    slept_ = false;
  }
  sender_.try_again();
  link_->look(now);
  if (addresses_) addresses_->look(now);
}

// An error of the socket, which a link that goes down leaves there, makes it readable until somebody asks for it: nobody sleeps
// until then.
void AfPacketPort::take_error() {
  int error = 0;
  socklen_t size = sizeof error;
  system_call(SYS_getsockopt, ring_.fd, SOL_SOCKET, SO_ERROR, reinterpret_cast<long>(&error), reinterpret_cast<long>(&size));
  if (error != 0) link_->look_soon();
}

bool AfPacketPort::arm() { return cut_.empty() && !ready(position()); }

}  // namespace mtcp::stack::dpdk

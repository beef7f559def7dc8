#include "stack/port/dpdk/af_packet/packet_sender.hh"

#include <errno.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <vector>

#include "stack/packet/external.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/interface/merge.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::size_t kBurst = 64;                                        // packets
constexpr std::uint8_t kNeedsChecksum = 1, kGsoTcpv4 = 1, kGsoTcpv6 = 4;  // VIRTIO_NET_HDR_...
constexpr std::uint16_t kTcpChecksum = 16;

VirtioHeader work_left(const MergedFrame& f) {
  VirtioHeader h;
  if (f.headers == 0) return h;
  h.flags = kNeedsChecksum;
  h.csum_start = static_cast<std::uint16_t>(f.tcp);
  h.csum_offset = kTcpChecksum;
  h.hdr_len = static_cast<std::uint16_t>(f.headers);
  if (f.payload > f.segment) {
    h.gso_type = f.v4 ? kGsoTcpv4 : kGsoTcpv6;
    h.gso_size = static_cast<std::uint16_t>(f.segment);
  }
  return h;
}

}  // namespace

int sending_room(std::uint32_t tx_ring) { return static_cast<int>(std::min(tx_ring, 1U << 20) * 1024); }

int open_sending_socket(int ifindex, std::uint32_t tx_ring) {
  const auto fd = static_cast<int>(system_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));  // of no protocol: it receives nothing
  if (fd < 0) return -1;
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_ifindex = ifindex;
  if (!set_option(fd, SOL_PACKET, PACKET_VNET_HDR, 1) || system_call(SYS_bind, fd, reinterpret_cast<long>(&where), sizeof where) != 0) {
    system_call(SYS_close, fd);
    return -1;
  }
  (void)set_option(fd, SOL_SOCKET, SO_SNDBUF, sending_room(tx_ring));
  (void)set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, sending_room(tx_ring));
  return move_high(fd);
}

// A frame takes two parts more than it has packets.
struct PacketSender::Burst {
  std::array<mmsghdr, kBurst> frames;
  std::array<std::uint8_t, kBurst> packets;  // in each frame
  std::array<bool, kBurst> cut;              // into several segments
  std::array<VirtioHeader, kBurst> work;
  std::array<std::array<std::byte, kMaxHeaders>, kBurst / 2> headers;
  std::array<iovec, 3 * kBurst> parts;
  std::size_t count = 0;  // frames
};

namespace {

// The payload of `p`, which begins after `headers` bytes: with what lies in front of it, if that is one piece.
iovec* add_payload(iovec* part, Packet& p, std::size_t headers) {
  if ((p.flags & kExternal) == 0) {
    *part = {p.data + headers, p.len - headers};
    return part + 1;
  }
  auto* const payload = const_cast<std::byte*>(external_payload(p));
  iovec& last = *(part - 1);
  if (static_cast<std::byte*>(last.iov_base) + last.iov_len == payload) {
    last.iov_len += p.payload_len;
    return part;
  }
  *part = {payload, p.payload_len};
  return part + 1;
}

}  // namespace

void PacketSender::send_any_protocol() {
  sockaddr_ll bound{}, where{};
  socklen_t size = sizeof bound;
  if (system_call(SYS_getsockname, fd_, arg(&bound), arg(&size)) != 0) return;
  where.sll_family = AF_PACKET;
  where.sll_ifindex = bound.sll_ifindex;
  to_ = where;
}

void PacketSender::describe(std::span<Packet* const> packets, Burst& burst) {
  std::size_t merged = 0;
  iovec* part = burst.parts.data();
  burst.count = 0;
  while (!packets.empty()) {
    const MergedFrame f = merge(packets.first(merges_ ? packets.size() : 1));
    iovec* const first = part;
    if (offload_) {
      burst.work[burst.count] = work_left(f);
      *part++ = {&burst.work[burst.count], sizeof(VirtioHeader)};
    }
    if (f.packets == 1 && (packets.front()->flags & kExternal) == 0) {
      *part++ = {packets.front()->data, packets.front()->len};
    } else if (f.packets == 1) {
      Packet& p = *packets.front();
      *part++ = {p.data, p.len - p.payload_len};
      part = add_payload(part, p, 0);
    } else {
      std::byte* headers = burst.headers[merged++].data();
      write_merged_headers(f, packets, headers);
      *part++ = {headers, f.headers};
      for (Packet* p : packets.first(f.packets)) part = add_payload(part, *p, f.headers);
    }
    burst.packets[burst.count] = static_cast<std::uint8_t>(f.packets);
    burst.cut[burst.count] = f.payload > f.segment;
    mmsghdr& frame = burst.frames[burst.count++];
    frame = {};
    if (to_) {
      frame.msg_hdr.msg_name = &*to_;
      frame.msg_hdr.msg_namelen = sizeof *to_;
    }
    frame.msg_hdr.msg_iov = first;
    frame.msg_hdr.msg_iovlen = static_cast<std::size_t>(part - first);
    packets = packets.subspan(f.packets);
  }
}

long PacketSender::send_frames(Burst& burst, std::size_t from) const {
  const auto call = [&] {
    return system_call(SYS_sendmmsg, fd_, reinterpret_cast<long>(&burst.frames[from]), static_cast<long>(burst.count - from), MSG_DONTWAIT);
  };
  const long sent = call();
  return sent < 0 && errno == ENETDOWN ? call() : sent;  // it may be of a former time that the link was down
}

// The frame of `packets` once more, after external memory that it refers to has gone: with zeros in its place.
long PacketSender::send_copy(Burst& burst, std::size_t frame, std::span<Packet* const> packets) const {
  if (std::ranges::none_of(packets, [](const Packet* p) { return (p->flags & kExternal) != 0; })) return -1;
  msghdr& message = burst.frames[frame].msg_hdr;
  std::vector<std::byte> payload;
  for (const Packet* p : packets) {
    const std::vector<std::byte> whole = copy_of_frame(*p);
    payload.insert(payload.end(), whole.end() - static_cast<std::ptrdiff_t>(p->payload_len), whole.end());
  }
  const std::size_t in_front = offload_ ? 2 : 1;
  message.msg_iov[in_front] = {payload.data(), payload.size()};
  message.msg_iovlen = in_front + 1;
  return system_call(SYS_sendmsg, fd_, reinterpret_cast<long>(&message), MSG_DONTWAIT) < 0 ? -1 : 1;
}

// The kernel has refused a frame, one that is to be cut or not. False: there is no room now.
bool PacketSender::refused(bool merged) {
  if (errno == EAGAIN || errno == EINTR) return false;
  lost_link_ = errno == ENETDOWN || errno == ENXIO || errno == EMSGSIZE;
  if (errno == ENETDOWN) return false;  // they wait
  if (merged && merges_ && (errno == EINVAL || errno == EMSGSIZE || errno == EOPNOTSUPP)) {
    merges_ = false;  // then as they are, from now on
    return true;
  }
  ++dropped_;
  return true;
}

std::size_t PacketSender::send(Packet* const* packets, std::size_t n) {
  std::size_t taken = 0;
  congested_ = lost_link_ = false;
  while (taken < n && !congested_) {
    Burst burst;
    describe({packets + taken, std::min(n - taken, kBurst)}, burst);
    std::size_t done = 0;
    while (done < burst.count) {
      long sent = send_frames(burst, done);
      if (sent < 0 && errno == EFAULT) [[unlikely]] sent = send_copy(burst, done, {packets + taken, burst.packets[done]});
      std::size_t gone = sent > 0 ? static_cast<std::size_t>(sent) : 0;
      if (sent < 0) {
        const bool merged = merges_;
        congested_ = !refused(burst.cut[done]);
        if (congested_ || merges_ != merged) break;
        gone = 1;
      }
      for (; gone > 0; --gone) {
        if (burst.cut[done]) ++merged_;
        for (std::size_t i = burst.packets[done++]; i > 0; --i) {
          Packet* p = packets[taken++];
          if ((p->flags & kKeep) != 0) continue;
          if ((p->flags & kExternal) != 0) [[unlikely]] drop_external(*p);
          p->pool->free(&p, 1);
        }
      }
    }
  }
  return taken;
}

}  // namespace mtcp::stack::dpdk

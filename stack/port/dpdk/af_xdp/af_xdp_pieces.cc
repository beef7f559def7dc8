// Frames that come in several pieces: 64 KB of a peer on this machine, or of GRO. They are cut into segments as they are copied.
#include <string.h>

#include <algorithm>
#include <array>

#include "stack/base/bytes.hh"
#include "stack/port/dpdk/af_xdp/af_xdp.hh"
#include "stack/port/dpdk/interface/split.hh"
#include "stack/wire/checksum.hh"

namespace mtcp::stack::dpdk {

namespace {
// Of 64 KB in frames of half a page there are some 36; the kernel makes no more than 17 fragments of a packet, and each may
// begin a frame.
constexpr std::uint32_t kMostPieces = 64;
constexpr std::size_t kMaxSegments = 128;
constexpr std::size_t kStart = 256;  // bytes that hold the headers
}  // namespace

struct AfXdpPort::Chain {
  std::array<std::span<const std::byte>, kMostPieces> parts;
  std::uint32_t descriptors = 0;  // in the ring
  std::uint32_t count = 0;        // of parts
  std::size_t length = 0;
  bool sound = true;

  // `length` bytes from `offset` on.
  void copy(std::size_t offset, std::size_t bytes, std::byte* to) const {
    for (std::uint32_t i = 0; i < count && bytes > 0; ++i) {
      if (offset >= parts[i].size()) {
        offset -= parts[i].size();
        continue;
      }
      const std::size_t n = std::min(bytes, parts[i].size() - offset);
      memcpy(to, parts[i].data() + offset, n);
      to += n;
      bytes -= n;
      offset = 0;
    }
  }
};

// False if its end is not there yet.
bool AfXdpPort::read_chain(std::uint32_t from, std::uint32_t available, Chain& chain) const {
  chain.descriptors = chain.count = 0;
  chain.length = 0;
  chain.sound = true;
  while (chain.descriptors < available) {
    const xdp_desc descriptor = *xsk_ring_cons__rx_desc(&socket_.rx, from + chain.descriptors);
    ++chain.descriptors;
    const std::uint64_t at = xsk_umem__add_offset_to_addr(descriptor.addr);
    if (chain.count == kMostPieces || at > socket_.size || socket_.size - at < descriptor.len) {
      chain.sound = false;
    } else {
      chain.parts[chain.count++] = {socket_.area + at, descriptor.len};
      chain.length += descriptor.len;
    }
    if ((descriptor.options & kMoreFollows) == 0) return true;
  }
  return false;
}

namespace {

// The sum of the pseudo-header of a frame that can be cut.
std::uint64_t pseudo_sum(const LargeFrame& large, const std::byte* ip) {
  const auto tcp_length = static_cast<std::uint16_t>(large.headers - large.tcp + large.payload);
  const std::uint64_t addresses = large.v4 ? partial_sum(ip + 12, 8) : partial_sum(ip + 8, 32);
  return addresses + sum_of_field(6) + sum_of_field(tcp_length);
}

}  // namespace

void AfXdpPort::take_chain(const Chain& chain) {
  std::array<std::byte, kStart> start;
  std::array<Packet*, kMaxSegments> pieces;
  const std::size_t begin = std::min(start.size(), chain.length);
  chain.copy(0, begin, start.data());
  const LargeFrame large = chain.sound ? analyse_large({start.data(), begin}, chain.length, state_.mtu) : LargeFrame{};
  const std::size_t n = large.headers == 0 ? 0 : large.pieces();
  const std::size_t got = n == 0 || n > kMaxSegments ? 0 : pool_.alloc(pieces.data(), n);
  if (got == 0 || got < n) {
    if (got > 0) pool_.free(pieces.data(), got);
    ++dropped_;
    return;
  }
  const std::uint64_t pseudo = pseudo_sum(large, start.data() + 14);
  std::uint32_t sum = fold_sum(pseudo + partial_sum(start.data() + large.tcp, large.headers - large.tcp));
  std::uint16_t field;
  memcpy(&field, &start[large.tcp + 16], sizeof field);
  // Left to the hardware, or by GRO, which has looked at it. 0 and 0xffff are the same number.
  const bool left_out = fold_sum(pseudo) % 0xffff == field % 0xffff;
  for (std::size_t i = 0; i < n; ++i) {
    Packet& p = *pieces[i];
    const std::size_t offset = i * large.segment, bytes = std::min(large.segment, large.payload - offset);
    memcpy(p.data, start.data(), large.headers);
    chain.copy(large.headers + offset, bytes, p.data + large.headers);
    if (!left_out) sum = append_sum(sum, partial_sum(p.data + large.headers, bytes), offset);
    write_piece_headers(large, i, p.data);
    p.len = static_cast<std::uint32_t>(large.headers + bytes);
    p.flags = kRxL4Good;
  }
  if (!left_out && !sum_is_good(sum)) {
    pool_.free(pieces.data(), n);
    ++dropped_;
    return;
  }
  for (std::size_t i = 0; i < n; ++i) cut_.push_back(pieces[i]);
}

std::size_t AfXdpPort::rx_pieces(Packet** out, std::size_t max) {
  std::size_t taken = 0;
  const auto give_out_cut = [&] {
    while (taken < max && !cut_.empty()) out[taken++] = cut_.pop_front();
  };
  give_out_cut();
  const std::uint32_t available = waiting(), from = load(socket_.rx.consumer), to = load(socket_.fill.producer);
  std::uint32_t done = 0;
  Chain chain;
  while (taken < max && cut_.empty() && done < available) {
    if (!read_chain(from + done, available - done, chain)) break;
    Packet* p = nullptr;
    if (chain.sound && chain.count == 1 && chain.length <= state_.mtu + 18) {
      if (pool_.alloc(&p, 1) == 1 && take(*xsk_ring_cons__rx_desc(&socket_.rx, from + done), p)) {
        out[taken++] = p;
      } else {
        if (p != nullptr) pool_.free(&p, 1);
        ++dropped_;
      }
    } else {
      take_chain(chain);
      give_out_cut();
    }
    for (std::uint32_t i = 0; i < chain.descriptors; ++i) {
      const xdp_desc descriptor = *xsk_ring_cons__rx_desc(&socket_.rx, from + done + i);
      *xsk_ring_prod__fill_addr(&socket_.fill, to + done + i) = xsk_umem__extract_addr(descriptor.addr);
    }
    done += chain.descriptors;
  }
  if (done == 0) return taken;
  // In this order: UmemFrames::take_over().
  store(socket_.fill.producer, to + done);
  store(socket_.rx.consumer, from + done);
  wake_driver();
  return taken;
}

}  // namespace mtcp::stack::dpdk

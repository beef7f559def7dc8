#include "tests/fuzz/wire_peer.hh"

#include <algorithm>

namespace mtcp::stack {
namespace {

// Where the peer's sequence numbers begin: some flows wrap at once.
constexpr std::uint32_t kStart[] = {1000, 0xfffffff0, 0x7ffffff0, 0xffff0000};

void put_options(Bytes& header, const Bytes& options) {
  const std::size_t n = std::min<std::size_t>(options.size(), kMaxTcpOptions);
  header.insert(header.end(), options.begin(), options.begin() + static_cast<std::ptrdiff_t>(n));
  while (header.size() % 4 != 0) header.push_back(std::byte{kOptionEnd});
}

// More than a script can make one connection send.
constexpr std::uint32_t kMostSent = 1 << 22;

// Also what is sent again must be what was written.
bool is_ours(Seq iss, Seq seq, std::span<const std::byte> payload) {
  for (std::uint32_t i = 0; i < payload.size(); ++i)
    if (payload[i] != WirePeer::ours(seq + i - (iss + 1))) return false;
  return true;
}

}  // namespace

WirePeer::WirePeer() {
  for (std::size_t i = 0; i < kFlows; ++i) {
    Flow& f = flows_[i];
    f.peer_port = static_cast<std::uint16_t>((i < 4 ? 5000 : kTheirListenPort) + i);
    f.our_port = i < 4 ? kListenPort : std::uint16_t{0};
    f.ack = Seq(kStart[i % 4]);
  }
}

Bytes WirePeer::segment(const Flow& f, const Shape& s) {
  Bytes body;
  body.reserve(60 + s.payload);
  body.resize(kTcpHeader);
  write_tcp_plain(body.data(), f.peer_port, f.our_port, s.seq, s.ack, s.flags, s.window, false, 0, 0);
  put_options(body, s.options);
  body[12] = static_cast<std::byte>(body.size() / 4 << 4);
  const Seq first = s.seq + ((s.flags & kSyn) != 0 ? 1U : 0U);
  for (std::uint32_t i = 0; i < s.payload; ++i) body.push_back(theirs(first + i));
  return ipv4_frame(kProtocolTcp, body);
}

Bytes WirePeer::syn(std::size_t i, std::uint8_t mix) {
  Flow& f = flow(i);
  TcpHeader h{.source_port = f.peer_port,
              .destination_port = f.our_port,
              .seq = f.ack,
              .ack = f.seq_end,
              .flags = static_cast<std::uint8_t>(i % kFlows < 4 ? kSyn : kSyn | kAck),
              .window = 60000};
  if ((mix & 1) != 0) h.mss = static_cast<std::uint16_t>(mix * 11);
  if ((mix & 2) != 0) h.window_scale = mix >> 4;
  if ((mix & 4) != 0) h.timestamps = true, h.ts_val = 1000, h.ts_ecr = f.ts_val;
  if ((mix & 8) != 0) h.sack_permitted = true;
  Bytes body(tcp_header_length(h));
  write_tcp(body.data(), h);
  return ipv4_frame(kProtocolTcp, body);
}

Bytes WirePeer::plain_ack(const Flow& f, std::uint16_t window) {
  return segment(f, {.flags = kAck, .seq = f.ack, .ack = f.seq_end, .window = window});
}

// A new connect to the same port takes the flow over from an older one.
WirePeer::Flow* WirePeer::find(std::uint16_t our_port, std::uint16_t peer_port, bool syn) {
  for (Flow& f : flows_)
    if (f.peer_port == peer_port && (f.our_port == our_port || (syn && our_port != kListenPort))) return &f;
  return nullptr;
}

bool WirePeer::observe(const Bytes& frame) {
  EthernetHeader eth;
  must(parse_ethernet(frame, eth) == ParseError::none, "a frame has an Ethernet header");
  const auto body = std::span(frame).subspan(kEthernetHeader);
  if (eth.type == kEtherArp) {
    ArpPacket a;
    must(parse_arp(body, a) == ParseError::none, "ARP is well-formed");
    return a.operation == kArpRequest && a.target == kPeer;
  }
  must(eth.type == kEtherIpv4, "a frame is ARP or IPv4");
  Ipv4Header ip;
  must(parse_ipv4(body, true, ip) == ParseError::none, "an IPv4 header is right");
  must(ip.total_length == body.size() && body.size() <= 1500, "a datagram has its length, within the MTU");
  must(ip.source == kUs, "we send from our address");
  if (ip.protocol == kProtocolTcp && ip.destination == kPeer) observe_tcp(body.subspan(kIpv4Header));
  return false;
}

void WirePeer::observe_tcp(std::span<const std::byte> segment) {
  must(segment.size() >= kTcpHeader, "a segment has a header");
  must(sum_is_good(sum_of_pseudo_header(IpAddress::v4(kUs), IpAddress::v4(kPeer), true, kProtocolTcp,
                                        segment.size()) +
                   partial_sum(segment.data(), segment.size())),
       "a TCP checksum is right");
  const std::byte* h = segment.data();
  const std::size_t header = (std::to_integer<std::size_t>(h[12]) >> 4) * 4;
  must(header >= kTcpHeader && header <= segment.size(), "a data offset is right");
  const auto flags = std::to_integer<std::uint8_t>(h[13]);
  TcpOptions options;
  must(parse_tcp_options(segment.subspan(kTcpHeader, header - kTcpHeader), (flags & kSyn) != 0, options),
       "TCP options are well-formed");
  // RFC 2018 section 3; the first block may be a duplicate (RFC 2883).
  for (std::size_t i = 0; i < options.sack_count; ++i) {
    must(before(options.sack[i].begin, options.sack[i].end), "a SACK block has its begin before its end");
    must(i == 0 || after(options.sack[i].end, Seq(load_be<std::uint32_t>(h + 8))),
         "a SACK block is not acknowledged anyway");
  }
  Flow* f = find(load_be<std::uint16_t>(h), load_be<std::uint16_t>(h + 2), (flags & kSyn) != 0);
  if (f == nullptr) return;
  const Seq seq(load_be<std::uint32_t>(h + 4));
  if ((flags & kSyn) != 0) {
    if (f->our_port != load_be<std::uint16_t>(h))
      f->earlier.clear();
    else if (f->known && f->iss != seq)
      f->earlier.push_back(f->iss);
    f->our_port = load_be<std::uint16_t>(h);
    f->iss = f->seq_end = seq;
    f->known = true;
  }
  if (!f->known || (flags & kRst) != 0) return;
  const auto payload = segment.subspan(header);
  if (before(seq, f->iss) || is_late(*f, seq, payload)) return;
  must(is_ours(f->iss, seq, payload), "sent bytes are those that were written, at their place");
  if (options.has_timestamps) f->ts_val = options.ts_val;
  if ((flags & kAck) != 0) f->ack = Seq(load_be<std::uint32_t>(h + 8));
  const auto length = static_cast<std::uint32_t>(payload.size()) + ((flags & kSyn) != 0 ? 1U : 0U) +
                      ((flags & kFin) != 0 ? 1U : 0U);
  f->seq_end = later(f->seq_end, seq + length);
}

// Data of an earlier connection that has waited for the device meanwhile: a new connection's SYN overtakes
// what waits. That the numbers are lower does not always tell: their clock comes round in 4.8 hours (RFC
// 6528), and scripts last longer.
bool WirePeer::is_late(const Flow& f, Seq seq, std::span<const std::byte> payload) {
  if (is_ours(f.iss, seq, payload)) return false;
  return std::ranges::any_of(f.earlier,
                             [&](Seq iss) { return seq - iss <= kMostSent && is_ours(iss, seq, payload); });
}

}  // namespace mtcp::stack

#include "tests/sim/wire.hh"

#include <algorithm>
#include <cstring>

#include "stack/packet/external.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/frame.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/tcp_header.hh"
#include "stack/wire/tcp_options.hh"

namespace mtcp::sim {
namespace {

constexpr std::size_t kFullFrame = 1538;  // bytes, with what Ethernet puts around it

}  // namespace

// --- SimPort

std::size_t SimPort::rx(Packet** out, std::size_t max) {
  std::size_t n = 0;
  while (n < max && has_link) {
    Packet* p = nullptr;
    if (pool_.alloc(&p, 1) == 0) break;
    auto frame = wire_.receive(number_);
    if (!frame || frame->size() > p->tailroom()) {
      pool_.free(&p, 1);
      if (!frame) break;
      continue;
    }
    std::memcpy(p->data, frame->data(), frame->size());
    p->len = static_cast<std::uint32_t>(frame->size());
    out[n++] = p;
  }
  return n;
}

std::size_t SimPort::tx(Packet* const* packets, std::size_t n) {
  if (!has_link || takes_nothing) return 0;
  for (std::size_t i = 0; i < n; ++i) {
    Packet* p = packets[i];
    if (gathers)
      send_as_device(*p);
    else
      wire_.send(number_, Wire::Frame(p->data, p->data + p->len));
    if ((p->flags & kKeep) != 0) continue;
    if ((p->flags & kExternal) != 0) drop_external(*p);
    p->pool->free(&p, 1);
  }
  return n;
}

void SimPort::send_as_device(const Packet& p) {
  const Wire::Frame whole = copy_of_frame(p);
  if ((p.flags & kTxL4Offload) == 0) return wire_.send(number_, whole);
  constexpr std::size_t kTcp = kEthernetHeader + kIpv4Header;
  const std::size_t headers = kTcp + std::to_integer<std::size_t>(whole[kTcp + 12] >> 4) * 4, payload = whole.size() - headers;
  const std::size_t marked = (p.flags & kExternal) != 0 ? external_of(p).segment : 0, segment = marked != 0 ? marked : payload;
  cut += payload > segment ? 1 : 0;
  for (std::size_t at = 0; at == 0 || at < payload; at += std::max<std::size_t>(segment, 1)) {
    const std::size_t n = std::min(segment, payload - at);
    const bool last = at + n == payload;
    Wire::Frame frame(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(headers));
    frame.insert(frame.end(), whole.begin() + static_cast<std::ptrdiff_t>(headers + at), whole.begin() + static_cast<std::ptrdiff_t>(headers + at + n));
    std::byte* const ip = frame.data() + kEthernetHeader;
    std::byte* const tcp = frame.data() + kTcp;
    const auto length = static_cast<std::uint16_t>(frame.size() - kTcp);
    store_be<std::uint16_t>(ip + 2, static_cast<std::uint16_t>(kIpv4Header + length));
    store_be<std::uint16_t>(ip + 10, 0);
    store_checksum(ip + 10, partial_sum(ip, kIpv4Header));
    store_be<std::uint32_t>(tcp + 4, load_be<std::uint32_t>(tcp + 4) + static_cast<std::uint32_t>(at));
    if (!last) tcp[13] &= ~std::byte{kFin | kPsh};
    store_be<std::uint16_t>(tcp + kTcpChecksumOffset, 0);
    store_checksum(tcp + kTcpChecksumOffset, sum_of_pseudo_header(ip, true, length) + partial_sum(tcp, length));
    wire_.send(number_, std::move(frame));
  }
}

// --- Wire

std::size_t Wire::add_port(MacAddress mac) {
  ends_.push_back({mac, {}, {}});
  return ends_.size() - 1;
}

FrameInfo Wire::inspect(std::size_t from, const Frame& frame) {
  FrameInfo info;
  info.from = from;
  info.number = frames_;
  EthernetHeader ethernet;
  Ipv4Header ip;
  if (parse_ethernet(frame, ethernet) != ParseError::none || ethernet.type != kEtherIpv4) return info;
  const auto datagram = std::span(frame).subspan(kEthernetHeader);
  if (parse_ipv4(datagram, true, ip) != ParseError::none || ip.protocol != kProtocolTcp) return info;
  const auto tcp = datagram.subspan(ip.header_length, ip.total_length - ip.header_length);
  if (tcp.size() < 20) return info;
  info.tcp = true;
  info.key = {IpAddress::v4(ip.source), IpAddress::v4(ip.destination), load_be<std::uint16_t>(tcp.data()),
              load_be<std::uint16_t>(tcp.data() + 2)};
  info.seq = Seq(load_be<std::uint32_t>(tcp.data() + 4));
  info.ack = Seq(load_be<std::uint32_t>(tcp.data() + 8));
  info.flags = static_cast<std::uint8_t>(load_be<std::uint16_t>(tcp.data() + 12));
  info.window = load_be<std::uint16_t>(tcp.data() + 14);
  const std::size_t header = std::to_integer<std::size_t>(tcp[12] >> 4) * 4;
  info.len = static_cast<std::uint32_t>(tcp.size() - header);
  TcpOptions tcp_options;
  if (header > 20 && header <= tcp.size()) (void)parse_tcp_options(tcp.subspan(20, header - 20), false, tcp_options);
  info.ts_val = tcp_options.ts_val;
  const std::uint32_t seq_len = info.len + (info.has(kSyn) ? 1U : 0U) + (info.has(kFin) ? 1U : 0U);
  std::array<std::uint8_t, sizeof(FlowKey)> flow;
  std::memcpy(flow.data(), &info.key, sizeof info.key);
  const auto [at, fresh] = highest_.try_emplace(flow, info.seq);
  const bool restarted = info.has(kSyn) && !(info.seq + 1 == at->second);
  if (fresh || restarted) at->second = info.seq;
  info.retransmission = seq_len > 0 && !after(info.seq + seq_len, at->second);
  at->second = later(at->second, info.seq + seq_len);
  return info;
}

bool Wire::dropped_by_rule(const FrameInfo& info) {
  bool drop = drop_if && drop_if(info);
  for (Rule& r : rules_) {
    if (!r.match(info)) continue;
    ++r.seen;
    drop = drop || (r.seen >= r.nth && r.seen < r.nth + r.count);
  }
  return drop;
}

void Wire::send(std::size_t from, Frame frame) {
  const FrameInfo info = inspect(from, frame);
  ++frames_;
  if (tap) tap(info);
  if (dropped_by_rule(info) || chance(options.loss)) {
    ++dropped_;
    return;
  }
  if (chance(options.corrupt) && info.tcp) {
    const std::size_t bit =
        std::uniform_int_distribution<std::size_t>(kEthernetHeader * 8, frame.size() * 8 - 1)(random_);
    frame[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  deliver(from, frame, info.tcp);
  if (chance(options.duplicate)) deliver(from, frame, info.tcp);
}

// The bottleneck is beyond a router: ARP does not wait there.
void Wire::deliver(std::size_t from, const Frame& frame, bool queues) {
  Time at = now_;
  if (options.bandwidth > 0 && queues) {
    End& sender = ends_[from];
    const auto time_for = [this](std::size_t bytes) {
      return Duration(static_cast<std::int64_t>(static_cast<double>(bytes) / options.bandwidth * 1e9));
    };
    const Duration takes = time_for(frame.size() + 24);
    if (sender.idle_at > now_ + time_for(options.queue * kFullFrame)) {
      ++dropped_;
      return;
    }
    sender.idle_at = std::max(sender.idle_at, now_) + takes;
    at = sender.idle_at;
  }
  at += options.delay;
  const auto random_time = [this](Duration most) {
    return Duration(std::uniform_int_distribution<std::int64_t>(0, most.count())(random_));
  };
  if (options.jitter > Duration::zero()) at += random_time(options.jitter);
  if (chance(options.reorder)) at += random_time(options.reorder_by);
  MacAddress to;
  std::memcpy(to.bytes.data(), frame.data(), 6);
  for (std::size_t i = 0; i < ends_.size(); ++i)
    if (i != from && (to.is_multicast() || to == ends_[i].mac)) ends_[i].arriving.emplace(at, frame);
}

std::optional<Wire::Frame> Wire::receive(std::size_t port) {
  auto& arriving = ends_[port].arriving;
  if (arriving.empty() || arriving.begin()->first > now_) return std::nullopt;
  Frame frame = std::move(arriving.begin()->second);
  arriving.erase(arriving.begin());
  return frame;
}

Time Wire::next_arrival() const {
  Time first = kNever;
  for (const End& e : ends_)
    if (!e.arriving.empty()) first = std::min(first, e.arriving.begin()->first);
  return first;
}

}  // namespace mtcp::sim

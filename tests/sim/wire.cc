#include "tests/sim/wire.hh"

#include <algorithm>
#include <cstring>

#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"
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
  if (!has_link) return 0;
  for (std::size_t i = 0; i < n; ++i) {
    Packet* p = packets[i];
    wire_.send(number_, Wire::Frame(p->data, p->data + p->len));
    if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
  }
  return n;
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

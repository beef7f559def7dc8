// The headers of the segments that we send, and the segments without data.
#include <algorithm>
#include <cstring>

#include "stack/tcp/tcp.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

std::size_t header_length(const Connection& c) {
  return c.hot.timestamps ? kTcpHeader + kTimestampsLength : kTcpHeader;
}

// The SACK blocks that go with a segment, in front of its payload: as many as fit beside that and the timestamps. Returns
// the bytes of the option. By itself, so that segments without pay nothing.
[[gnu::noinline]] std::size_t push_sack_option(Connection& c, Packet& p) {
  const std::size_t beside = p.len < c.hot.mss ? c.hot.mss - p.len : 0;
  const std::size_t room = std::min(beside, kTcpHeader + kMaxTcpOptions - header_length(c));
  if (room < sack_option_length(1)) return 0;
  std::array<SackBlock, 4> blocks;
  const std::size_t n = c.rx.sack.take(std::span(blocks).first(std::min(blocks.size(), (room - sack_option_length(0)) / 8)));
  if (n == 0) return 0;
  write_sack_option(p.push(sack_option_length(n)), std::span(blocks).first(n));
  return sack_option_length(n);
}

// RFC 9293 3.10.7.4: the sequence number of a segment without data; never beyond the peer's window, or it is
// dropped.
Seq acceptable_seq(const Connection& c) {
  const Seq edge = c.hot.snd_una + c.hot.snd_wnd;
  return after(c.hot.snd_nxt, edge) ? later(edge, c.hot.snd_una) : c.hot.snd_nxt;
}

}  // namespace

void Tcp::write_header(Connection& c, Packet& p, Seq seq, std::uint8_t flags, Time now) {
  auto& h = c.hot;
  const std::size_t sack_option = c.rx.sack.empty() ? 0 : push_sack_option(c, p);
  std::byte* at = p.push(header_length(c));
  p.tos = c.options.tos;
  p.ttl = c.options.ttl;
  const std::uint32_t window = receiver.receive_window(c);
  h.rcv_adv = later(h.rcv_adv, h.rcv_nxt + window);
  receiver.note_ack_sent(c);
  ++c.segments_sent;
  if (h.ecn) [[unlikely]] flags = mark_ecn(c, p, seq, flags);
  write_tcp_plain(at, c.key.local_port, c.key.remote_port, seq, h.rcv_nxt, flags,
                  static_cast<std::uint16_t>(window >> h.rcv_wscale), h.timestamps,
                  ts_clock(now) + c.ts_offset, h.ts_recent);
  if (sack_option != 0) [[unlikely]] lengthen_header(at, sack_option);
}

void Tcp::send_ack(Connection& c, Time now) {
  Packet* p = cache.alloc_little();
  if (p == nullptr) {
    // It is made up for once there are packets again: by what asks for one meanwhile, or by the timer.
    constexpr Duration kAgain = milliseconds(40);
    c.hot.ack_now = false;
    wheel.arm(c.delayed_ack_timer, now + kAgain);
    return stats.add(Counter::no_packets);
  }
  write_header(c, *p, acceptable_seq(c), kAck, now);
  stats.add(Counter::segments_sent);
  network.output_tcp(p, c.key.local, c.key.remote, *c.path, TxPriority::ack, now);
}

void Tcp::send_probe(Connection& c, Time now) {
  Packet* p = cache.alloc_little();
  if (p == nullptr) return stats.add(Counter::no_packets);
  write_header(c, *p, c.hot.snd_una - 1, kAck, now);
  stats.add(Counter::segments_sent);
  network.output_tcp(p, c.key.local, c.key.remote, *c.path, TxPriority::ack, now);
}

bool Tcp::send_bare(const Header& hd, const Path& path, TxPriority priority, Time now, std::span<const std::byte> payload) {
  Packet* p = payload.size() <= kLittlePayload ? cache.alloc_little() : cache.alloc();
  if (p == nullptr) return stats.add(Counter::no_packets), false;
  if (!payload.empty()) {
    std::memcpy(p->data, payload.data(), payload.size());
    p->len = static_cast<std::uint32_t>(payload.size());
  }
  TcpHeader w;
  w.source_port = hd.key.local_port;
  w.destination_port = hd.key.remote_port;
  w.seq = hd.seq;
  w.ack = hd.ack;
  w.flags = hd.flags;
  w.window = static_cast<std::uint16_t>(std::min(hd.window, 65535U));
  w.timestamps = hd.timestamps;
  w.ts_val = hd.ts_val;
  w.ts_ecr = hd.ts_ecr;
  w.mss = hd.mss;
  w.window_scale = hd.window_scale;
  w.sack_permitted = hd.sack_permitted;
  w.fast_open = hd.fast_open;
  write_tcp(p->push(tcp_header_length(w)), w);
  p->tos = hd.tos;
  p->ttl = hd.ttl;
  stats.add(Counter::segments_sent);
  network.output_tcp(p, hd.key.local, hd.key.remote, path, priority, now);
  return true;
}

Tcp::Header Tcp::syn_header(const Connection& c, bool answer, Time now) const {
  const auto& h = c.hot;
  Header hd;
  hd.key = c.key;
  hd.tos = c.options.tos;
  hd.ttl = c.options.ttl;
  hd.seq = c.iss;
  hd.flags = answer ? kSyn | kAck : kSyn;
  if (answer ? h.ecn : offers_ecn(c) && !(h.retransmitting_syn && options.tcp.ecn_fallback))
    hd.flags = static_cast<std::uint8_t>(hd.flags | (answer ? kEce : kEce | kCwr));  // RFC 3168 section 6.1.1
  if ((hd.flags & kEce) != 0 && needs_ecn(c.options)) hd.tos |= 2;  // RFC 8257 section 3.5: ECT(0)
  if (answer) hd.ack = h.rcv_nxt;
  hd.window = receiver.initial_window(c.options);
  // In a SYN the flags say what we offer; in the answer to one, what was agreed (RFC 7323 sections 2.2
  // and 3.2).
  hd.timestamps = answer ? h.timestamps : options.tcp.timestamps;
  hd.ts_val = ts_clock(now) + c.ts_offset;
  hd.ts_ecr = answer ? h.ts_recent : 0;
  hd.mss = local_mss(*c.path, c.key, c.options);
  hd.sack_permitted = answer ? h.sack_ok : options.tcp.sack;
  if (answer ? h.wscale : options.tcp.window_scaling) hd.window_scale = receiver.choose_window_scale(c.options);
  return hd;
}

void Tcp::send_syn(Connection& c, Time now) {
  c.tx.last_sent = now;
  ++c.segments_sent;
  send_bare(syn_header(c, c.hot.state == State::syn_received, now), *c.path, TxPriority::control, now);
}

}  // namespace mtcp::stack

#include "tests/sim/raw_peer.hh"

#include <cstring>

#include "stack/wire/arp.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"

namespace mtcp::sim {

RawPeer::RawPeer(Sim& s, Host& h, std::uint16_t lp, std::uint16_t rp)
    : sim(s), host(h), local_port(lp), remote_port(rp), port_(s.wire.add_port({})), host_mac_(h.port.mac()) {
  // Far from the addresses of hosts.
  address = IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(200 + port_));
  mac_ = MacAddress{{2, 0, 0, 0, 1, static_cast<std::uint8_t>(port_)}};
  sim.wire.set_mac(port_, mac_);
  sim.actors.push_back([this] { act(); });
  // The host learns our address as it would from any peer that speaks first.
  std::array<std::byte, kEthernetHeader + kArpPacket> frame;
  write_ethernet(frame.data(), {host_mac_, mac_, kEtherArp});
  write_arp(frame.data() + kEthernetHeader, {kArpRequest, mac_, address.as_v4(), {}, host.address.as_v4()});
  sim.wire.send(port_, {frame.begin(), frame.end()});
  sim.run_for(milliseconds(2));
}

RawPeer::~RawPeer() { sim.actors.clear(); }

void RawPeer::send_ip(std::uint8_t protocol, std::span<const std::byte> payload, std::uint8_t tos) {
  Wire::Frame frame(kEthernetHeader + kIpv4Header + payload.size());
  write_ethernet(frame.data(), {host_mac_, mac_, kEtherIpv4});
  Ipv4Header ip;
  ip.source = address.as_v4();
  ip.destination = host.address.as_v4();
  ip.total_length = static_cast<std::uint16_t>(kIpv4Header + payload.size());
  ip.protocol = protocol;
  ip.tos = tos;
  write_ipv4(frame.data() + kEthernetHeader, ip);
  std::memcpy(frame.data() + kEthernetHeader + kIpv4Header, payload.data(), payload.size());
  sim.wire.send(port_, std::move(frame));
}

void RawPeer::send(const Seg& s) {
  TcpHeader h;
  h.source_port = s.from_port != 0 ? s.from_port : local_port;
  h.destination_port = s.to_port != 0 ? s.to_port : remote_port;
  h.seq = Seq(s.seq);
  h.ack = Seq(s.ack);
  h.flags = s.flags;
  h.window = s.window;
  h.timestamps = s.timestamps;
  h.ts_val = s.ts_val;
  h.ts_ecr = s.ts_ecr;
  h.mss = s.mss;
  h.window_scale = s.window_scale;
  h.sack_permitted = s.sack_permitted;
  for (const auto& [begin, end] : s.sack) h.sack.at(h.sack_count++) = {Seq(begin), Seq(end)};
  FastOpenCookie cookie;
  if (s.cookie) {
    cookie.length = static_cast<std::uint8_t>(s.cookie->size());
    cookie.experimental = s.experimental;
    std::memcpy(cookie.bytes.data(), s.cookie->data(), s.cookie->size());
    h.fast_open = &cookie;
  }
  const std::size_t header = tcp_header_length(h);
  std::vector<std::byte> bytes(header + s.data.size());
  write_tcp(bytes.data(), h);
  std::memcpy(bytes.data() + header, s.data.data(), s.data.size());
  store_checksum(bytes.data() + kTcpChecksumOffset,
                 sum_of_pseudo_header(address, host.address, true, kProtocolTcp, bytes.size()) +
                     partial_sum(bytes.data(), bytes.size()));
  send_ip(kProtocolTcp, bytes, s.tos);
}

void RawPeer::send_unreachable(std::uint8_t code, std::uint32_t seq) {
  std::array<std::byte, 8 + kIpv4Header + 8> bytes{};
  bytes[0] = std::byte{3};
  bytes[1] = std::byte{code};
  Ipv4Header quoted;
  quoted.source = host.address.as_v4();
  quoted.destination = address.as_v4();
  quoted.total_length = 40;
  quoted.protocol = kProtocolTcp;
  write_ipv4(bytes.data() + 8, quoted);
  store_be(bytes.data() + 28, remote_port);
  store_be(bytes.data() + 30, local_port);
  store_be(bytes.data() + 32, seq);
  store_checksum(bytes.data() + 2, partial_sum(bytes.data(), bytes.size()));
  send_ip(kProtocolIcmp, bytes);
  sim.run_for(milliseconds(2));
}

void RawPeer::say(const Seg& s) {
  send(s);
  sim.run_for(milliseconds(2));
}

Seg RawPeer::hear() {
  if (heard_.empty()) return {};
  Seg s = std::move(heard_.front());
  heard_.pop_front();
  return s;
}

void RawPeer::act() {
  while (auto frame = sim.wire.receive(port_)) {
    EthernetHeader ethernet;
    if (parse_ethernet(*frame, ethernet) != ParseError::none) continue;
    const auto body = std::span(*frame).subspan(kEthernetHeader);
    if (ethernet.type == kEtherArp) {
      ArpPacket a;
      if (!answers_arp || parse_arp(body, a) != ParseError::none || a.operation != kArpRequest ||
          a.target != address.as_v4())
        continue;
      Wire::Frame reply(kEthernetHeader + kArpPacket);
      write_ethernet(reply.data(), {a.sender_mac, mac_, kEtherArp});
      write_arp(reply.data() + kEthernetHeader, {kArpReply, mac_, a.target, a.sender_mac, a.sender});
      sim.wire.send(port_, std::move(reply));
      continue;
    }
    Ipv4Header ip;
    if (ethernet.type != kEtherIpv4 || parse_ipv4(body, true, ip) != ParseError::none ||
        ip.protocol != kProtocolTcp)
      continue;
    Packet* p = nullptr;
    if (pool_.alloc(&p, 1) == 0) continue;
    const auto tcp = body.subspan(ip.header_length, ip.total_length - ip.header_length);
    std::memcpy(p->data, tcp.data(), tcp.size());
    p->len = static_cast<std::uint32_t>(tcp.size());
    const std::uint16_t window = load_be<std::uint16_t>(tcp.data() + 14);
    Segment in;
    if (parse_tcp(p, IpAddress::v4(ip.source), IpAddress::v4(ip.destination), true, in) == ParseError::none) {
      Seg s;
      s.flags = in.flags;
      s.seq = in.seq.value();
      s.ack = in.ack.value();
      s.data.assign(reinterpret_cast<const char*>(p->data), p->len);
      s.window = window;
      s.mss = in.options.mss;
      s.window_scale = in.options.has_window_scale ? in.options.window_scale : -1;
      s.timestamps = in.options.has_timestamps;
      s.ts_val = in.options.ts_val;
      s.ts_ecr = in.options.ts_ecr;
      s.sack_permitted = in.options.sack_permitted;
      for (std::size_t i = 0; i < in.options.sack_count; ++i)
        s.sack.emplace_back(in.options.sack[i].begin.value(), in.options.sack[i].end.value());
      s.tos = ip.tos;
      if (FastOpenCookie cookie; read_fast_open(in, cookie)) {
        s.cookie.emplace(reinterpret_cast<const char*>(cookie.bytes.data()), cookie.length);
        s.experimental = cookie.experimental;
      }
      s.from_port = in.key.remote_port;
      s.to_port = in.key.local_port;
      heard_.push_back(std::move(s));
    }
    pool_.free(&p, 1);
  }
}

void RawPeer::handshake(std::uint32_t isn) {
  say({.flags = kSyn, .seq = isn, .mss = 1460});
  const Seg answer = hear();
  snd = isn + 1;
  rcv = answer.seq + 1;
  say({.flags = kAck, .seq = snd, .ack = rcv});
}

}  // namespace mtcp::sim

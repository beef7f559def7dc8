#include "tests/tcp/script.hh"

#include "stack/wire/arp.hh"
#include "stack/wire/checksum.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/icmp.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::test {
namespace {

const IpAddress kUs = IpAddress::v4(10, 0, 0, 1), kPeer = IpAddress::v4(10, 0, 0, 2);
const MacAddress kPeerMac{{2, 0, 0, 0, 0, 2}}, kOurMac{{2, 0, 0, 0, 0, 1}};
constexpr std::uint16_t kPeerPort = 80;

// As REQUIRE, for what is done a million times.
void must(bool ok, const char* what) {
  if (!ok) FAIL("a frame without " << what);
}

std::vector<std::byte> ipv4_frame(std::uint8_t protocol, std::span<const std::byte> payload) {
  std::vector<std::byte> frame(kEthernetHeader + kIpv4Header + payload.size());
  write_ethernet(frame.data(), {kOurMac, kPeerMac, kEtherIpv4});
  Ipv4Header ip;
  ip.source = kPeer.as_v4();
  ip.destination = kUs.as_v4();
  ip.total_length = static_cast<std::uint16_t>(kIpv4Header + payload.size());
  ip.protocol = protocol;
  write_ipv4(frame.data() + kEthernetHeader, ip);
  std::memcpy(frame.data() + kEthernetHeader + kIpv4Header, payload.data(), payload.size());
  return frame;
}

}  // namespace

std::string pattern(std::size_t n, std::size_t from) {
  std::string s(n, '\0');
  for (std::size_t i = 0; i < n; ++i) s[i] = static_cast<char>('!' + ((from + i) * 2654435761U >> 13) % 90);
  return s;
}

// --- the port

ScriptPort::~ScriptPort() {
  for (Packet* p : arrived_) pool_.free(&p, 1);
}

std::size_t ScriptPort::rx(Packet** out, std::size_t max) {
  std::size_t n = 0;
  for (; n < max && !arrived_.empty(); ++n) {
    out[n] = arrived_.front();
    arrived_.pop_front();
  }
  return n;
}

std::size_t ScriptPort::tx(Packet* const* packets, std::size_t n) {
  std::size_t taken = 0;
  for (; taken < n && room > 0; ++taken) {
    if (room != SIZE_MAX) --room;
    Packet* p = packets[taken];
    EthernetHeader eth;
    must(parse_ethernet(p->bytes(), eth) == ParseError::none, "Ethernet header");
    if (eth.type == kEtherIpv4) sent.emplace_back(p->data, p->data + p->len);
    ArpPacket arp;
    if (eth.type == kEtherArp && parse_arp(p->bytes().subspan(kEthernetHeader), arp) == ParseError::none &&
        arp.operation == kArpRequest && arp.target == kPeer.as_v4()) {
      std::vector<std::byte> reply(kEthernetHeader + kArpPacket);
      write_ethernet(reply.data(), {arp.sender_mac, kPeerMac, kEtherArp});
      write_arp(reply.data() + kEthernetHeader,
                {kArpReply, kPeerMac, arp.target, arp.sender_mac, arp.sender});
      arrive(reply);
    }
    if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
  }
  return taken;
}

void ScriptPort::arrive(std::span<const std::byte> frame) {
  Packet* p = nullptr;
  must(pool_.alloc(&p, 1) == 1, "a packet");
  p->reset();
  must(frame.size() <= p->tailroom(), "room in the packet");
  std::memcpy(p->data, frame.data(), frame.size());
  p->len = static_cast<std::uint32_t>(frame.size());
  arrived_.push_back(p);
}

// --- the script

Script::Script(Setup s) : setup(std::move(s)) {
  setup.options.interface.addresses.push_back({kUs, 96 + 24});
  worker = std::make_unique<Worker>(setup.options, &port, pool, stats, Secrets{.key = {1, 2, 3, 4}}, now);
  auto made = worker->connect({kUs, 0}, {kPeer, kPeerPort}, setup.socket, now);
  REQUIRE(made);
  c = *made;
  c->user = this;
  flush();
  worker->poll(now);  // the ARP reply
  flush();
  for (int i = 0; i < setup.lost_syns; ++i) {
    REQUIRE(take(true));
    wait_for_segment(seconds(70));
  }
  syn = take(true);
  REQUIRE(syn);
  REQUIRE(syn->flags == kSyn);
  now += setup.rtt;
  send_frame({.seq = 0, .ack = 0, .flags = kSyn | kAck, .window = setup.peer_window}, true);
  worker->poll(now);
  flush();
  established_ = true;
  REQUIRE(sent().flags == kAck);
  REQUIRE(info().state == State::established);
  edges();
}

Script::~Script() { worker.reset(); }

void Script::send_frame(const In& in, bool syn) {
  TcpHeader h;
  h.source_port = kPeerPort;
  h.destination_port = local_port_;
  h.seq = peer_isn_ + in.seq + (syn ? 0 : 1);
  h.ack = our_isn_ + 1 + in.ack;
  h.flags = in.flags;
  h.window = static_cast<std::uint16_t>(in.window);
  if (setup.timestamps) {
    h.timestamps = true;
    h.ts_val =
        in.ts_val.value_or(peer_clock + static_cast<std::uint32_t>(now.time_since_epoch() / milliseconds(1)));
    h.ts_ecr = last_ts;
  }
  if (syn) {
    h.mss = setup.peer_mss;
    h.window_scale = setup.peer_wscale;
    h.sack_permitted = setup.sack;
  }
  for (const auto& [begin, end] : in.sack) h.sack.at(h.sack_count++) = {our_isn_ + 1 + begin, our_isn_ + 1 + end};
  std::vector<std::byte> segment(tcp_header_length(h) + in.data.size());
  const std::size_t n = write_tcp(segment.data(), h);
  store_be(segment.data() + kTcpUrgentOffset, in.urgent);
  std::memcpy(segment.data() + n, in.data.data(), in.data.size());
  store_checksum(segment.data() + kTcpChecksumOffset,
                 sum_of_pseudo_header(kPeer, kUs, true, kProtocolTcp, segment.size()) +
                     partial_sum(segment.data(), segment.size()));
  port.arrive(ipv4_frame(kProtocolTcp, segment));
}

void Script::peer(const In& in, bool flush_too) {
  send_frame(in, false);
  clock != nullptr ? worker->poll(now, clock) : worker->poll(now);
  if (flush_too) flush();
}

void Script::peer_data(const std::string& data, std::uint8_t flags) {
  const std::uint32_t at = peer_seq;
  peer_seq += static_cast<std::uint32_t>(data.size()) + ((flags & kFin) != 0 ? 1 : 0);
  // It has seen everything that we sent.
  peer({.seq = at,
        .ack = static_cast<std::uint32_t>(info().bytes_acked) + info().flight,
        .data = data,
        .flags = flags});
}

void Script::icmp_fragmentation_needed(std::uint16_t mtu, std::uint32_t seq) {
  std::vector<std::byte> m(8 + kIpv4Header + 8);
  m[0] = std::byte{3};
  m[1] = std::byte{4};
  store_be(m.data() + 6, mtu);
  Ipv4Header ip;
  ip.source = kUs.as_v4();
  ip.destination = kPeer.as_v4();
  ip.total_length = 1500;
  ip.protocol = kProtocolTcp;
  write_ipv4(m.data() + 8, ip);
  store_be(m.data() + 28, local_port_);
  store_be(m.data() + 30, kPeerPort);
  store_be(m.data() + 32, (our_isn_ + 1 + seq).value());
  store_checksum(m.data() + 2, partial_sum(m.data(), m.size()));
  port.arrive(ipv4_frame(kProtocolIcmp, m));
  worker->poll(now);
  flush();
}

std::size_t Script::write(const std::string& data, bool more) {
  const iovec v{const_cast<char*>(data.data()), data.size()};
  const auto r = worker->send(*c, {&v, 1}, more, now);
  flush();
  return r ? *r : 0;
}

std::size_t Script::write_urgent(const std::string& data, bool more) {
  const iovec v{const_cast<char*>(data.data()), data.size()};
  const auto r = worker->send_urgent(*c, {&v, 1}, more, now);
  flush();
  return r ? *r : 0;
}

Errc Script::write_error(const std::string& data) {
  const iovec v{const_cast<char*>(data.data()), data.size()};
  const auto r = worker->send(*c, {&v, 1}, false, now);
  flush();
  return r ? Errc::ok : r.error();
}

std::string Script::read(std::size_t most) {
  if (buffer_.size() < most) buffer_.resize(most);
  const iovec v{buffer_.data(), most};
  const auto r = worker->receive(*c, {&v, 1}, {}, now);
  flush();
  return {buffer_.data(), r ? *r : 0};
}

Result<std::size_t> Script::read_result() {
  char buffer[16];
  const iovec v{buffer, sizeof buffer};
  return worker->receive(*c, {&v, 1}, {}, now);
}

std::uint8_t Script::edges() {
  std::uint8_t all = 0;
  while (SocketBase* s = worker->next_event()) {
    all = static_cast<std::uint8_t>(all | s->edges);
    s->edges = 0;
  }
  return all;
}

std::optional<Out> Script::take(bool syn) {
  if (port.sent.empty()) return std::nullopt;
  const auto frame = std::move(port.sent.front());
  port.sent.pop_front();
  const auto ip_bytes = std::span(frame).subspan(kEthernetHeader);
  Ipv4Header ip;
  must(parse_ipv4(ip_bytes, true, ip) == ParseError::none, "IPv4 header");
  Packet* p = nullptr;
  must(pool.alloc(&p, 1) == 1, "a packet");
  p->reset();
  p->len = ip.total_length - std::uint32_t{ip.header_length};
  std::memcpy(p->data, ip_bytes.data() + ip.header_length, p->len);
  Segment s;
  must(parse_tcp(p, IpAddress::v4(ip.source), IpAddress::v4(ip.destination), true, s) == ParseError::none,
       "TCP header");
  Out out;
  if (syn) {
    our_isn_ = s.seq;
    local_port_ = s.key.remote_port;
  } else {
    out.seq = s.seq - (our_isn_ + 1);
    out.ack = s.ack - (peer_isn_ + 1);
  }
  out.data.assign(reinterpret_cast<const char*>(p->data), p->len);
  out.flags = s.flags;
  out.window = s.window;
  out.urgent = load_be<std::uint16_t>(ip_bytes.data() + ip.header_length + kTcpUrgentOffset);
  out.options = s.options;
  for (std::size_t i = 0; i < s.options.sack_count; ++i)
    out.sack.emplace_back(s.options.sack[i].begin - (peer_isn_ + 1), s.options.sack[i].end - (peer_isn_ + 1));
  if (s.options.has_timestamps) last_ts = s.options.ts_val;
  pool.free(&p, 1);
  return out;
}

bool Script::sent_nothing() { return port.sent.empty(); }

Out Script::sent() {
  const auto out = take(false);
  REQUIRE(out);
  return *out;
}

std::vector<Out> Script::all_sent() {
  std::vector<Out> all;
  while (auto out = take(false)) all.push_back(std::move(*out));
  return all;
}

Out Script::last_sent() {
  auto all = all_sent();
  REQUIRE(!all.empty());
  return all.back();
}

// On to the next millisecond at which a timer is due, and not beyond `end`: of the others there are millions in an hour.
void Script::step(Time end) {
  const Time due = std::min(worker->next_deadline(), worker->pacing_deadline());
  const auto until_due = std::chrono::ceil<std::chrono::milliseconds>(std::min(due, end) - now);
  now = std::min<Time>(now + std::max(until_due, std::chrono::milliseconds(1)), end);
  worker->poll(now);
  flush();
}

void Script::wait(Duration d) {
  for (const Time end = now + d; now < end;) step(end);
}

Duration Script::wait_for_segment(Duration limit) {
  const Time start = now;
  while (port.sent.empty() && now - start < limit) step(start + limit);
  return now - start;
}

}  // namespace mtcp::test

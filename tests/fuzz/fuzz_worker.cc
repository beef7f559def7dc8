// A whole stack: a listener, connections both ways, an application that reads, writes and closes when the
// fuzzer says, and a peer whose segments differ from the right ones as the fuzzer says. Afterwards everything
// must come to an end by itself: no connection, no timer and no packet stays.
#include "stack/worker.hh"
#include "tests/fuzz/wire_peer.hh"

using namespace mtcp::stack;

namespace {

Options example_options() {
  Options o;
  o.interface.addresses = {{IpAddress::v4(kUs), 96 + 24}};
  o.interface.gateways = {IpAddress::v4(0x0a0900fe)};
  o.loopback = true;
  o.tcp.max_connections = 64;
  o.tcp.max_syn_backlog = 8;
  o.tcp.max_tw_buckets = 16;
  o.tcp.rmem = {4096, 16384, 65536};
  o.tcp.wmem = {4096, 16384, 65536};
  o.tcp.fin_timeout = seconds(10);
  o.tcp.ip_local_port_first = 40000;
  o.tcp.ip_local_port_last = 40063;
  return o;
}

class Fixture {
 public:
  explicit Fixture(FuzzPool& pool)
      : pool_(pool), port_(pool), worker_(options(), &port_, pool, stats_, {{1, 2, 3, 4}}, now_) {
    const auto l = worker_.listen({IpAddress::any_v4(), WirePeer::kListenPort}, {.backlog = 4, .socket = {}});
    must(static_cast<bool>(l), "a listener can be made");
    listener_ = *l;
    port_.feed(arp_frame({kArpRequest, kPeerMac, kPeer, {}, kUs}));
    settle();
  }
  void step(Script& script);
  void finish();

 private:
  struct Socket {
    Connection* c;
    std::uint32_t written = 0, read = 0;
    bool over_wire;  // what it reads comes from the peer
  };
  static const Options& options() {
    static const Options value = example_options();
    return value;
  }

  void settle();
  void feed(const Bytes& frame, std::uint16_t flags = 0) {
    port_.feed(frame, flags);
    settle();
  }
  void feed_segment(Script& script);
  static void add_sack(Script& script, const WirePeer::Flow& f, Bytes& options);
  void feed_icmp(Script& script);
  void handshake(Script& script);
  void pass(Duration d) {
    now_ += d;
    settle();
  }
  void accept_all();
  void connect(Script& script);
  void send(Socket& s, std::size_t n, bool more);
  void send_lent(Socket& s, std::size_t n);
  void receive(Socket& s, std::size_t n, bool peek);
  void change_options(Socket& s, std::uint8_t mix);
  void close(std::size_t index, std::uint8_t how);
  void application(std::uint8_t op, Script& script);

  FuzzPool& pool_;
  Stats stats_;
  Time now_{seconds(100)};
  FuzzPort port_;
  Worker worker_;
  WirePeer peer_;
  Listener* listener_ = nullptr;
  std::vector<Socket> sockets_;
  bool honest_ = true;  // all payload from the wire is what the peer would write
};

// Runs the stack until it has nothing more to do at this time.
void Fixture::settle() {
  for (int i = 0; i < 20; ++i) {
    worker_.poll(now_);
    worker_.flush(now_);
    while (SocketBase* s = worker_.next_event()) s->edges = 0;
    for (const Bytes& frame : std::exchange(port_.sent, {}))
      if (peer_.observe(frame)) port_.feed(arp_frame({kArpReply, kPeerMac, kPeer, FuzzPort::kMac, kUs}));
    if (!port_.has_frames() && !worker_.pending()) break;
  }
}

// One to three blocks somewhere in what the stack has sent, or not.
void Fixture::add_sack(Script& script, const WirePeer::Flow& f, Bytes& options) {
  const std::size_t count = 1 + script.u8() % 3;
  while (options.size() % 4 != 0) options.push_back(std::byte{kOptionNop});
  const std::size_t at = options.size();
  options.resize(at + sack_option_length(count), std::byte{kOptionNop});
  options[at + 2] = std::byte{kOptionSack};
  options[at + 3] = static_cast<std::byte>(2 + 8 * count);
  for (std::size_t i = 0; i < count; ++i) {
    const Seq begin = f.iss + 1 + script.u16();
    store_be(&options[at + 4 + 8 * i], begin.value());
    store_be(&options[at + 8 + 8 * i], (begin + std::uint32_t{script.u8()} * 16).value());
  }
}

void Fixture::feed_segment(Script& script) {
  static constexpr std::uint8_t kUsual[] = {kAck,        kAck | kPsh, kAck | kFin, kRst,
                                            kRst | kAck, kSyn,        kSyn | kAck, 0};
  const std::uint8_t which = script.u8(), shape = script.u8(), place = script.u8();
  WirePeer::Flow& f = peer_.flow(which);
  WirePeer::Shape s;
  s.flags = (which & 0x40) != 0 ? script.u8() : kUsual[which >> 3 & 7];
  s.seq = f.ack;
  s.ack = f.seq_end;
  s.window = (shape & 1) != 0 ? script.u16() : 20000;
  s.payload = (shape & 2) != 0 ? script.u16() % 1461 : 0;
  if ((place & 1) != 0) s.seq += static_cast<std::uint32_t>(static_cast<std::int16_t>(script.u16()));
  if ((place & 2) != 0) s.ack += static_cast<std::uint32_t>(static_cast<std::int16_t>(script.u16()));
  if ((place & 4) != 0) s.seq += std::uint32_t{script.u16()} << 16;
  if ((place & 8) != 0) s.ack = f.iss + 1 + script.u8();
  if ((shape & 4) != 0) {
    Bytes timestamps(12);
    store_be(timestamps.data(), std::uint32_t{0x0101080a});
    store_be(&timestamps[4], 1000 + static_cast<std::uint32_t>(static_cast<std::int8_t>(script.u8())));
    store_be(&timestamps[8], f.ts_val);
    s.options = timestamps;
  } else if ((shape & 8) != 0) {
    s.options = script.bytes(script.u8() % 41);
  }
  if ((shape & 16) != 0 && s.options.size() <= 12) add_sack(script, f, s.options);
  feed(WirePeer::segment(f, s));
}

void Fixture::feed_icmp(Script& script) {
  const WirePeer::Flow& f = peer_.flow(script.u8());
  Bytes quoted(kIpv4Header + 8);
  write_ipv4(quoted.data(),
             {.source = kUs, .destination = kPeer, .total_length = 40, .protocol = kProtocolTcp});
  store_be(&quoted[20], f.our_port);
  store_be(&quoted[22], f.peer_port);
  const auto back = static_cast<std::uint32_t>(script.u8());
  store_be(&quoted[24], (f.seq_end - back).value());
  const std::uint8_t type = script.u8(), code = script.u8();
  feed(icmp_frame(type % 16, code % 16, script.u16(), quoted));
}

void Fixture::handshake(Script& script) {
  const std::uint8_t which = script.u8();
  WirePeer::Flow& f = peer_.flow(which);
  feed(peer_.syn(which, script.u8()));
  if (f.known) feed(WirePeer::plain_ack(f, 30000));
}

void Fixture::accept_all() {
  while (Connection* c = worker_.accept(*listener_))
    sockets_.push_back({.c = c, .over_wire = c->key.remote == IpAddress::v4(kPeer)});
}

void Fixture::connect(Script& script) {
  const std::uint8_t where = script.u8();
  Endpoint to{IpAddress::v4(kPeer), static_cast<std::uint16_t>(WirePeer::kTheirListenPort + 4 + where % 4)};
  if (where % 8 == 7) to = {IpAddress::v4(127, 0, 0, 1), WirePeer::kListenPort};
  const auto c = worker_.connect({IpAddress::any_v4(), 0}, to, {}, now_);
  if (c) sockets_.push_back({.c = *c, .over_wire = where % 8 != 7});
  settle();
}

void Fixture::send(Socket& s, std::size_t n, bool more) {
  Bytes bytes(n);
  for (std::uint32_t i = 0; i < n; ++i) bytes[i] = WirePeer::ours(s.written + i);
  const std::size_t half = n / 2;
  const iovec v[2] = {{bytes.data(), half}, {bytes.data() + half, n - half}};
  const auto sent = worker_.send(*s.c, v, more, now_);
  if (!sent) return;
  must(*sent <= n, "no more is sent than there was");
  s.written += static_cast<std::uint32_t>(*sent);
}

void Fixture::send_lent(Socket& s, std::size_t n) {
  iovec pieces[4];
  const auto lent = worker_.reserve(*s.c, n, pieces, now_);
  if (!lent) return;
  must(*lent <= 4, "no more pieces are lent than asked for");
  std::uint32_t filled = 0;
  for (std::size_t i = 0; i < *lent; ++i)
    for (std::size_t k = 0; k < pieces[i].iov_len; ++k)
      static_cast<std::byte*>(pieces[i].iov_base)[k] = WirePeer::ours(s.written + filled++);
  must(filled <= n, "no more is lent than asked for");
  filled = n % 3 == 0 ? filled / 2 : filled;
  worker_.commit(*s.c, filled, n % 2 == 0, now_);
  s.written += filled;
}

void Fixture::receive(Socket& s, std::size_t n, bool peek) {
  Bytes bytes(n + 1);
  const iovec v[2] = {{bytes.data(), 1}, {bytes.data() + 1, n}};
  const std::size_t readable = worker_.readable_bytes(*s.c);
  const auto got = worker_.receive(*s.c, v, {.peek = peek}, now_);
  if (!got) return;
  must(*got <= n + 1 && *got <= readable, "no more is received than was readable");
  for (std::uint32_t i = 0; s.over_wire && honest_ && i < *got; ++i)
    must(bytes[i] == WirePeer::theirs(s.c->irs + 1 + s.read + i), "received bytes are in their order");
  for (std::uint32_t i = 0; !s.over_wire && i < *got; ++i)
    must(bytes[i] == WirePeer::ours(s.read + i), "the loopback wire keeps bytes in their order");
  if (!peek) s.read += static_cast<std::uint32_t>(*got);
}

void Fixture::change_options(Socket& s, std::uint8_t mix) {
  SocketOptions o = s.c->options;
  o.nodelay = (mix & 1) != 0;
  o.cork = (mix & 2) != 0;
  o.quickack = (mix & 4) != 0;
  o.keepalive = (mix & 8) != 0;
  o.linger = (mix & 16) != 0;
  if ((mix & 32) != 0) o.rcvbuf = 2304, o.sndbuf = 4608;
  if ((mix & 64) != 0) o.user_timeout = seconds(5);
  if ((mix & 128) != 0) o.window_clamp = 1000;
  worker_.set_options(*s.c, o, now_);
}

void Fixture::close(std::size_t index, std::uint8_t how) {
  Connection& c = *sockets_[index].c;
  if (how % 4 == 0) return worker_.shutdown(c, (how & 4) != 0, (how & 8) != 0, now_);
  how % 4 == 1 ? worker_.abort(c, now_) : worker_.close(c, now_);
  sockets_.erase(sockets_.begin() + static_cast<std::ptrdiff_t>(index));
}

void Fixture::application(std::uint8_t op, Script& script) {
  const std::uint8_t which = script.u8();
  if (sockets_.empty()) return;
  const std::size_t index = which % sockets_.size();
  Socket& s = sockets_[index];
  switch (op) {
    case 0:
      send(s, script.u16() % 5000, (which & 0x80) != 0);
      break;
    case 1:
      receive(s, script.u16() % 5000, (which & 0x80) != 0);
      break;
    case 2:
      close(index, script.u8());
      break;
    case 3:
      change_options(s, script.u8());
      break;
    default:
      send_lent(s, script.u16() % 6000);
      break;
  }
  settle();
  for (const Socket& open : sockets_) {
    const ConnectionInfo info = worker_.info(*open.c);
    must(info.rx_queued < (1U << 20) && info.tx_queued < (1U << 20), "queues are bounded");
    (void)worker_.readiness(*open.c);
  }
}

void Fixture::step(Script& script) {
  static constexpr Duration kWaits[] = {milliseconds(1),   milliseconds(5),    milliseconds(45),
                                        milliseconds(210), milliseconds(1000), seconds(3),
                                        seconds(61),       seconds(7201)};
  const std::uint8_t op = script.u8();
  switch (op % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
      return feed_segment(script);
    case 4:
      return handshake(script);
    case 5: {
      Bytes frame = script.bytes(script.u8());
      if ((op & 0x10) != 0) mend(frame);
      honest_ = false;
      return feed(frame, (op & 0x20) != 0 ? std::uint16_t{kRxL4Good} : std::uint16_t{0});
    }
    case 6:
      return feed_icmp(script);
    case 7:
    case 8:
      return pass(kWaits[op >> 4 & 7]);
    case 9:
      return accept_all();
    case 10:
      return connect(script);
    case 11:
      // The device: how much it takes, and whether it holds on to what it was given.
      pool_.end_reading();
      port_.room = (op & 0x10) != 0 ? script.u8() % 8 : SIZE_MAX;
      port_.slow = (op & 0x20) != 0;
      return settle();
    default:
      return application(op >> 4 & 7, script);
    case 15:
      return feed(WirePeer::plain_ack(peer_.flow(op >> 4), 60000));
  }
}

void Fixture::finish() {
  pool_.end_reading();
  port_.room = SIZE_MAX;
  port_.slow = false;
  accept_all();
  while (!sockets_.empty()) close(sockets_.size() - 1, 2);
  worker_.close(*listener_, now_);
  settle();
  // The peer is silent from now on.
  const Time end = now_ + seconds(3600);
  int idle = 0;
  for (Time next = worker_.next_deadline(); next != kNever && next < end; next = worker_.next_deadline()) {
    idle = next <= now_ ? idle + 1 : 0;
    must(idle < 100, "a deadline does not stay in the past");
    now_ = std::max(next, now_ + milliseconds(1));
    settle();
    if (worker_.connections() == 0 && worker_.time_waits() == 0) break;
  }
  must(worker_.connections() == 0, "every connection comes to an end");
  must(worker_.time_waits() == 0, "every TIME-WAIT comes to an end");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static FuzzPool pool(1500);
  {
    Fixture fixture(pool);
    Script script(data, size);
    for (int steps = 0; !script.empty() && steps < 400; ++steps) fixture.step(script);
    fixture.finish();
  }
  pool.end_reading();
  must(pool.available() == pool.capacity(), "every packet comes back");
  return 0;
}

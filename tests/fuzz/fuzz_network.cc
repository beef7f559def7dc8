// Everything below TCP, fed with frames: Ethernet, ARP, IPv4, ICMP, the TCP header, the loopback wire.
#include "stack/ip/network.hh"
#include "tests/fuzz/frames.hh"

using namespace mtcp::stack;

namespace {

struct Fixture {
  explicit Fixture(FuzzPool& pool) : cache(pool), port(pool), network(options(), &port, cache, tx, stats) {}
  ~Fixture() { tx.clear(cache); }
  static const Options& options() {
    static const Options value = [] {
      Options o;
      o.interface.addresses = {{IpAddress::v4(kUs), 96 + 24}};
      o.interface.gateways = {IpAddress::v4(0x0a0900fe)};
      o.loopback = true;
      return o;
    }();
    return value;
  }

  void check(Network::Input result) {
    if (result == Network::Input::icmp_error) cache.free(error.packet);
    if (result != Network::Input::segment) return;
    const Packet* p = segment.packet;
    must(p != nullptr && p->len == segment.len, "a segment holds its payload");
    must(p->headroom() + p->len <= p->capacity, "a payload lies within its buffer");
    must(segment.options.sack_count <= 4 && segment.options.window_scale <= 14,
         "options are within their limits");
    cache.free(segment.packet);
  }
  void input(Packet* p) { check(network.input(p, segment, error, now)); }

  void send(std::uint32_t to, std::size_t payload) {
    const auto path = network.path(IpAddress::v4(to), IpAddress::any_v4());
    if (!path) return;
    Packet* p = cache.alloc();
    if (p == nullptr) return;
    p->len = p->payload_len = static_cast<std::uint16_t>(payload);
    std::memset(p->data, 0x61, payload);
    write_tcp_plain(p->push(kTcpHeader), 80, 4000, Seq(1), Seq(2), kAck, 100, false, 0, 0);
    network.output_tcp(p, (*path)->source, IpAddress::v4(to), **path, TxPriority::data, now);
  }

  void step(Script& script);
  void drain() {
    while (Packet* p = network.next_loopback()) check(network.input_ip(p, segment, error, now, true));
    tx.flush(port);
    port.sent.clear();
    IpAddress failed;
    while (network.next_unreachable(failed)) {
    }
  }

  Stats stats;
  PacketCache cache;
  FuzzPort port;
  TxQueue tx{256, stats};
  Network network;
  Time now{seconds(100)};
  Segment segment;
  IcmpError error;
};

void Fixture::step(Script& script) {
  const std::uint8_t op = script.u8();
  switch (op % 8) {
    case 0:
    case 1:
    case 2: {
      Bytes frame = script.bytes(script.u8());
      if (op % 8 != 0) mend(frame);
      port.feed(frame, op % 8 == 2 ? std::uint16_t{kRxL4Good} : std::uint16_t{0});
      Packet* p = nullptr;
      if (port.rx(&p, 1) == 1) input(p);
      break;
    }
    case 3: {
      port.feed(script.bytes(script.u8()));
      Packet* p = nullptr;
      if (port.rx(&p, 1) == 1) check(network.input_ip(p, segment, error, now, true));
      break;
    }
    case 4:
      send((op & 0x80) != 0 ? 0x0a090000U + script.u8() : script.u16() * 0x10001U, op >> 3);
      break;
    case 5:
      now += milliseconds(script.u16());
      (void)network.run_timers(now);
      break;
    case 6:
      send(kUs, op >> 3);
      break;
    case 7:
      network.announce(now);
      break;
  }
  drain();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static FuzzPool pool(2048);
  {
    Fixture fixture(pool);
    Script script(data, size);
    while (!script.empty()) fixture.step(script);
  }
  must(pool.available() == pool.capacity(), "every packet comes back");
  return 0;
}

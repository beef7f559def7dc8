// The loopback wire: one stack that talks to itself, without a device.
#include <catch2/catch.hpp>
#include <map>

#include "stack/packet/heap_pool.hh"
#include "stack/tcp/connection.hh"
#include "stack/worker.hh"

using namespace mtcp::stack;

namespace {

struct Alone {
  explicit Alone(const IpAddress& a) : address(a) {
    options.interface.addresses.push_back({IpAddress::v4(10, 0, 0, 1), 120});
    options.loopback = true;
    worker = std::make_unique<Worker>(options, nullptr, pool, stats, Secrets{.key = {1, 2, 3, 4}}, now);
  }
  void run(Duration d) {
    for (const Time end = now + d; now < end; now += microseconds(100)) {
      do {
        worker->poll(now);
        worker->flush(now);
      } while (worker->pending());
      while (SocketBase* s = worker->next_event()) ++events[s];
    }
  }
  IpAddress address;
  Options options;
  HeapPool pool{4096};
  Stats stats;
  Time now{seconds(1)};
  std::unique_ptr<Worker> worker;
  std::map<SocketBase*, int> events;
};

}  // namespace

TEST_CASE("connections between two sockets of one stack need no device", "[loopback]") {
  IpAddress v6;
  v6.bytes[15] = 1;
  for (const IpAddress& address : {IpAddress::v4(10, 0, 0, 1), IpAddress::v4(127, 0, 0, 1), v6}) {
    Alone a(address);
    Worker& w = *a.worker;
    const auto l = w.listen({address, 80}, {});
    REQUIRE(l);
    const auto c =
        w.connect({address.is_v4() ? IpAddress::any_v4() : IpAddress::any_v6(), 0}, {address, 80}, {}, a.now);
    REQUIRE(c);
    a.run(milliseconds(1));
    Connection* s = w.accept(**l);
    REQUIRE(s != nullptr);
    CHECK((*c)->hot.state == State::established);
    CHECK(s->key.remote == address);
    CHECK(a.events[*c] == 1);
    CHECK(a.events[*l] == 1);

    std::vector<std::byte> sent(100'000, std::byte{42}), got(100'000);
    std::size_t out = 0, in = 0;
    while (in < sent.size()) {
      const iovec v{sent.data() + out, sent.size() - out};
      if (const auto n = w.send(**c, {&v, 1}, false, a.now); n) out += *n;
      a.run(milliseconds(1));
      const iovec r{got.data() + in, got.size() - in};
      if (const auto n = w.receive(*s, {&r, 1}, {}, a.now); n) in += *n;
    }
    CHECK(sent == got);
    w.close(**c, a.now);
    a.run(milliseconds(1));
    CHECK(w.readiness(*s).peer_closed);
    w.close(*s, a.now);
    a.run(milliseconds(1));
    CHECK(w.connections() == 0);
    CHECK(w.time_waits() == 1);
    CHECK(a.stats.get(Counter::loopback_packets) > 50);
    CHECK_FALSE(w.pending());
    a.worker.reset();
    CHECK(a.pool.available() == a.pool.capacity());
  }
}

TEST_CASE("a socket can connect to itself", "[loopback]") {
  // RFC 9293 3.5: a simultaneous open of one end with itself, as Linux allows it.
  Alone a(IpAddress::v4(127, 0, 0, 1));
  Worker& w = *a.worker;
  const auto c = w.connect({a.address, 5000}, {a.address, 5000}, {}, a.now);
  REQUIRE(c);
  a.run(milliseconds(1));
  CHECK((*c)->hot.state == State::established);
  std::byte b{7};
  const iovec v{&b, 1};
  REQUIRE(w.send(**c, {&v, 1}, false, a.now));
  a.run(milliseconds(1));
  std::byte r{};
  const iovec in{&r, 1};
  const auto n = w.receive(**c, {&in, 1}, {}, a.now);
  REQUIRE(n);
  CHECK(r == b);
  w.close(**c, a.now);
  a.run(seconds(2));
  CHECK(w.connections() == 0);
}

// [[filter]]: who may open connections, and how many of them a second.
#include <catch2/catch.hpp>

#include "stack/tcp/passive/filter.hh"
#include "tests/sim/passive_world.hh"

using namespace mtcp::sim;
using World = PassiveWorld;
using Action = FilterRule::Action;

namespace {

FilterRule rule(Action action, std::uint32_t rate = 0) { return {.action = action, .rate = rate}; }

std::function<void(Options&)> with(std::vector<FilterRule> rules) {
  return [rules = std::move(rules)](Options& o) { o.filter = rules; };
}

}  // namespace

TEST_CASE("a filter that drops leaves a SYN unanswered, and it is counted", "[filter]") {
  World w(with({rule(Action::drop)}));
  CHECK(w.knock(5000).flags == 0);
  CHECK(w.host.count(Counter::filter_dropped) == 1);
  CHECK(w.listener.syn_count == 0);
}

TEST_CASE("a filter that resets answers a SYN as a closed port does", "[filter]") {
  World w(with({rule(Action::reset)}));
  const Seg r = w.knock(5000, 10);
  CHECK(r.is(kRst | kAck));
  CHECK(r.ack == 11);
  CHECK(w.host.count(Counter::filter_reset) == 1);
}

TEST_CASE("a filter that drops hides closed ports, too", "[filter]") {
  World w(with({{.port_first = 81, .port_last = 90, .action = Action::drop}}));
  w.peer.say({.flags = kSyn, .seq = 10, .to_port = 81});
  w.peer.say({.flags = kAck, .seq = 10, .ack = 999, .to_port = 90});
  CHECK(w.peer.silent());
  w.peer.say({.flags = kSyn, .seq = 10, .to_port = 91});
  CHECK(w.peer.hear().is(kRst | kAck));
  CHECK(w.host.count(Counter::filter_dropped) == 2);
}

TEST_CASE("the first filter that matches decides: source, port, and the rest is accepted", "[filter]") {
  World w;
  const auto set = [&](std::vector<FilterRule> rules) { w.host.worker->set_filter(rules); };
  const Prefix peer{w.peer.address, 128}, other{IpAddress::v4(192, 0, 2, 0), 120};
  set({{.source = peer, .action = Action::accept}, rule(Action::drop)});
  CHECK(w.knock(5000).is(kSyn | kAck));
  set({{.source = other, .action = Action::drop}});
  CHECK(w.knock(5001).is(kSyn | kAck));
  set({{.source = other, .action = Action::accept}, rule(Action::drop)});
  CHECK(w.knock(5002).flags == 0);
  set({{.port_first = 81, .port_last = 65535, .action = Action::drop}});
  CHECK(w.knock(5003).is(kSyn | kAck));
  set({{.port_first = 80, .port_last = 80, .action = Action::drop}});
  CHECK(w.knock(5004).flags == 0);
  set({{.source = {IpAddress::any_v4(), 96}, .action = Action::drop}});
  CHECK(w.knock(5005).flags == 0);
  set({});
  CHECK(w.knock(5006).is(kSyn | kAck));
}

TEST_CASE("connections that are there go on when a filter comes that drops new ones", "[filter]") {
  World w;
  w.peer.handshake();
  w.host.worker->set_filter(std::vector{rule(Action::drop)});
  w.peer.say({.flags = kAck | kPsh, .seq = w.peer.snd, .ack = w.peer.rcv, .data = "hello"});
  w.sim.run_for(milliseconds(300));
  const Seg a = w.peer.hear();
  CHECK(a.is(kAck));
  CHECK(a.ack == w.peer.snd + 5);
  CHECK(w.knock(5001).flags == 0);
}

TEST_CASE("rfc6191: a SYN for a flow in TIME-WAIT is a new connection to the filter", "[filter]") {
  World w;
  w.peer.handshake();
  w.host.accepted.at(0)->close();
  w.sim.run_for(milliseconds(5));
  w.peer.say({.flags = kFin | kAck, .seq = w.peer.snd, .ack = w.peer.rcv + 1});
  REQUIRE(w.host.worker->time_waits() == 1);
  w.peer.forget();
  w.host.worker->set_filter(std::vector{rule(Action::drop)});
  w.peer.say({.flags = kSyn, .seq = w.peer.snd + 100000});
  CHECK(w.peer.silent());
  CHECK(w.host.count(Counter::filter_dropped) == 1);
}

TEST_CASE("a rate lets so many through at once, and so many a second", "[filter]") {
  World w(with({rule(Action::accept, 5)}));
  std::uint16_t port = 5000;
  const auto answered = [&](int n) {
    int count = 0;
    for (int i = 0; i < n; ++i) count += w.knock(port++).is(kSyn | kAck) ? 1 : 0;
    return count;
  };
  CHECK(answered(20) == 5);
  CHECK(w.host.count(Counter::filter_over_rate) == 15);
  w.sim.run_for(milliseconds(420));
  w.peer.forget();  // SYN-ACKs are sent again
  CHECK(answered(20) == 2);
  w.sim.run_for(seconds(10));
  w.peer.forget();
  CHECK(answered(20) == 5);
}

TEST_CASE("a SYN that is sent again while its connection is half open takes nothing of the rate", "[filter]") {
  World w(with({rule(Action::accept, 1)}));
  CHECK(w.knock(5000).is(kSyn | kAck));
  CHECK(w.knock(5000).is(kSyn | kAck));
  CHECK(w.knock(5001).flags == 0);
}

TEST_CASE("each source has its own rate: an IPv4 address, or 64 bits of an IPv6 one", "[filter]") {
  SourceRates rates({1, 2});
  const Time now(seconds(100));
  const auto v6 = [](std::uint8_t network, std::uint8_t host) {
    IpAddress a;
    a.bytes = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, network, 0, 0, 0, 0, 0, 0, 0, host};
    return a;
  };
  CHECK(rates.take(0, 1, IpAddress::v4(10, 0, 0, 1), now));
  CHECK_FALSE(rates.take(0, 1, IpAddress::v4(10, 0, 0, 1), now));
  CHECK(rates.take(0, 1, IpAddress::v4(10, 0, 0, 2), now));
  CHECK(rates.take(1, 1, IpAddress::v4(10, 0, 0, 1), now));  // of another rule
  CHECK(rates.take(0, 1, v6(1, 1), now));
  CHECK_FALSE(rates.take(0, 1, v6(1, 2), now));
  CHECK(rates.take(0, 1, v6(2, 1), now));
}

TEST_CASE("a flood from many sources does not let one that is over its rate through", "[filter]") {
  SourceRates rates({3, 4});
  Time now(seconds(100));
  const IpAddress greedy = IpAddress::v4(192, 0, 2, 1);
  int let_through = 0;
  for (std::uint32_t i = 0; i < 1000000; ++i) {
    now += std::chrono::microseconds(10);
    (void)rates.take(0, 10, IpAddress::v4(0x0a000000 + i), now);
    let_through += i % 20 == 0 && rates.take(0, 10, greedy, now) ? 1 : 0;
  }
  // 10 at once and 10 a second, in 10 seconds; were it forgotten each time, 50,000.
  CHECK(let_through >= 100);
  CHECK(let_through <= 120);
}
